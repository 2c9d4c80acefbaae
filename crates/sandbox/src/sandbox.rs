//! The way in: one [`Sandbox`] a process, shared by the threads of its slots.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::capabilities::Capabilities;
use crate::failure::{FailedCall, Finished, Reason, Usage};
use crate::hash::ProgramHash;
use crate::native::{Executables, Job, Ran, Supervisors};
use crate::program::{Call, LocalProgram, NamedCommand};
use crate::scratch::{Scratch, ScratchRoot, private_directory};

/// The settings of a sandbox.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of scratch directories and compiled modules. It is made with mode 0700; a directory that other users can
    /// enter is refused. Several processes may share it.
    pub directory: PathBuf,
    /// The binary that supervisors and compilers are started from, which has to call [`crate::run_child_if_asked`]
    /// first. `/proc/self/exe`, the host itself, unless told otherwise.
    pub helper: PathBuf,
    /// Tasks that run at the same time, about: as many supervisors are kept warm.
    pub slots: usize,
    /// Whether uploaded executables are run at all.
    pub allow_native: bool,
    /// Trees and files that caged programs may read and execute from: libraries and interpreters. Nothing secret.
    pub readable: Vec<PathBuf>,
    /// The limits of compiling a module.
    pub compile: CompileLimits,
    /// Compiled modules on disk; the least recently used go first.
    pub cache_bytes: u64,
    /// Works as if the kernel's Landlock were no newer than this, for tests of what older kernels lack.
    #[doc(hidden)]
    pub newest_landlock_abi: u32,
}

/// The limits of compiling one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Length of the module.
    pub module_bytes: u64,
    /// Largest length of its compiled form.
    pub compiled_bytes: u64,
    /// Time on the clock.
    pub wall_time: Duration,
    /// Memory of the compiler.
    pub memory_bytes: u64,
}

impl Config {
    /// A sandbox in `directory` for `slots` tasks at a time, without native programs.
    pub fn new(directory: impl Into<PathBuf>, slots: usize) -> Self {
        Self {
            directory: directory.into(),
            helper: PathBuf::from("/proc/self/exe"),
            slots,
            allow_native: false,
            readable: READABLE.iter().map(PathBuf::from).collect(),
            compile: CompileLimits::default(),
            cache_bytes: 512 << 20,
            newest_landlock_abi: u32::MAX,
        }
    }
}

/// Libraries, interpreters and the files that the dynamic linker and the C library read.
const READABLE: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/alternatives",
];

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            module_bytes: 64 << 20,
            compiled_bytes: 256 << 20,
            wall_time: Duration::from_secs(60),
            memory_bytes: 1 << 30,
        }
    }
}

/// The reason why a sandbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("use {} for the sandbox", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The engine for WASI programs does not start.
    #[error("start the WebAssembly engine: {message}")]
    Engine {
        /// The engine's error.
        message: String,
    },
}

/// Runs programs, each call on the thread of its caller.
#[derive(Debug)]
pub struct Sandbox {
    config: Config,
    capabilities: Capabilities,
    scratch: ScratchRoot,
    supervisors: Supervisors,
    executables: Executables,
    #[cfg(feature = "wasm")]
    wasm: crate::wasm::Runner,
}

