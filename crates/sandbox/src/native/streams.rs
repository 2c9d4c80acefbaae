//! A native run at the host: the program's streams, the stop flag and the supervisor's messages.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};

use super::host::{Stdin, reason_of, reply};
use super::wire::{self, Bound, Ended, Exit, Reply, Request, Step};
use crate::failure::Reason;
use crate::output::{Output, Spool};
use crate::program::{Limits, STDERR_TAIL_BYTES};
use crate::tail::Tail;

/// Longest time until a stop is noticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// Time after the limit and the grace in which a supervisor may report the end: longer than its own attempts take.
const PATIENCE: Duration = Duration::from_secs(15);
const CHUNK_BYTES: usize = 64 << 10;
/// A slot rests for this many times the processor time that a flood took: repeated, it takes a part in this many, plus
/// one, of a processor.
const REST_PER_COST: u32 = 20;
/// Short enough for the failure to be known within a second.
const LONGEST_REST: Duration = Duration::from_millis(800);

/// The output and the end of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) stdout: Output,
    pub(crate) stderr: Tail,
    /// The cause for which the host ended the run, if it did.
    pub(crate) cause: Option<Cause>,
    pub(crate) wall_time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Stopped,
    Output,
}

impl Ran {
    /// The time for which the slot rests before the run is reported: after a flood of processes or output, which takes more
    /// than one processor. A job that repeats it would else slow the programs of the other slots.
    pub(super) fn rest(&self) -> Duration {
        let is_flood = match self.cause {
            Some(Cause::Output) => true,
            Some(Cause::Stopped) => false,
            None => self.ended.bound == Some(Bound::Processes),
        };
        let cost = Duration::from_micros(if is_flood { self.ended.cpu_micros } else { 0 });
        cost.saturating_mul(REST_PER_COST).min(LONGEST_REST)
    }

    /// The reason why there is no result, if there is none: the first bound that was met counts, even if the program exited with
    /// 0.
    pub(crate) fn reason(&self, limits: &Limits) -> Option<Reason> {
        if self.ended.left > 0 {
            return Some(Reason::sandbox("end the program", format!("{} processes do not end", self.ended.left)));
        }
        let time = Reason::TimeLimit { limit: limits.wall_time };
        let scratch = Reason::ScratchLimit { limit: limits.scratch_bytes };
        match (self.cause, self.ended.bound, self.ended.exit) {
            (Some(Cause::Stopped), _, _) => Some(Reason::Canceled),
            (Some(Cause::Output), _, _) => Some(match self.stdout.failure() {
                Some(error) => Reason::sandbox("keep its stdout", error),
                None => Reason::OutputLimit { limit: limits.output_bytes },
            }),
            (None, Some(bound), _) => Some(match bound {
                Bound::Time => time,
                Bound::Memory => Reason::MemoryLimit { limit: limits.memory_bytes },
                Bound::Scratch => scratch,
                Bound::Processes => Reason::ProcessLimit { limit: limits.processes },
                Bound::Unwatchable => Reason::Hidden,
            }),
            (None, None, Exit::Code(0)) => None,
            (None, None, _) if self.ended.out_of_memory => Some(Reason::sandbox(
                "get memory from this machine for the program",
                "the kernel has none and killed it",
            )),
            (None, None, Exit::Code(code)) => Some(Reason::Exit { code }),
            // The kernel's own signals for these limits come before the watch looks.
            (None, None, Exit::Signal(libc::SIGXFSZ)) => Some(scratch),
            (None, None, Exit::Signal(libc::SIGXCPU)) => Some(time),
            (None, None, Exit::Signal(signal)) => Some(Reason::Signal { signal }),
        }
    }
}

/// The host's ends of a program's streams; closed ones are `None`.
pub(super) struct Streams {
    stdin: Option<(PipeWriter, Bytes)>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    output: Output,
    tail: Tail,
    overdue_after: Duration,
    buffer: Vec<u8>,
    cause: Option<Cause>,
}

impl Streams {
    /// Opens them, with the program's ends in the order of their numbers.
    pub(super) fn open(
        stdin: Stdin,
        limits: &Limits,
        spool: Option<&Spool>,
    ) -> io::Result<(Self, [OwnedFd; wire::STREAMS])> {
        let (their_stdin, stdin) = match stdin {
            Stdin::File(file) => (OwnedFd::from(file), None),
            Stdin::Bytes(bytes) => {
                let (theirs, ours) = io::pipe()?;
                ioctl_fionbio(&ours, true)?;
                (OwnedFd::from(theirs), Some((ours, bytes)))
            }
        };
        let (stdout, their_stdout) = io::pipe()?;
        let (stderr, their_stderr) = io::pipe()?;
        ioctl_fionbio(&stdout, true)?;
        ioctl_fionbio(&stderr, true)?;
        let streams = Self {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            output: Output::new(limits.output_bytes, spool.cloned()),
            tail: Tail::new(STDERR_TAIL_BYTES),
            overdue_after: limits.wall_time.saturating_add(limits.grace).saturating_add(PATIENCE),
            buffer: vec![0; CHUNK_BYTES],
            cause: None,
        };
        Ok((streams, [their_stdin, their_stdout.into(), their_stderr.into()]))
    }

