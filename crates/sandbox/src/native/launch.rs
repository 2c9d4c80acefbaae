//! The start of a program: a process with its streams, its bounds and its cage, up to `exec`.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{
    Pid, Signal, WaitOptions, chdir, getpid, getppid, set_parent_process_death_signal, setpgid, setpriority_process,
    waitpid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::cage::{self, Built, Filters};
use super::executable::missing_interpreter;
use super::share::niceness_of_programs;
use super::sys::{self, Spawner, Texts};
use super::wire::{STREAMS, Start, Step};
use crate::failure::is_of_machine;

/// Directories of programs for an environment without `PATH`, as the C library has them.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Starts programs, with what is the same for all of them.
#[derive(Debug)]
pub(crate) struct Launcher {
    spawner: Spawner,
    filters: Result<Filters, String>,
    memory_score: Option<MemoryScore>,
    processors: u64,
}

impl Launcher {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            spawner: Spawner::new()?,
            filters: Filters::build().map_err(|error| error.to_string()),
            memory_score: MemoryScore::open().ok(),
            // Takes a look at files of the system's, too.
            processors: std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64),
        })
    }

    /// Starts a program and returns its process, which the caller has to wait for.
    pub(crate) fn start(&mut self, start: &Start, streams: &[OwnedFd; STREAMS]) -> Result<i32, (Step, String)> {
        let at_cage = |message: String| (Step::Cage, message);
        let built = start.cage.as_ref().map(|cage| Built::new(cage, &start.scratch)).transpose().map_err(at_cage)?;
        let filters = self.filters.as_ref().map_err(|message| at_cage(message.clone()))?;
        let image = Image::new(start)?;
        let (supervisor, processors) = (getpid(), self.processors);
        let mut failure = None;
        let mut child = || {
            let prepared = connect(streams)
                .and_then(|()| Ok(chdir(&start.working_directory)?))
                .and_then(|()| prepare(start, supervisor, processors))
                .and_then(|()| built.as_ref().map_or(Ok(()), |built| built.enter(filters)));
            failure = Some(match prepared {
                Ok(()) => (true, image.execute()),
                Err(error) => (false, error),
            });
        };
        // Out of memory, the kernel ends the program rather than the worker. The new process inherits the score.
        if let Some(score) = &mut self.memory_score {
            score.write_first();
        }
        let spawned = self.spawner.spawn(&mut child);
        if let Some(score) = &mut self.memory_score {
            score.write_own();
        }
        let process = spawned.map_err(|error| (failed_step(&error, false), error.to_string()))?;
        let Some((at_exec, error)) = failure else { return Ok(process) };
        while let Err(rustix::io::Errno::INTR) = waitpid(Pid::from_raw(process), WaitOptions::empty()) {}
        Err(refusal(start, at_exec, &error))
    }
}

/// The step and the message of a program that was not started.
fn refusal(start: &Start, at_exec: bool, error: &io::Error) -> (Step, String) {
    let step = failed_step(error, at_exec);
    if step == Step::Spawn && !start.working_directory.is_dir() {
        return (step, format!("its working directory {}: {error}", start.working_directory.display()));
    }
    if step == Step::Exec && is_cut_off(error) {
        return (step, format!("its file is cut off or cannot be read: {error}"));
    }
    let is_path = |program: &&String| step == Step::Exec && is_not_found(error) && program.contains('/');
    let path = start.argv.first().filter(is_path).map(|program| start.working_directory.join(program));
    (step, path.and_then(|path| missing_interpreter(&path)).unwrap_or_else(|| error.to_string()))
}

/// The step at which a program was not started; `at_exec` tells whether all steps before `exec` were done.
fn failed_step(error: &io::Error, at_exec: bool) -> Step {
    let kind = error.kind();
    if kind == io::ErrorKind::ArgumentListTooLong {
        Step::Arguments
    } else if kind == io::ErrorKind::ExecutableFileBusy {
        Step::Busy
    } else if at_exec && (is_cut_off(error) || !is_of_machine(error)) {
        Step::Exec
    } else {
        Step::Spawn
    }
}