impl Sandbox {
    /// Opens the directory, and removes the remains of killed processes in it.
    ///
    /// # Errors
    /// The directory cannot be used, or the engine for WASI programs does not start.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let path = config.directory.clone();
        let at = |source| OpenError::Directory { path, source };
        let scratch = private_directory(&config.directory)
            .and_then(|()| ScratchRoot::open(&config.directory.join("scratch")))
            .map_err(at)?;
        let mut capabilities = Capabilities::probe(&config.directory);
        capabilities.landlock_abi = capabilities.landlock_abi.min(config.newest_landlock_abi);
        Ok(Self {
            #[cfg(feature = "wasm")]
            wasm: crate::wasm::Runner::open(&config)?,
            supervisors: Supervisors::new(config.helper.clone(), config.slots),
            executables: Executables::default(),
            scratch,
            capabilities,
            config,
        })
    }

    /// The abilities that the kernel gives the sandbox.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Makes [`Config::directory`] again if it was removed, as cleaners of temporary files do. What belongs below it is made again
    /// when it is needed.
    ///
    /// # Errors
    /// The directory cannot be made, or other users can enter the one that is there.
    pub fn restore_directory(&self) -> io::Result<()> {
        private_directory(&self.config.directory)
    }

    /// Does what needs to be done once for a program, so that it is no part of a task's time: compiles a module, hashes
    /// an executable. [`Self::run`] does the same when it was not done.
    ///
    /// # Errors
    /// The errors of [`Self::run`] that are known without a run.
    pub fn prepare(&self, program: &LocalProgram, stop: &AtomicBool) -> Result<(), Box<FailedCall>> {
        match program {
            #[cfg(feature = "wasm")]
            LocalProgram::Wasm { sha256, source } => {
                self.wasm.load(*sha256, source, &|job| self.compile(job, stop), stop)?;
            }
            #[cfg(not(feature = "wasm"))]
            LocalProgram::Wasm { .. } => {
                let _ = stop;
                return Err(no_wasm().into());
            }
            LocalProgram::Native { sha256, path } => self.admit_native(path, *sha256)?,
            LocalProgram::Named(_) => self.admit_named()?,
        }
        Ok(())
    }

    /// Runs a program to its end and returns what it wrote to stdout: in memory, or in a file where the call says so.
    ///
    /// Blocks the calling thread, which must not be one that drives asynchronous tasks. When `stop` becomes true the
    /// program is ended within its grace and 20 ms. `on_stderr` gets what is written to stderr as it comes, all of it,
    /// in chunks of at most 64 KiB; it must not block for long, since the program's other streams wait meanwhile.
    /// A flood of processes or output is told up to a second after its end, so that its repetition slows nobody.
    /// After the return no process, descriptor or file of the program is left but the returned file.
    ///
    /// # Errors
    /// There is no result; [`FailedCall::reason`] tells why and [`Reason::blame`] where the cause lies.
    pub fn run(
        &self,
        program: &LocalProgram,
        call: &Call,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Finished, Box<FailedCall>> {
        call.check()?;
        match program {
            #[cfg(feature = "wasm")]
            LocalProgram::Wasm { sha256, source } => {
                let loaded = self.wasm.load(*sha256, source, &|job| self.compile(job, stop), stop)?;
                self.wasm.run(&loaded, call, stop, on_stderr)
            }
            #[cfg(not(feature = "wasm"))]
            LocalProgram::Wasm { .. } => Err(no_wasm().into()),
            LocalProgram::Native { sha256, path } => {
                self.admit_native(path, *sha256)?;
                self.run_native(path, call, stop, on_stderr)
            }
            LocalProgram::Named(command) => {
                self.admit_named()?;
                self.run_named(command, call, stop, on_stderr)
            }
        }
    }

    fn admit_native(&self, path: &Path, sha256: ProgramHash) -> Result<(), Reason> {
        if !self.config.allow_native {
            return Err(Reason::Unsupported { missing: "native programs are not allowed here".to_owned() });
        }
        refuse_if(&self.capabilities.missing_for_native())?;
        self.executables.verify(path, sha256)
    }

    fn admit_named(&self) -> Result<(), Reason> {
        refuse_if(&self.capabilities.missing_for_named())
    }

    fn run_native(
        &self,
        path: &Path,
        call: &Call,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Finished, Box<FailedCall>> {
        let scratch = self.scratch()?;
        let path = path.canonicalize().map_err(|error| Reason::sandbox("find the executable", error))?;
        let argv = vec![utf8(&path)?];
        let job = self.job(argv, &BTreeMap::new(), call, &scratch, scratch.path())?;
        let cage = Some(self.cage(path));
        conclude(self.supervisors.run(&Job { cage, ..job }, stop, on_stderr)?, call)
            .map_err(|failure| excuse_on_full_disk(failure, &scratch))
    }

    fn run_named(
        &self,
        command: &NamedCommand,
        call: &Call,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Finished, Box<FailedCall>> {
        let scratch = self.scratch()?;
        let working_directory = command.working_directory.as_deref().unwrap_or(scratch.path());
        let job = self.job(command.argv.clone(), &command.env, call, &scratch, working_directory)?;
        conclude(self.supervisors.run(&job, stop, on_stderr)?, call)
            .map_err(|failure| excuse_on_full_disk(failure, &scratch))
    }

    fn job<'a>(
        &self,
        mut argv: Vec<String>,
        env: &BTreeMap<String, String>,
        call: &'a Call,
        scratch: &'a Scratch,
        working_directory: &'a Path,
    ) -> Result<Job<'a>, Reason> {
        if call.reproducible {
            return Err(Reason::BadCall { message: "only WASI programs run reproducibly".to_owned() });
        }
        argv.extend(call.args.iter().cloned());
        let mut all = BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("HOME".to_owned(), utf8(scratch.path())?),
            ("TMPDIR".to_owned(), utf8(scratch.path())?),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        all.extend(env.iter().chain(&call.env).map(|(name, value)| (name.clone(), value.clone())));
        Ok(Job {
            argv,
            env: all,
            working_directory,
            scratch: scratch.path(),
            cage: None,
            limits: &call.limits,
            stdin: &call.stdin,
            spool: call.spool.as_ref(),
        })
    }

    fn cage(&self, executable: PathBuf) -> (u32, Vec<PathBuf>) {
        let mut readable = self.config.readable.clone();
        readable.push(executable);
        (self.capabilities.landlock_abi, readable)
    }

    fn scratch(&self) -> Result<Scratch, Reason> {
        let made = match self.scratch.create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.restore_directory().and_then(|()| self.scratch.restore()).and_then(|()| self.scratch.create())
            }
            made => made,
        };
        made.map_err(|error| Reason::sandbox("make a scratch directory", error))
    }

    /// Runs the host's own binary as a compiler, in the cage where there is one.
    #[cfg(feature = "wasm")]
    fn compile(&self, call: &Call, stop: &AtomicBool) -> Result<Finished, Box<FailedCall>> {
        let scratch = self.scratch()?;
        let helper = self.config.helper.clone();
        let argv = vec![utf8(&helper)?];
        let job = self.job(argv, &BTreeMap::new(), call, &scratch, scratch.path())?;
        let cage = self.capabilities.missing_for_cage().is_empty().then(|| self.cage(helper));
        conclude(self.supervisors.run(&Job { cage, ..job }, stop, &mut |_| {})?, call)
    }
}

