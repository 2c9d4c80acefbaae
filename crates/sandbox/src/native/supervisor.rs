//! The supervisor: a small process with one thread that runs the programs of one slot, one after the other.
//!
//! It is the parent of each program and the reaper of its orphans, so a task is over when it has no child left: no
//! `setsid` and no double fork leads away from it. It forks fast because it is small, and may allocate between `fork`
//! and `exec` because it has one thread. When the host's end of its socket closes, the host is gone: it kills all that
//! runs, removes the scratch directory and ends.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, getpriority_process, kill_process_group,
    pidfd_open, set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal, setpgid,
    setpriority_process, setsid, wait,
};

use super::cage::{self, Built, Filters};
use super::executable::missing_interpreter;
use super::memory_kills::MemoryKills;
use super::sys::{self, SingleThreaded};
use super::tree;
use super::watch::Watch;
use super::wire::{self, Bound, Ended, Exit, Reply, Request, STREAMS, Start, Step};
use crate::failure::is_of_machine;
use crate::scratch;

/// Longest wait for a killed process to end; it is long only where the kernel waits for a device.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Niceness of programs.
const NICE: i32 = 5;
/// Processes outside the program's group that are signaled at a time.
const MOST_SIGNALED: usize = 1024;
const KILL_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Children of `clone` whose end sends no SIGCHLD are waited for, too.
const WAIT_ALL: WaitOptions = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());

/// Serves the host at the other end of `socket` until it is gone.
fn serve(socket: &UnixStream) -> io::Result<()> {
    let single_threaded = SingleThreaded::check()?;
    // Descriptors of the host that are not marked for closing, such as a C library's.
    sys::close_on_exec_from(0)?;
    // All that it runs is of this session, by which the host finds it should the supervisor be killed. And what a
    // terminal sends to the host's group is the host's to handle.
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    // No process of the same user may look into this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let filters = Filters::build().map_err(|error| error.to_string());
    let mut memory_kills = MemoryKills::count();
    while let Some((request, streams)) = wire::receive::<Request>(socket)? {
        // A request to end a program that has just ended by itself.
        let Request::Start(start) = request else { continue };
        let Ok(streams) = <[OwnedFd; STREAMS]>::try_from(streams) else {
            // The kernel leaves out descriptors for which this process has no room.
            let message = "its streams did not all arrive: there are too many open files".to_owned();
            wire::send(socket, &Reply::Refused { step: Step::Spawn, message }, &[])?;
            continue;
        };
        match spawn(&start, streams, &filters, single_threaded) {
            Ok(child) => {
                let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
                memory_kills.refresh();
                let mut ended = Run::new(&start, pid)?.run(socket)?;
                ended.out_of_memory = ended.is_killed() && memory_kills.have_grown();
                wire::send(socket, &Reply::Ended(ended), &[])?;
            }
            Err((step, message)) => wire::send(socket, &Reply::Refused { step, message }, &[])?,
        }
    }
    Ok(())
}

fn spawn(
    start: &Start,
    streams: [OwnedFd; STREAMS],
    filters: &Result<Filters, String>,
    single_threaded: SingleThreaded,
) -> Result<Child, (Step, String)> {
    let at_cage = |message: String| (Step::Cage, message);
    let built = start.cage.as_ref().map(|cage| Built::new(cage, &start.scratch)).transpose().map_err(at_cage)?;
    let filters = filters.as_ref().map_err(|message| at_cage(message.clone()))?;
    let filters = Filters::clone(filters);
    let (program, arguments) = start.argv.split_first().ok_or((Step::Arguments, "no command".to_owned()))?;
    let [stdin, stdout, stderr] = streams.map(Stdio::from);
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&start.env).current_dir(&start.working_directory);
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let (bounds, supervisor) = (start.bounds, getpid());
    // Which step a failure is of is told by whether the last one before `exec` was reached.
    let (mut reached, mark) = io::pipe().map_err(|error| (Step::Spawn, error.to_string()))?;
    let mut entered = Some((built, mark));
    single_threaded.before_exec(&mut command, move || {
        let (built, mark) = entered.take().ok_or_else(|| io::Error::other("entered twice"))?;
        prepare(supervisor, &bounds, built, &filters)?;
        io::Write::write_all(&mut &mark, b"x")
    });
    let spawned = command.spawn();
    drop(command);
    spawned.map_err(|error| {
        let at_exec = io::Read::read(&mut reached, &mut [0]).is_ok_and(|got| got == 1);
        let step = failed_step(&error, at_exec);
        if step == Step::Spawn && !start.working_directory.is_dir() {
            return (step, format!("its working directory {}: {error}", start.working_directory.display()));
        }
        if step == Step::Exec && is_cut_off(&error) {
            return (step, format!("its file is cut off or cannot be read: {error}"));
        }
        let is_path = step == Step::Exec && error.kind() == io::ErrorKind::NotFound && program.contains('/');
        let missing = is_path.then(|| missing_interpreter(&start.working_directory.join(program))).flatten();
        (step, missing.unwrap_or_else(|| error.to_string()))
    })
}