    /// Serves the streams until the supervisor says that all processes are gone. Nothing comes of an executable that is
    /// still open for writing.
    pub(super) fn run(
        mut self,
        supervisor: &UnixStream,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Ran>, Reason> {
        let started_at = Instant::now();
        let ended = loop {
            let ready = self.wait(supervisor).map_err(|error| Reason::sandbox("wait for the program", error))?;
            self.move_bytes(ready, on_stderr);
            self.tell_to_end(supervisor, stop);
            if ready.supervisor {
                match reply(supervisor)? {
                    Reply::Refused { step: Step::Busy, .. } => return Ok(None),
                    Reply::Refused { step, message } => return Err(reason_of(step, message)),
                    Reply::Ended(ended) => break ended,
                }
            }
            if started_at.elapsed() > self.overdue_after {
                return Err(Reason::sandbox("end the program", "its supervisor does not answer"));
            }
        };
        let wall_time = started_at.elapsed();
        // All writers are gone, so the pipes hold the rest of the output.
        self.move_bytes(Ready::ALL, on_stderr);
        Ok(Some(Ran { ended, stdout: self.output, stderr: self.tail, cause: self.cause, wall_time }))
    }

    fn wait(&self, supervisor: &UnixStream) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(supervisor, PollFlags::IN)];
        fds.extend(self.stdout.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        fds.extend(self.stdin.as_ref().map(|(pipe, _)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::OUT)));
        match poll(&mut fds, Some(&TICK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let supervisor = ready.next().unwrap_or(false);
        Ok(Ready {
            supervisor,
            stdout: self.stdout.is_some() && ready.next().unwrap_or(false),
            stderr: self.stderr.is_some() && ready.next().unwrap_or(false),
            stdin: self.stdin.is_some() && ready.next().unwrap_or(false),
        })
    }

    fn move_bytes(&mut self, ready: Ready, on_stderr: &mut dyn FnMut(&[u8])) {
        if ready.stdin {
            self.write_stdin();
        }
        // A turn has a bound, so that a flood on one stream does not hide the other, the stop flag or the end.
        if ready.stdout && !read(&mut self.stdout, &mut self.buffer, |chunk| self.output.push(chunk)) {
            self.cause.get_or_insert(Cause::Output);
        }
        if ready.stderr {
            read(&mut self.stderr, &mut self.buffer, |chunk| {
                self.tail.push(chunk);
                on_stderr(chunk);
                true
            });
        }
    }

    fn write_stdin(&mut self) {
        while let Some((pipe, bytes)) = &mut self.stdin {
            match rustix::io::write(&*pipe, bytes) {
                Ok(written) => bytes.advance(written),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                // The program has closed its end: it needs no more.
                Err(_) => bytes.clear(),
            }
            if bytes.is_empty() {
                self.stdin = None;
            }
        }
    }

    fn tell_to_end(&mut self, supervisor: &UnixStream, stop: &AtomicBool) {
        // The supervisor is told once to end the program; a failure to tell it means that it is gone, which the next turn
        // notices.
        match self.cause {
            None if stop.load(Ordering::Relaxed) => {
                self.cause = Some(Cause::Stopped);
                let _ = wire::send(supervisor, &Request::Terminate, &[]);
            }
            Some(Cause::Output) if self.stdout.take().is_some() => {
                let _ = wire::send(supervisor, &Request::Kill, &[]);
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy)]
struct Ready {
    supervisor: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Ready {
    const ALL: Self = Self { supervisor: false, stdin: false, stdout: true, stderr: true };
}

/// Reads the available bytes, a pipe's contents at most, and closes the pipe at its end. False when `take` refuses a chunk.
fn read(pipe: &mut Option<PipeReader>, buffer: &mut [u8], mut take: impl FnMut(&[u8]) -> bool) -> bool {
    const MOST_CHUNKS: usize = 32;
    for _ in 0..MOST_CHUNKS {
        let Some(open) = pipe else { return true };
        match rustix::io::read(&*open, &mut *buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => {
                if !take(&buffer[..length]) {
                    return false;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Blame;

    #[test]
    fn a_program_that_is_killed_while_the_machine_has_no_memory_is_not_to_blame() {
        let ended = |exit, bound| {
            let ended = Ended { exit, bound, cpu_micros: 0, peak_memory_bytes: 0, out_of_memory: false, left: 0 };
            Ended { out_of_memory: ended.is_killed(), ..ended }
        };
        let reason = |ended| {
            let (stdout, stderr) = (Output::new(0, None), Tail::new(STDERR_TAIL_BYTES));
            Ran { ended, stdout, stderr, cause: None, wall_time: Duration::ZERO }.reason(&Limits::default())
        };
        let killed = ended(Exit::Signal(libc::SIGKILL), None);
        for killed in [killed, ended(Exit::Code(137), None)] {
            let reason = reason(killed).expect("no result");
            assert_eq!(reason.blame(), Blame::Worker, "{reason}");
            assert!(reason.to_string().contains("memory"), "{reason}");
        }
        // By itself, or at a limit of its own.
        let by_itself = Ended { out_of_memory: false, ..killed };
        assert_eq!(reason(by_itself), Some(Reason::Signal { signal: libc::SIGKILL }));
        assert_eq!(reason(ended(Exit::Code(1), None)), Some(Reason::Exit { code: 1 }));
        let limit = Limits::default().memory_bytes;
        let too_large = ended(Exit::Signal(libc::SIGKILL), Some(Bound::Memory));
        assert_eq!(reason(too_large), Some(Reason::MemoryLimit { limit }));
    }
}
