//! Messages between the host and its supervisor processes: a length, a JSON value, and descriptors beside the first
//! byte, over a Unix socket.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message; arguments and environment are bounded well below it by [`crate::Call`].
const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// stdin, stdout and stderr.
pub(crate) const STREAMS: usize = 3;

/// A request of the host to a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run this; the three streams come as descriptors.
    Start(Box<Start>),
    /// End it: SIGTERM, and SIGKILL after the grace.
    Terminate,
    /// End it at once.
    Kill,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_directory: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) cage: Option<Cage>,
    pub(crate) bounds: Bounds,
}

/// Bounds in plain numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) wall_ms: u64,
    pub(crate) grace_ms: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) scratch_bytes: u64,
    pub(crate) processes: u32,
}

/// The files that a caged program may use, and the kernel's Landlock version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cage {
    pub(crate) landlock_abi: u32,
    /// Trees and files to read and to execute from.
    pub(crate) readable: Vec<PathBuf>,
}

/// A reply of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The program was not executed.
    Refused { step: Step, message: String },
    /// The program and all its descendants are gone.
    Ended(Ended),
}

/// The step at which starting a program failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Building the cage, on the host's side of `fork`.
    Cage,
    /// `fork`, or what happens before `exec`.
    Spawn,
    /// `exec` itself: the file or its interpreter.
    Exec,
    /// `exec`, since another process still has the file open for writing.
    Busy,
    /// Arguments or environment that no process can take.
    Arguments,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// The bound that ended it.
    pub(crate) bound: Option<Bound>,
    pub(crate) cpu_micros: u64,
    pub(crate) peak_memory_bytes: u64,
    /// Whether it was killed while the kernel killed processes of the machine for want of memory.
    pub(crate) out_of_memory: bool,
    /// Processes that did not end within the patience for a SIGKILL.
    pub(crate) left: u32,
}

/// The code by which shells tell that SIGKILL has ended a command.
const KILLED_IN_SHELL: i32 = 128 + libc::SIGKILL;

impl Ended {
    /// Whether SIGKILL has ended it, and not at one of its bounds.
    pub(crate) fn is_killed(&self) -> bool {
        self.bound.is_none() && matches!(self.exit, Exit::Signal(libc::SIGKILL) | Exit::Code(KILLED_IN_SHELL))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bound {
    Time,
    Memory,
    Scratch,
    Processes,
    /// A process whose descriptors cannot be read cannot be metered.
    Unwatchable,
}

/// Sends a message, with descriptors.
pub(crate) fn send(socket: &UnixStream, message: &impl Serialize, streams: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too long"));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !streams.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(streams));
    }
    let sent = sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    (&mut &*socket).write_all(&bytes[sent..])
}

/// Receives a message; `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut head)];
    let got = loop {
        match recvmsg(socket.as_fd(), parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            // The peer died with a message of ours unread.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            answer => break answer?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let streams = control
        .drain()
        .filter_map(|message| {
            let RecvAncillaryMessage::ScmRights(fds) = message else { return None };
            Some(fds)
        })
        .flatten()
        .collect();
    (&mut &*socket).read_exact(&mut head[got..])?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut bytes = vec![0; length];
    (&mut &*socket).read_exact(&mut bytes)?;
    Ok(Some((serde_json::from_slice(&bytes)?, streams)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (here, there) = UnixStream::pair().expect("sockets");
        let (reader, writer) = std::io::pipe().expect("pipe");
        send(&here, &Request::Kill, &[writer.as_fd(), writer.as_fd()]).expect("sent");
        drop((writer, here));
        let (request, streams) = receive::<Request>(&there).expect("received").expect("not closed");
        assert!(matches!(request, Request::Kill));
        assert_eq!(streams.len(), 2);
        for stream in streams {
            std::fs::File::from(stream).write_all(b"x").expect("written");
        }
        let mut text = String::new();
        (&reader).read_to_string(&mut text).expect("read");
        assert_eq!(text, "xx");
        assert!(receive::<Request>(&there).expect("closed").is_none());
    }
}