/// The step at which a program was not started; `at_exec` tells whether all steps before `exec` were done.
fn failed_step(error: &io::Error, at_exec: bool) -> Step {
    let kind = error.kind();
    // A NUL byte is found before the fork. An error with this kind and a number is of the system, or of a step that has none
    // and is passed on as EINVAL.
    let has_nul = kind == io::ErrorKind::InvalidInput && error.raw_os_error().is_none();
    if has_nul || kind == io::ErrorKind::ArgumentListTooLong {
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

/// Runs in the new process, before `exec`.
fn prepare(supervisor: Pid, bounds: &wire::Bounds, built: Option<Built>, filters: &Filters) -> io::Result<()> {
    setpgid(None, None)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(supervisor) {
        return Err(io::Error::other("the supervisor is gone"));
    }
    cage::limit_resources(bounds, built.is_some())?;
    // Below the watch and the worker's own threads: among a thousand processes of a fork bomb the watch would else wait
    // for each one's turn.
    setpriority_process(None, getpriority_process(None)?.saturating_add(NICE))?;
    // `exec` sets it so anyway; until then the files of this process in /proc belong to root.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    // Out of memory, the kernel ends the program rather than the worker. Not every container lets it be said.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    sys::close_on_exec_from(3)?;
    built.map_or(Ok(()), |built| built.enter(filters))
}

/// A program that runs.
struct Run<'a> {
    start: &'a Start,
    main: i32,
    main_pidfd: OwnedFd,
    /// The exit of the main process, once it has ended.
    exit: Option<Exit>,
    bound: Option<Bound>,
    /// Time of the SIGKILL that follows a SIGTERM.
    kill_at: Option<Instant>,
    end_at: Instant,
    cpu_before: Duration,
    watch: Watch<'a>,
}

impl<'a> Run<'a> {
    fn new(start: &'a Start, main: i32) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            start,
            main,
            main_pidfd: pidfd_open(pid(main)?, PidfdFlags::empty())?,
            exit: None,
            bound: None,
            kill_at: None,
            end_at: now + Duration::from_millis(start.bounds.wall_ms),
            cpu_before: sys::cpu_time_of_reaped_descendants(),
            watch: Watch::new(start, now),
        })
    }

    /// Watches until the main process ends or has to, and then ends all that it started.
    fn run(mut self, socket: &UnixStream) -> io::Result<Ended> {
        loop {
            let now = Instant::now();
            // A program that was told to end has its grace, whatever its time limit was.
            let wake_at = self.watch.next_look().min(self.kill_at.unwrap_or(self.end_at));
            let (asked, ended) = wait_for(socket, &self.main_pidfd, wake_at.saturating_duration_since(now))?;
            if asked {
                self.obey(socket)?;
            }
            let now = Instant::now();
            if self.kill_at.is_none() && now >= self.end_at {
                self.bound.get_or_insert(Bound::Time);
                self.terminate(now);
            }
            if ended || self.kill_at.is_some_and(|at| now >= at) {
                break;
            }
            if now >= self.watch.next_look() {
                self.reap_orphans();
            }
            if let Some(bound) = self.watch.look(now, self.start.cage.is_some()) {
                self.bound.get_or_insert(bound);
                break;
            }
        }
        let left = self.end_all();
        // A short program may have ended between two looks.
        self.bound = self.bound.or_else(|| self.watch.disk_bound());
        let cpu = sys::cpu_time_of_reaped_descendants().saturating_sub(self.cpu_before);
        Ok(Ended {
            exit: self.exit.unwrap_or(Exit::Signal(libc::SIGKILL)),
            bound: self.bound,
            cpu_micros: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
            peak_memory_bytes: self.watch.peak_memory_bytes(),
            out_of_memory: false,
            left,
        })
    }

    fn obey(&mut self, socket: &UnixStream) -> io::Result<()> {
        match wire::receive::<Request>(socket) {
            Ok(Some((Request::Terminate, _))) => self.terminate(Instant::now()),
            Ok(Some((Request::Kill, _))) => self.kill_at = Some(Instant::now()),
            Ok(Some((Request::Start(_), _))) => {}
            Ok(None) | Err(_) => {
                self.end_all();
                let _ = scratch::remove(&self.start.scratch);
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the host is gone"));
            }
        }
        Ok(())
    }

    fn terminate(&mut self, now: Instant) {
        if self.kill_at.is_none() {
            self.kill_at = Some(now + Duration::from_millis(self.start.bounds.grace_ms));
            self.signal_all(Signal::TERM);
        }
    }

    /// Signals all processes once each; true when none can have been missed.
    fn signal_all(&self, signal: Signal) -> bool {
        // The group first: the kernel lets no member fork past a signal to all of them. Its number is its own until its
        // leader is reaped.
        let group = if self.exit.is_none() { pid(self.main).ok() } else { None };
        let is_group_signaled = group.is_some_and(|group| kill_process_group(group, signal).is_ok());
        // The filter has no call that leaves the group, and to look at each process of a fork bomb takes longer than to
        // end it.
        if is_group_signaled && self.start.cage.is_some() {
            return true;
        }
        let own = getpid().as_raw_pid();
        for process in tree::descendants(own, MOST_SIGNALED) {
            // To some programs a second SIGTERM says to end at once.
            if !(is_group_signaled && tree::is_in_group(process, self.main)) {
                tree::signal_descendant(own, process, signal);
            }
        }
        false
    }

    /// Kills until no child is left, and returns the number of those that did not end.
    fn end_all(&mut self) -> u32 {
        let give_up_at = Instant::now() + KILL_PATIENCE;
        let mut are_killed = false;
        loop {
            are_killed = are_killed || self.signal_all(Signal::KILL);
            if self.reap() {
                return 0;
            }
            if Instant::now() >= give_up_at {
                let left = tree::descendants(getpid().as_raw_pid(), MOST_SIGNALED).len();
                return u32::try_from(left).unwrap_or(u32::MAX);
            }
            let _ = poll(&mut [], Some(&KILL_PAUSE));
        }
    }

    /// Reaps the orphans that have ended, which nobody else does: they would count as processes. The number of the main
    /// process is that of its group, so it is reaped at the end.
    fn reap_orphans(&self) {
        let own = getpid().as_raw_pid();
        for child in tree::children(own, own).into_iter().filter(|child| *child != self.main) {
            let _ = rustix::process::waitpid(Pid::from_raw(child), WAIT_ALL | WaitOptions::NOHANG);
        }
    }

    /// Reaps ended children; true when none is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WAIT_ALL | WaitOptions::NOHANG) {
                Ok(Some((process, status))) if process.as_raw_pid() == self.main => {
                    self.exit = Some(exit_of(status.as_raw()));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }
}

