//! The supervisor: a small process with one thread that runs the programs of one slot, one after the other.
//!
//! It is the parent of each program and the reaper of its orphans, so a task is over when it has no child left: no
//! `setsid` and no double fork leads away from it. It has one thread, so that a new process can run in its memory up to
//! `exec`. When the host's end of its socket closes, the host is gone: it kills all that runs, removes the scratch
//! directory and ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process_group, pidfd_open,
    set_child_subreaper, set_dumpable_behavior, setsid, wait, waitpid,
};

use super::launch::Launcher;
use super::memory_kills::MemoryKills;
use super::share::{Session, Share};
use super::sys;
use super::tree;
use super::watch::Watch;
use super::wire::{self, Bound, Ended, Exit, Reply, Request, STREAMS, Start, Step};
use crate::scratch;

/// Longest wait for a killed process to end; it is long only where the kernel waits for a device.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Processes outside the program's group that are signaled at a time.
const MOST_SIGNALED: usize = 1024;
const KILL_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Children of `clone` whose end sends no SIGCHLD are waited for, too.
const WAIT_ALL: WaitOptions = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());

/// Serves the host at the other end of `socket` until it is gone.
fn serve(socket: &UnixStream) -> io::Result<()> {
    // While its files in /proc are its own.
    let mut launcher = Launcher::new()?;
    // Descriptors of the host that are not marked for closing, such as a C library's.
    sys::close_on_exec_from(0)?;
    // All that it runs is of this session, by which the host finds it should the supervisor be killed. And what a
    // terminal sends to the host's group is the host's to handle.
    setsid()?;
    let mut session = Session::open();
    set_child_subreaper(Some(getpid()))?;
    // No process of the same user may look into this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
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
        let started = launcher.start(&start, &streams);
        // The program has copies: its streams end with it.
        drop(streams);
        match started {
            Ok(pid) => {
                memory_kills.refresh();
                let mut ended = Run::new(&start, pid, &mut session)?.run(socket)?;
                ended.out_of_memory = ended.is_killed() && memory_kills.have_grown();
                wire::send(socket, &Reply::Ended(ended), &[])?;
            }
            Err((step, message)) => wire::send(socket, &Reply::Refused { step, message }, &[])?,
        }
    }
    Ok(())
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
    fn new(start: &'a Start, main: i32, session: &'a mut Session) -> io::Result<Self> {
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
            watch: Watch::new(start, Share::new(session), now),
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
            // Its threads may be the lowest of all, and hundreds of megabytes take them a while.
            sys::release_memory(self.main_pidfd.as_fd());
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
            let _ = waitpid(Pid::from_raw(child), WAIT_ALL | WaitOptions::NOHANG);
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
