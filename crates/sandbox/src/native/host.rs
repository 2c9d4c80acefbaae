//! The host's side of a native task: supervisors that are kept warm, and one program's run on one of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::orphans;
use super::streams::{Ran, Streams};
use super::wire::{self, Bounds, Cage, Reply, Request, Start, Step};
use crate::entry::SUPERVISE;
use crate::failure::{Reason, is_of_machine};
use crate::output::Spool;
use crate::program::{Input, Limits};

/// Supervisors without work. Each is a process of a few hundred kilobytes.
#[derive(Debug)]
pub(crate) struct Supervisors {
    helper: PathBuf,
    most_idle: usize,
    idle: Mutex<Vec<Supervisor>>,
}

/// A supervisor process; when this is dropped it ends, with all that it runs.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: UnixStream,
    process: Child,
}

/// A program to run natively.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_directory: &'a Path,
    pub(crate) scratch: &'a Path,
    /// Landlock's version and the paths that a caged program may read; `None` without a cage.
    pub(crate) cage: Option<(u32, Vec<PathBuf>)>,
    pub(crate) limits: &'a Limits,
    pub(crate) stdin: &'a Input,
    pub(crate) spool: Option<&'a Spool>,
}

impl Supervisors {
    /// Starts supervisors as `helper`, which has to call [`crate::run_child_if_asked`], and keeps `most_idle` of them.
    pub(crate) fn new(helper: PathBuf, most_idle: usize) -> Self {
        Self { helper, most_idle, idle: Mutex::new(Vec::new()) }
    }

    /// Runs a program to its end.
    pub(crate) fn run(
        &self,
        job: &Job<'_>,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Ran, Reason> {
        // A file that was just written is busy while any child that the host has forked meanwhile still has it open.
        for _ in 0..BUSY_TRIES {
            if let Some(ran) = self.run_once(job, stop, on_stderr)? {
                rest(ran.rest(), stop);
                return Ok(ran);
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        Err(Reason::sandbox("start the program", "another process has its file open for writing"))
    }

    fn run_once(
        &self,
        job: &Job<'_>,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Ran>, Reason> {
        let stdin = open_input(job.stdin)?;
        let supervisor = self.take()?;
        let (streams, theirs) =
            Streams::open(stdin, job.limits, job.spool).map_err(|error| Reason::sandbox("open pipes", error))?;
        let sent = wire::send(&supervisor.socket, &start_of(job), &theirs.each_ref().map(AsFd::as_fd));
        drop(theirs);
        sent.map_err(|error| Reason::sandbox("send the task to its supervisor", error))?;
        let ran = streams.run(&supervisor.socket, stop, on_stderr);
        match &ran {
            Err(Reason::Sandbox { .. }) => supervisor.kill(job.scratch),
            Ok(Some(ran)) if ran.ended.left > 0 => supervisor.kill(job.scratch),
            Ok(_) | Err(_) => self.put_back(supervisor),
        }
        ran
    }

    fn take(&self) -> Result<Supervisor, Reason> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(supervisor) if supervisor.is_alive() => Ok(supervisor),
            _ => Supervisor::start(&self.helper).map_err(|error| Reason::sandbox("start a supervisor", error)),
        }
    }

    fn put_back(&self, supervisor: Supervisor) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle {
            idle.push(supervisor);
        }
    }
}

impl Supervisor {
    fn start(helper: &Path) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let process = Command::new(helper)
            .arg0("sandbox-supervisor")
            .arg(SUPERVISE)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket, process })
    }

    /// An idle supervisor sends nothing, so its socket is readable only when it is gone.
    fn is_alive(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&at_once)) == Ok(0)
    }
}

impl Supervisor {
    /// Ends a supervisor that is gone or does not answer, and all that it leaves.
    fn kill(mut self, scratch: &Path) {
        let _ = self.process.kill();
        // Its number is not given to another session before it is waited for.
        orphans::kill_left(i32::try_from(self.process.id()).unwrap_or(i32::MAX), scratch);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// Waits, unless the program is to stop.
fn rest(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(REST_TICK));
    }
}

fn start_of(job: &Job<'_>) -> Request {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let cage = job.cage.as_ref();
    Request::Start(Box::new(Start {
        argv: job.argv.clone(),
        env: job.env.clone(),
        working_directory: job.working_directory.to_owned(),
        scratch: job.scratch.to_owned(),
        cage: cage.map(|(landlock_abi, readable)| Cage { landlock_abi: *landlock_abi, readable: readable.clone() }),
        bounds: Bounds {
            wall_ms: millis(job.limits.wall_time).min(MOST_MILLIS),
            grace_ms: millis(job.limits.grace).min(MOST_MILLIS),
            memory_bytes: job.limits.memory_bytes,
            scratch_bytes: job.limits.scratch_bytes,
            processes: job.limits.processes,
        },
    }))
}

/// An executable is busy for as long as a fork takes to its `exec`.
const BUSY_TRIES: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Longest time until a stop ends a rest.
const REST_TICK: Duration = Duration::from_millis(20);
/// A hundred years: a time that can be added to the clock.
const MOST_MILLIS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// Standard input as a descriptor, or as bytes to write to a pipe.
pub(super) enum Stdin {
    File(File),
    Bytes(bytes::Bytes),
}

fn open_input(input: &Input) -> Result<Stdin, Reason> {
    let open = |path: &Path| {
        let opened = File::open(path).and_then(|file| {
            // A directory or a device would be something else than a program's input.
            if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
        });
        opened.map_err(|error| {
            if is_of_machine(&error) {
                return Reason::sandbox("open its input", error);
            }
            Reason::BadCall { message: format!("open its input {}: {error}", path.display()) }
        })
    };
    match input {
        Input::Empty => {
            File::open("/dev/null").map(Stdin::File).map_err(|error| Reason::sandbox("open /dev/null", error))
        }
        Input::Bytes(bytes) => Ok(Stdin::Bytes(bytes.clone())),
        Input::File(path) => open(path).map(Stdin::File),
    }
}

/// The reason for a program that failed to start at `step`.
pub(super) fn reason_of(step: Step, message: String) -> Reason {
    match step {
        Step::Cage => Reason::Unsupported { missing: message },
        Step::Spawn => Reason::sandbox("start the program", message),
        Step::Exec | Step::Busy => Reason::NotExecutable { message },
        Step::Arguments => Reason::BadCall { message },
    }
}

/// The answer of a supervisor, or its death.
pub(super) fn reply(socket: &UnixStream) -> Result<Reply, Reason> {
    match wire::receive::<Reply>(socket) {
        Ok(Some((reply, _))) => Ok(reply),
        Ok(None) => Err(Reason::sandbox("watch the program", "its supervisor is gone")),
        Err(error) => Err(Reason::sandbox("hear from the supervisor", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_does_not_rest_for_a_job_that_is_stopped() {
        rest(Duration::from_hours(1), &AtomicBool::new(true));
    }
}
