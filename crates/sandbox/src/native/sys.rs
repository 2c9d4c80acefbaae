//! The system calls that have no safe wrapper in the libraries used here, and the hook between `fork` and `exec`.
//!
//! This module and `wasm/load.rs` are the only ones with `unsafe` code. Each function states why its call is sound.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; every block states its contract")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
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

/// Shows that this process had one thread, and no code in it starts another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads. What follows must not start one.
    pub(crate) fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            _ => Err(io::Error::other("the host has started threads before it asked whether it is a child")),
        }
    }

    /// Has `hook` run in the new process between `fork` and `exec`, where it may allocate and take locks.
    pub(crate) fn before_exec(
        self,
        command: &mut Command,
        hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) {
        // SAFETY: no other thread exists at the fork, so none that vanishes with it holds a lock of the allocator or of
        // the standard library.
        unsafe { command.pre_exec(hook) };
    }
}