fn pid(raw: i32) -> io::Result<Pid> {
    Pid::from_raw(raw).ok_or_else(|| io::Error::other("zero is no process"))
}

fn exit_of(status: i32) -> Exit {
    let status = std::process::ExitStatus::from_raw(status);
    status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or(libc::SIGKILL)), Exit::Code)
}

/// Whether the host has something to say, and whether the main process has ended.
fn wait_for(socket: &UnixStream, main: &OwnedFd, timeout: Duration) -> io::Result<(bool, bool)> {
    let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN), PollFd::new(main, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
        Err(error) => Err(error.into()),
    }
}

/// Serves on standard input, which the host has connected; returns the process's exit code.
pub(crate) fn main() -> i32 {
    // A copy of the socket stays open as standard input, and closes with the process.
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let served = socket.and_then(|socket| serve(&UnixStream::from(socket)));
    i32::from(served.is_err())
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
        // A hook's error that has no number arrives as this one.
        assert_eq!(failed_step(&system(libc::EINVAL), false), Step::Spawn);
        assert_eq!(failed_step(&system(libc::EINVAL), true), Step::Exec);
        assert_eq!(failed_step(&system(libc::ENOENT), true), Step::Exec);
        // The working directory of a named program.
        assert_eq!(failed_step(&system(libc::ENOENT), false), Step::Spawn);
        assert_eq!(failed_step(&system(libc::ETXTBSY), true), Step::Busy);
        assert_eq!(failed_step(&system(libc::E2BIG), true), Step::Arguments);
        let nul = Command::new("a\0b").spawn().expect_err("no name of a file");
        assert_eq!(failed_step(&nul, false), Step::Arguments);
    }
}
