//! The system calls that have no safe wrapper in the libraries used here, and the start of a process.
//!
//! This module and `wasm/load.rs` are the only ones with `unsafe` code. Each function states why its call is sound.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; every block states its contract")]

use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;

/// Marks every descriptor from `first` on as closed by `exec`. Needs Linux 5.11.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes plain integers and changes a flag of descriptors, never memory.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time of all descendants that this process or their own parents have waited for.
pub(crate) fn cpu_time_of_reaped_descendants() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live `rusage`; all zeros is a valid value of it, should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

/// The version of Landlock's interface, 0 where the kernel has none or has it turned off.
pub(crate) fn landlock_abi() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with the version flag the call takes no attributes: a null pointer and a size of zero.
    let answer =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION) };
    u32::try_from(answer).unwrap_or(0)
}

/// Whether the kernel can refuse system calls with an error by a filter.
pub(crate) fn has_seccomp_filters() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the pointer is to a live `u32`, which the kernel only reads.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, std::ptr::from_ref(&action)) };
    answer == 0
}

/// Has a thread run only where no other one wants the processor.
pub(crate) fn schedule_as_idle(thread: rustix::process::Pid) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value, which the kernel only reads.
    let answer = unsafe { libc::sched_setscheduler(thread.as_raw_pid(), libc::SCHED_IDLE, &raw const parameters) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts processes from one that has a single thread.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// The stack of a new process until it executes its program.
    stack: Vec<u128>,
}

/// More than enough for what runs between the start of a process and `exec`.
const STACK_WORDS: usize = (1 << 20) / size_of::<u128>();

impl Spawner {
    /// Counts the threads. What follows must not start one.
    pub(crate) fn new() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self { stack: vec![0; STACK_WORDS] }),
            _ => Err(io::Error::other("the host has started threads before it asked whether it is a child")),
        }
    }

    /// Has a new process run `child`, which ends with [`execute`], and returns its number once it has executed a program or
    /// ended.
    ///
    /// As after `vfork`, the new process runs in the memory of this one, which waits meanwhile: a copy of it, page by page,
    /// would take longer than all that `child` does. So `child` may allocate and may tell of a failure in a variable, but must not
    /// close a descriptor that it has not opened: its descriptors are a copy, whose originals would stay open.
    pub(crate) fn spawn(&mut self, mut child: &mut dyn FnMut()) -> io::Result<i32> {
        extern "C" fn enter(child: *mut libc::c_void) -> libc::c_int {
            // SAFETY: the pointer is to the variable `child` of `spawn`, which waits and does not touch it.
            let child = unsafe { &mut *child.cast::<&mut dyn FnMut()>() };
            child();
            1
        }
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = self.stack.as_mut_ptr_range().end;
        let child = (&raw mut child).cast();
        let mut masks = [std::mem::MaybeUninit::<libc::sigset_t>::zeroed(); 2];
        let [all, before] = masks.each_mut().map(std::mem::MaybeUninit::as_mut_ptr);
        // SAFETY: the sets are live. The new process has a stack of its own, aligned as the architectures ask for. No other
        // thread runs, and this one goes on only after the new process has left the memory. Its calls return before that and free what they
        // allocate, so the allocator and the standard library see calls in turn. No handler of a signal runs on both sides: all
        // are blocked. A panic of `child` ends it.
        unsafe {
            libc::sigfillset(all);
            libc::sigprocmask(libc::SIG_SETMASK, all, before);
            let process = libc::clone(enter, top.cast(), flags, child);
            let error = io::Error::last_os_error();
            libc::sigprocmask(libc::SIG_SETMASK, before, std::ptr::null_mut());
            if process < 0 { Err(error) } else { Ok(process) }
        }
    }
}

/// Texts as system calls take them.
#[derive(Debug)]
pub(crate) struct Texts {
    texts: Vec<CString>,
    /// Pointers to them, and a null pointer.
    pointers: Vec<*const libc::c_char>,
}

impl Texts {
    pub(crate) fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { texts, pointers }
    }

    pub(crate) fn as_slice(&self) -> &[CString] {
        &self.texts
    }
}

/// Executes a program in the place of the calling process, with the signals of a fresh one, and returns the error where that
/// fails.
pub(crate) fn execute(path: &CStr, arguments: &Texts, environment: &Texts) -> io::Error {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is live; path and lists end with a null and live until the call returns or the program is another.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        // Rust's runtime ignores it.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr());
    }
    io::Error::last_os_error()
}