#[cfg(not(feature = "wasm"))]
fn no_wasm() -> Reason {
    Reason::Unsupported { missing: "it was built without WASI programs".to_owned() }
}

fn refuse_if(missing: &[crate::Missing]) -> Result<(), Reason> {
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    Err(Reason::Unsupported { missing: format!("the kernel or the container lacks {}", missing.join(", ")) })
}

fn utf8(path: &Path) -> Result<String, Reason> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Reason::sandbox("use a path", format!("{} is not UTF-8", path.display())))
}

/// The outcome of a native run. The first bound that was met counts, even if the program exited with 0.
fn conclude(ran: Ran, call: &Call) -> Result<Finished, Box<FailedCall>> {
    let reason = ran.reason(&call.limits);
    let usage = Usage {
        wall_time: ran.wall_time,
        cpu_time: Duration::from_micros(ran.ended.cpu_micros),
        peak_memory_bytes: ran.ended.peak_memory_bytes,
    };
    let stderr_tail = ran.stderr.into_bytes();
    match reason {
        None => {
            let (stdout, stdout_file) = ran.stdout.into_parts();
            Ok(Finished { stdout, stdout_file, stderr_tail, usage })
        }
        Some(reason) => Err(Box::new(FailedCall { reason, stderr_tail, usage })),
    }
}

/// Blames a program's own failure on this worker where the disk of its scratch directory is full: the program did not get the space
/// that it may take.
fn excuse_on_full_disk(mut failure: Box<FailedCall>, scratch: &Scratch) -> Box<FailedCall> {
    let is_own = matches!(failure.reason, Reason::Exit { .. } | Reason::Signal { .. });
    if is_own && scratch.is_on_full_disk() {
        let ended = format!("the disk of its scratch directory is full, and {}", failure.reason);
        failure.reason = Reason::sandbox("give the program disk space", ended);
    }
    failure
}
