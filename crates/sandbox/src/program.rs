//! A program, its arguments and its limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::failure::Reason;
use crate::hash::ProgramHash;
use crate::output::Spool;

/// The end of stderr that is kept with a result or a failure.
pub const STDERR_TAIL_BYTES: usize = 64 << 10;
/// Arguments and environment of one call together, as Linux counts them for an executable by default.
const MAX_ARGUMENT_BYTES: usize = 1 << 20;

/// A program as a worker has it.
#[derive(Clone, Debug)]
pub enum LocalProgram {
    /// A WASI preview 1 module or preview 2 component that exports a command's entry. Needs the feature `wasm`.
    Wasm {
        /// SHA-256 of the bytes; another hash is an error.
        sha256: ProgramHash,
        /// The bytes; they are read only when the module is not compiled yet.
        source: Source,
    },
    /// An uploaded executable, run in the cage.
    Native {
        /// SHA-256 of the file; another hash is an error.
        sha256: ProgramHash,
        /// The file, which the worker's user may execute.
        path: PathBuf,
    },
    /// A command that the operator has named: under the same watch, without the cage.
    Named(NamedCommand),
}

/// The source of a module's bytes.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Bytes(Bytes),
    /// In a file at this path.
    File(PathBuf),
}

/// A command of the worker's image.
#[derive(Clone, Debug, Default)]
pub struct NamedCommand {
    /// The command and its first arguments; a name without a slash is looked for in the call's `PATH`.
    pub argv: Vec<String>,
    /// Variables beside `PATH`, `HOME`, `TMPDIR` and `LANG`; a call's own come on top.
    pub env: BTreeMap<String, String>,
    /// The working directory; `None` means the task's scratch directory.
    pub working_directory: Option<PathBuf>,
}

/// An execution of a program.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Standard input.
    pub stdin: Input,
    /// The whole environment of a WASI program; what a native one gets beside `PATH`, `HOME`, `TMPDIR` and `LANG`.
    pub env: BTreeMap<String, String>,
    /// The limits of the execution.
    pub limits: Limits,
    /// Clocks that only count their readings and random numbers that repeat. WASI programs only.
    pub reproducible: bool,
    /// The file for a long stdout; without it all of stdout stays in memory.
    pub spool: Option<Spool>,
}

/// Standard input.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// No input.
    #[default]
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// A file's contents.
    File(PathBuf),
}

/// The limits of a program, at which it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time on the clock from the program's start; compiling is not counted.
    pub wall_time: Duration,
    /// Time from SIGTERM to SIGKILL, at the time limit and at a stop. WASI programs have no signals and no grace.
    pub grace: Duration,
    /// Memory of all its processes together, page cache not counted. They can exceed it by what they allocate in 5 ms.
    pub memory_bytes: u64,
    /// Length of stdout.
    pub output_bytes: u64,
    /// Space on disk, each file and directory counted as 4 KiB more. Native programs only.
    pub scratch_bytes: u64,
    /// Processes and threads. Native programs only.
    pub processes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_time: Duration::from_secs(60),
            grace: Duration::from_millis(500),
            memory_bytes: 256 << 20,
            output_bytes: 1 << 20,
            scratch_bytes: 64 << 20,
            processes: 64,
        }
    }
}

impl Call {
    /// Refuses calls that no program can be started with.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        let bad = |message: String| Err(Reason::BadCall { message });
        let variables = self.env.iter().flat_map(|(name, value)| [name, value]);
        if self.args.iter().chain(variables).any(|text| text.contains('\0')) {
            return bad("an argument or a variable contains a NUL byte".to_owned());
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return bad(format!("{name:?} is no name of a variable"));
        }
        let words = self.args.iter().map(|text| text.len() + 1);
        let variables = self.env.iter().map(|(name, value)| name.len() + value.len() + 2);
        let bytes: usize = words.chain(variables).sum();
        if bytes > MAX_ARGUMENT_BYTES {
            return bad(format!("arguments and environment take {bytes} bytes, at most {MAX_ARGUMENT_BYTES} fit"));
        }
        Ok(())
    }
}
