//! Ends of a call: a result, or the reason why there is none.

use std::fmt;
use std::fs::File;
use std::io;
use std::time::Duration;

use crate::hash::ProgramHash;

/// The result of a program that exited with 0.
#[derive(Debug, Default)]
pub struct Finished {
    /// The whole stdout; empty if it is in a file.
    pub stdout: Vec<u8>,
    /// The stdout, if it is longer than [`crate::Call::spool`] keeps in memory.
    pub stdout_file: Option<File>,
    /// The last 64 KiB of stderr.
    pub stderr_tail: Vec<u8>,
    /// The resources that the execution used.
    pub usage: Usage,
}

/// Resources that an execution used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Elapsed time from the program's start to the end of its last process, without compiling.
    pub wall_time: Duration,
    /// Processor time of all its processes, user and system.
    pub cpu_time: Duration,
    /// The largest observed memory in bytes; 0 for a native program that ran for less than 5 ms.
    pub peak_memory_bytes: u64,
}

/// A call without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCall {
    /// The reason, by which a caller decides.
    pub reason: Reason,
    /// The last 64 KiB of stderr.
    pub stderr_tail: Vec<u8>,
    /// The resources that the execution used; zero if it did not start.
    pub usage: Usage,
}

/// The cause of a failure, which tells whether another attempt may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The program, its input or its limits: it may fail the same way on any worker.
    Program,
    /// This worker: another worker may succeed.
    Worker,
    /// No part: the call was stopped.
    Stopped,
}

/// The reason why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The program ran for longer than its limit.
    #[error("it ran for longer than its limit of {limit:?}")]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// The program took more memory than its limit.
    #[error("it needs more memory than its limit of {limit} bytes")]
    MemoryLimit {
        /// The limit.
        limit: u64,
    },
    /// The program wrote more to stdout than its limit.
    #[error("it wrote more to stdout than its limit of {limit} bytes")]
    OutputLimit {
        /// The limit.
        limit: u64,
    },
    /// The program's files take more space than their limit, lie deeper than 64 directories or cannot be measured.
    #[error("its files need more space than its limit of {limit} bytes, or are nested too deep to tell")]
    ScratchLimit {
        /// The limit.
        limit: u64,
    },
    /// The program has more processes and threads than its limit.
    #[error("it has more processes and threads than its limit of {limit}")]
    ProcessLimit {
        /// The limit.
        limit: u32,
    },
    /// A process of a native program has made its descriptors unreadable, so what it takes cannot be metered.
    #[error("a process of it hides from the watch")]
    Hidden,
    /// The program exited with another code than 0. The end of stderr tells more.
    #[error("it exited with code {code}")]
    Exit {
        /// The exit code, 1 to 255; a WASI module has codes up to 125, a component only 1.
        code: i32,
    },
    /// A WASI module exited with a code that WASI does not know, such as the -1 of a C program.
    #[error("it exited with a code above 125, which WASI does not know")]
    ExitUnknown,
    /// A signal ended it, such as 11 for a wrong address.
    #[error("it was ended by signal {signal}")]
    Signal {
        /// The number.
        signal: i32,
    },
    /// A WASI program trapped: a wrong address, `unreachable`, endless recursion.
    #[error("it trapped: {message}")]
    Trap {
        /// The trap, in wasmtime's words.
        message: String,
    },
    /// The bytes are no module or component that can be run.
    #[error("it cannot be run: {message}")]
    BadModule {
        /// The error in the bytes.
        message: String,
    },
    /// Compiling takes more than it may.
    #[error("compiling it takes more than {what}")]
    CompileLimit {
        /// The limit it met.
        what: String,
    },
    /// The module has another hash than the one asked for.
    #[error("its SHA-256 is {found}, not {expected}")]
    HashMismatch {
        /// The one asked for.
        expected: ProgramHash,
        /// The one found.
        found: ProgramHash,
    },
    /// The module is larger than the worker accepts.
    #[error("it has {bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// The module's length.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The file cannot be executed here: another architecture, no interpreter, no permission.
    #[error("it cannot be executed: {message}")]
    NotExecutable {
        /// The system's error.
        message: String,
    },
    /// This worker cannot contain it, or was not allowed to run it.
    #[error("this worker does not run it: {missing}")]
    Unsupported {
        /// The missing ability or permission.
        missing: String,
    },
    /// Arguments, environment or input that the program cannot be given.
    #[error("its arguments, environment or input cannot be used: {message}")]
    BadCall {
        /// The error of the call.
        message: String,
    },
    /// The flag to stop was set.
    #[error("it was stopped")]
    Canceled,
    /// The worker failed, not the program.
    #[error("the sandbox failed: {message}")]
    Sandbox {
        /// The error of the sandbox.
        message: String,
    },
}

impl Reason {
    /// The cause of the failure.
    pub fn blame(&self) -> Blame {
        match self {
            Self::TimeLimit { .. }
            | Self::MemoryLimit { .. }
            | Self::OutputLimit { .. }
            | Self::ScratchLimit { .. }
            | Self::ProcessLimit { .. }
            | Self::Hidden
            | Self::Exit { .. }
            | Self::ExitUnknown
            | Self::Signal { .. }
            | Self::Trap { .. }
            | Self::BadModule { .. }
            | Self::CompileLimit { .. }
            | Self::TooLarge { .. }
            | Self::BadCall { .. } => Blame::Program,
            Self::HashMismatch { .. }
            | Self::NotExecutable { .. }
            | Self::Unsupported { .. }
            | Self::Sandbox { .. } => Blame::Worker,
            Self::Canceled => Blame::Stopped,
        }
    }

    pub(crate) fn sandbox(what: &str, error: impl fmt::Display) -> Self {
        Self::Sandbox { message: format!("{what}: {error}") }
    }
}

/// Whether an error of the system is a fault of the machine or a want of memory, descriptors, processes or disk space: it says
/// nothing about the file or the program.
pub(crate) fn is_of_machine(error: &io::Error) -> bool {
    const CODES: [i32; 9] = [
        libc::EAGAIN,
        libc::EDQUOT,
        libc::EIO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ENOSPC,
        libc::ESTALE,
    ];
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

impl From<Reason> for Box<FailedCall> {
    fn from(reason: Reason) -> Self {
        Self::new(FailedCall { reason, stderr_tail: Vec::new(), usage: Usage::default() })
    }
}

/// The reason, and for a program that failed by itself the last lines of its stderr.
impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES: usize = 1024;
        write!(f, "{}", self.reason)?;
        let own = matches!(
            self.reason,
            Reason::Exit { .. } | Reason::ExitUnknown | Reason::Signal { .. } | Reason::Trap { .. }
        );
        let shown = &self.stderr_tail[self.stderr_tail.len().saturating_sub(SHOWN_BYTES)..];
        let text = String::from_utf8_lossy(shown);
        if own && !text.trim().is_empty() {
            write!(f, "; the end of its stderr: {}", text.trim())?;
        }
        Ok(())
    }
}

impl std::error::Error for FailedCall {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_descriptors_memory_or_disk_space_is_of_the_machine_and_a_missing_file_is_not() {
        let is_of_machine = |code| is_of_machine(&io::Error::from_raw_os_error(code));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC, libc::EAGAIN, libc::EIO] {
            assert!(is_of_machine(code), "{code}");
        }
        for code in [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::EINVAL, libc::E2BIG] {
            assert!(!is_of_machine(code), "{code}");
        }
    }
}