/// Whether an error of `exec` is that of a file that ends before a part which its header names. Anyone can upload such a file, so it
/// is not taken for a fault of the disk: its bytes have been read and hashed just before.
fn is_cut_off(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

fn is_not_found(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Makes the streams standard input, output and error of the calling process.
fn connect([stdin, stdout, stderr]: &[OwnedFd; STREAMS]) -> io::Result<()> {
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    Ok(dup2_stderr(stderr)?)
}

/// Runs in the new process.
fn prepare(start: &Start, supervisor: Pid, processors: u64) -> io::Result<()> {
    setpgid(None, None)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(supervisor) {
        return Err(io::Error::other("the supervisor is gone"));
    }
    cage::limit_resources(&start.bounds, start.cage.is_some(), processors)?;
    setpriority_process(None, niceness_of_programs())?;
    sys::close_on_exec_from(3)
}

/// A program with its arguments and its environment, as `exec` takes them.
#[derive(Debug)]
struct Image {
    /// The files that it may be, in the order in which they are tried.
    paths: Vec<CString>,
    arguments: Texts,
    environment: Texts,
}

impl Image {
    fn new(start: &Start) -> Result<Self, (Step, String)> {
        let at_arguments = |message: String| (Step::Arguments, message);
        let program = start.argv.first().ok_or_else(|| at_arguments("no command".to_owned()))?;
        let path = start.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let variables = start.env.iter().map(|(name, value)| format!("{name}={value}"));
        let texts = |texts: Vec<String>| {
            let texts: Result<Vec<_>, _> = texts.into_iter().map(CString::new).collect();
            texts.map_err(|error| at_arguments(error.to_string()))
        };
        Ok(Self {
            paths: texts(candidates(program, path))?,
            arguments: Texts::new(texts(start.argv.clone())?),
            environment: Texts::new(texts(variables.collect())?),
        })
    }

    /// Executes it as the C library's `execvp` does, in the place of the calling process, and returns the error where that fails.
    fn execute(&self) -> io::Error {
        let mut failed = io::Error::from_raw_os_error(libc::ENOENT);
        for path in &self.paths {
            let error = sys::execute(path, &self.arguments, &self.environment);
            match error.raw_os_error() {
                // A file that the kernel does not execute is a script for the shell.
                Some(libc::ENOEXEC) => {
                    let shell = [c"/bin/sh".to_owned(), path.clone()];
                    let arguments = self.arguments.as_slice().iter().skip(1).cloned();
                    let arguments = Texts::new(shell.into_iter().chain(arguments).collect());
                    return sys::execute(c"/bin/sh", &arguments, &self.environment);
                }
                // That one may not be executed counts if no other one is there.
                Some(libc::EACCES) => failed = error,
                Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT) => {
                    if is_not_found(&failed) {
                        failed = error;
                    }
                }
                _ => return error,
            }
        }
        failed
    }
}

/// The files that a command may be: a name without a slash is looked for in the directories of `path`.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let in_directory = |directory: &str| match directory {
        "" => program.to_owned(),
        directory => Path::new(directory).join(program).to_string_lossy().into_owned(),
    };
    path.split(':').map(in_directory).collect()
}

/// The score of this process, by which the kernel chooses whom to end when memory runs out.
#[derive(Debug)]
struct MemoryScore {
    file: File,
    own: String,
}

/// The score of processes that are ended first.
const FIRST_SCORE: &str = "1000";

impl MemoryScore {
    /// While this process is dumpable: later the file belongs to root. Not every container lets it be written.
    fn open() -> io::Result<Self> {
        let path = "/proc/self/oom_score_adj";
        Ok(Self { own: fs::read_to_string(path)?, file: OpenOptions::new().write(true).open(path)? })
    }

    fn write_first(&mut self) {
        let _ = self.file.write_all(FIRST_SCORE.as_bytes());
    }

    fn write_own(&mut self) {
        let _ = self.file.write_all(self.own.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_memory_or_processes_and_a_cage_that_is_not_put_on_are_no_faults_of_the_program() {
        let system = io::Error::from_raw_os_error;
        for code in [libc::ENOMEM, libc::EAGAIN, libc::EMFILE, libc::ENFILE] {
            assert_eq!(failed_step(&system(code), false), Step::Spawn, "{code}");
            assert_eq!(failed_step(&system(code), true), Step::Spawn, "{code}");
        }
        assert_eq!(failed_step(&system(libc::EIO), false), Step::Spawn);
        // The answer to a file that ends too early.
        assert_eq!(failed_step(&system(libc::EIO), true), Step::Exec);
        assert_eq!(failed_step(&io::Error::other("Landlock is not in force"), false), Step::Spawn);
        assert_eq!(failed_step(&system(libc::EINVAL), false), Step::Spawn);
        assert_eq!(failed_step(&system(libc::EINVAL), true), Step::Exec);
        assert_eq!(failed_step(&system(libc::ENOENT), true), Step::Exec);
        // The working directory of a named program.
        assert_eq!(failed_step(&system(libc::ENOENT), false), Step::Spawn);
        assert_eq!(failed_step(&system(libc::ETXTBSY), true), Step::Busy);
        assert_eq!(failed_step(&system(libc::E2BIG), true), Step::Arguments);
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_and_a_path_is_taken_as_it_is() {
        assert_eq!(candidates("ls", "/bin:/usr/bin/:"), ["/bin/ls", "/usr/bin/ls", "ls"]);
        assert_eq!(candidates("./ls", "/bin"), ["./ls"]);
        assert_eq!(candidates("", "/bin"), Vec::<String>::new());
    }
}
