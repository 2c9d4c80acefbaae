//! The filter of system calls: it lists what is allowed at all, looks at arguments, and refuses extended attributes and data
//! that is not copied.
//!
//! A call that is not listed fails with ENOSYS, as on an older kernel, so that C libraries fall back to what is. The list
//! is short on purpose: what a later kernel adds is refused, and so are sockets, `io_uring`, `ptrace`, namespaces,
//! mounts, keys, BPF, and changes of modes, owners and times, which Landlock does not restrict.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::search::{self, Verdict};

/// The means by which signals are kept inside the cage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signals {
    /// Landlock refuses those to processes outside.
    Scoped,
    /// The kernel's Landlock cannot: a process may signal itself and its group only.
    OwnOnly,
}

/// Namespaces, and another parent than one's own.
const REFUSED_CLONE_FLAGS: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_PARENT,
];
const CLONE_FILES: u64 = 0x400;
const CLONE_THREAD: u64 = 0x1_0000;
const MAP_SHARED: u64 = 1;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_HUGETLB: u64 = 0x4_0000;
const CLOSE_RANGE_UNSHARE: u64 = 2;
/// Requests that ask about a descriptor or concern the program's own alone, and those that share the blocks of files.
/// Others change flags of a file that may only be read, or the process that a descriptor's signals go to.
#[rustfmt::skip]
const ALLOWED_IOCTLS: [u64; 14] = [
    0x5401, 0x802c_542a, 0x540f, 0x5411, 0x5413, // TCGETS, TCGETS2, TIOCGPGRP, TIOCOUTQ, TIOCGWINSZ
    0x541b, 0x5421, 0x5450, 0x5451, 0x2,         // FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FIGETBSZ
    0x8008_6601, 0xc020_660b,                    // FS_IOC_GETFLAGS, FS_IOC_FIEMAP
    0x4004_9409, 0x4020_940d,                    // FICLONE, FICLONERANGE
];
/// Options of `prctl` that ask, or concern the process's own names, signals, rights and registers. Of the others some hide the
/// process, and some have the kernel take memory for it that nothing shows, such as a table of futexes of any size.
#[rustfmt::skip]
const ALLOWED_PRCTLS: [u64; 43] = [
    1, 2, 3, 7, 8,       // PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS
    13, 15, 16, 19,      // PR_GET_TIMING, PR_SET_NAME, PR_GET_NAME, PR_GET_ENDIAN
    21, 22, 23, 25, 26,  // PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_GET_TSC, PR_SET_TSC
    27, 29, 30,          // PR_GET_SECUREBITS, PR_SET_TIMERSLACK, PR_GET_TIMERSLACK
    36, 37, 38, 39, 40,  // PR_*_CHILD_SUBREAPER, PR_*_NO_NEW_PRIVS, PR_GET_TID_ADDRESS
    41, 42, 47, 65, 66,  // PR_*_THP_DISABLE, PR_CAP_AMBIENT, PR_*_MDWE
    50, 51, 63, 64, 52,  // PR_SVE_*_VL, PR_SME_*_VL, PR_GET_SPECULATION_CTRL
    54, 55, 56, 60, 61,  // PR_PAC_RESET_KEYS, PR_*_TAGGED_ADDR_CTRL, PR_PAC_*_ENABLED_KEYS
    74, 75, 76,          // PR_GET_SHADOW_STACK_STATUS, PR_SET_SHADOW_STACK_STATUS, PR_LOCK_SHADOW_STACK_STATUS
    0x4155_5856, 0x5356_4d41, 0x5961_6d61, // PR_GET_AUXV, PR_SET_VMA, PR_SET_PTRACER
];
/// The commands of `fcntl` by which signals go to another process, and two more: the memory of pipes counts against a
/// bound of the whole user (`F_SETPIPE_SZ`), and a lease keeps others from opening a file, also one of the system where
/// the user is root.
const REFUSED_FCNTLS: [i32; 5] = [libc::F_SETOWN, F_SETOWN_EX, F_SETSIG, libc::F_SETPIPE_SZ, libc::F_SETLEASE];
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;

#[rustfmt::skip]
const LISTED: &[i64] = &[
    // Files by descriptor.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_fstat, libc::SYS_lseek, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl, libc::SYS_flock, libc::SYS_ioctl,
    libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fadvise64,
    libc::SYS_getdents64, libc::SYS_fchmod,
    libc::SYS_copy_file_range, libc::SYS_readahead, libc::SYS_fstatfs, libc::SYS_pipe2, libc::SYS_eventfd2,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_signalfd4,
    libc::SYS_pselect6, libc::SYS_ppoll, libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    // Files by name, all under Landlock.
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_unlinkat,
    libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_renameat2, libc::SYS_truncate, libc::SYS_statfs,
    libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_umask, libc::SYS_utimensat,
    // Memory.
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk,
    libc::SYS_msync, libc::SYS_mincore, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock, libc::SYS_mlockall,
    libc::SYS_munlockall, libc::SYS_membarrier, libc::SYS_get_mempolicy, libc::SYS_set_mempolicy, libc::SYS_mbind,
    libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_pkey_mprotect,
    // Processes, threads and signals.
    libc::SYS_clone, libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4,
    libc::SYS_waitid, libc::SYS_pidfd_open, libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill,
    libc::SYS_pidfd_send_signal, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack, libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_set_tid_address,
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_restart_syscall, libc::SYS_prctl,
    libc::SYS_getpid, libc::SYS_gettid, libc::SYS_getppid, libc::SYS_getpgid, libc::SYS_getsid, libc::SYS_getuid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid, libc::SYS_getresgid,
    libc::SYS_getgroups, libc::SYS_capget,
    // Time, scheduling of oneself and what the machine is.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_times, libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_timer_create,
    libc::SYS_timer_settime, libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval, libc::SYS_sched_getattr, libc::SYS_getcpu, libc::SYS_getpriority,
    libc::SYS_setpriority, libc::SYS_getrlimit, libc::SYS_prlimit64, libc::SYS_getrusage, libc::SYS_sysinfo,
    libc::SYS_uname, libc::SYS_getrandom,
    // A pair of sockets connected to each other, without the calls that can carry descriptors.
    libc::SYS_socketpair, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_shutdown, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_getsockopt,
];

/// Older forms of listed calls, which this architecture still has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const LISTED_OLDER: &[i64] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_mknod, libc::SYS_unlink, libc::SYS_link, libc::SYS_symlink,
    libc::SYS_rename, libc::SYS_renameat, libc::SYS_pipe, libc::SYS_dup2, libc::SYS_poll, libc::SYS_select,
    libc::SYS_getdents, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_signalfd,
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_getpgrp, libc::SYS_alarm, libc::SYS_pause, libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
const LISTED_OLDER: &[i64] = &[libc::SYS_renameat];

/// Calls about extended attributes of files.
#[rustfmt::skip]
const ATTRIBUTES: &[i64] = &[
    libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr, libc::SYS_listxattr, libc::SYS_llistxattr,
    libc::SYS_flistxattr, libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_removexattr,
    libc::SYS_lremovexattr, libc::SYS_fremovexattr,
];

/// Calls that put a piece of a file, or of a pipe, into a pipe or a socket without a copy. A byte of it keeps all of the file's
/// memory that it lies in, up to 2 MiB, also once the file is cut off, and nothing shows that.
const UNCOPIED: &[i64] = &[libc::SYS_sendfile, libc::SYS_splice, libc::SYS_tee];

/// The filter; it is for the calling process's user, and with `Signals::OwnOnly` for the calling process.
///
/// Extended attributes are refused as a file system without them does: `ls` and `cp` take only this answer silently. Data that is
/// not copied is refused as by a file of a kind that cannot be: programs then read and write it.
pub(crate) fn build(signals: Signals, truncate_is_caged: bool) -> Result<BpfProgram, BackendError> {
    let listed = LISTED.iter().chain(LISTED_OLDER).map(|call| (*call, Verdict::Allow));
    let attributes = ATTRIBUTES.iter().map(|call| (*call, Verdict::Refuse(libc::EOPNOTSUPP)));
    let uncopied = UNCOPIED.iter().map(|call| (*call, Verdict::Refuse(libc::EINVAL)));
    let mut verdicts: BTreeMap<_, _> = listed.chain(attributes).chain(uncopied).collect();
    let conditions = conditions(signals, truncate_is_caged)?;
    for call in conditions.keys() {
        // A call that is not listed stays refused.
        verdicts.entry(*call).and_modify(|verdict| *verdict = Verdict::Examine);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let examine = SeccompFilter::new(conditions, SeccompAction::Allow, refuse, target()?)?.try_into()?;
    search::by_number(&verdicts, Verdict::Refuse(libc::ENOSYS), examine)
}

/// The arguments by which listed calls reach outside or out of sight. A call without rules is refused with any.
fn conditions(signals: Signals, truncate_is_caged: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules = BTreeMap::from([
        (libc::SYS_clone, refused_clones()?),
        (libc::SYS_close_range, vec![rule([masked(2, CLOSE_RANGE_UNSHARE, CLOSE_RANGE_UNSHARE)?])?]),
        (
            libc::SYS_mmap,
            vec![
                // Shared memory without a file stays whole while a page of it is mapped, so it cannot be measured.
                rule([masked(3, MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS)?])?,
                rule([masked(3, MAP_HUGETLB, MAP_HUGETLB)?])?,
            ],
        ),
        // Among others, a process that is not dumpable would hide its descriptors, and one with a core scheduling cookie of its
        // own would keep the other threads of its processor's core idle, which other slots may need.
        (libc::SYS_prctl, vec![none_of(0, ALLOWED_PRCTLS)?]),
        (libc::SYS_ioctl, vec![none_of(1, ALLOWED_IOCTLS)?]),
        (libc::SYS_fcntl, each(REFUSED_FCNTLS.map(|command| is(1, command)))?),
        // Limits, priorities and processors of other processes.
        (libc::SYS_prlimit64, vec![rule([is_not(0, 0)?])?]),
        (libc::SYS_setpriority, vec![rule([is_not(0, 0)?])?, rule([is_not(1, 0)?])?]),
        (libc::SYS_sched_setaffinity, vec![rule([is_not(0, 0)?])?]),
        // Times of an open file only.
        (libc::SYS_utimensat, vec![rule([is_given(1)?])?]),
        (libc::SYS_socketpair, vec![rule([is_not(0, libc::AF_UNIX)?])?]),
        (libc::SYS_sendto, vec![rule([is_given(4)?])?]),
    ]);
    if !truncate_is_caged {
        rules.insert(libc::SYS_truncate, Vec::new());
    }
    if rustix::process::geteuid().is_root() {
        // The system's files are this user's: a program could change the modes and times of all that it may read. To set
        // the time of a file to the present stays possible.
        rules.insert(libc::SYS_fchmod, Vec::new());
        rules.insert(libc::SYS_utimensat, vec![rule([is_given(1)?])?, rule([is_given(2)?])?]);
    }
    if signals == Signals::OwnOnly {
        refuse_signals_to_others(&mut rules)?;
    }
    Ok(rules)
}

fn refused_clones() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = each(REFUSED_CLONE_FLAGS.map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        masked(0, flag, flag)
    }))?;
    // A thread with descriptors of its own would hold files that its process does not show.
    rules.push(rule([masked(0, CLONE_THREAD | CLONE_FILES, CLONE_THREAD)?])?);
    Ok(rules)
}

fn refuse_signals_to_others(rules: &mut BTreeMap<i64, Vec<SeccompRule>>) -> Result<(), BackendError> {
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    for call in [libc::SYS_kill, libc::SYS_rt_sigqueueinfo] {
        rules.insert(call, vec![rule([is_not(0, own)?, is_not(0, 0)?])?]);
    }
    for call in [libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo] {
        rules.insert(call, vec![rule([is_not(0, own)?])?]);
    }
    for call in [libc::SYS_tkill, libc::SYS_pidfd_send_signal] {
        rules.insert(call, Vec::new());
    }
    Ok(())
}

fn target() -> Result<seccompiler::TargetArch, BackendError> {
    std::env::consts::ARCH.try_into()
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

fn each<const N: usize>(
    conditions: [Result<SeccompCondition, BackendError>; N],
) -> Result<Vec<SeccompRule>, BackendError> {
    conditions.into_iter().map(|condition| rule([condition?])).collect()
}

/// An argument of 32 bits that is none of `values`.
fn none_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<SeccompRule, BackendError> {
    let conditions = values.map(|value| condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value));
    SeccompRule::new(conditions.into_iter().collect::<Result<Vec<_>, _>>()?)
}

/// A pointer that is not null.
fn is_given(argument: u8) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)
}

/// An `int` argument. The upper half of the register is the caller's and means nothing.
fn is(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))
}

fn is_not(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(value.cast_unsigned()))
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

fn condition(
    argument: u8,
    width: SeccompCmpArgLen,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, width, operation, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::search::tests::{answer, seen};

    #[test]
    fn calls_are_allowed_by_the_list_and_listed_ones_refused_by_their_arguments() {
        let refused = |error: i32| libc::SECCOMP_RET_ERRNO | error.unsigned_abs();
        for (signals, truncate_is_caged) in [(Signals::Scoped, true), (Signals::OwnOnly, false)] {
            let filter = build(signals, truncate_is_caged).expect("a filter");
            let ask = |call: i64, arguments| answer(&filter, seen(u32::try_from(call).expect("a number"), arguments));
            let conditions = conditions(signals, truncate_is_caged).expect("conditions");
            for call in 0..1000 {
                let expected = if ATTRIBUTES.contains(&call) {
                    refused(libc::EOPNOTSUPP)
                } else if UNCOPIED.contains(&call) {
                    refused(libc::EINVAL)
                } else if !LISTED.contains(&call) && !LISTED_OLDER.contains(&call) {
                    refused(libc::ENOSYS)
                } else if conditions.contains_key(&call) {
                    continue;
                } else {
                    libc::SECCOMP_RET_ALLOW
                };
                assert_eq!(ask(call, [0; 6]), expected, "{call}");
            }
            let shared = MAP_SHARED | MAP_ANONYMOUS;
            for (call, arguments, expected) in [
                (libc::SYS_mmap, [0, 4096, 3, MAP_ANONYMOUS | 2, 0, 0], libc::SECCOMP_RET_ALLOW),
                (libc::SYS_mmap, [0, 4096, 3, shared, 0, 0], refused(libc::EPERM)),
                (libc::SYS_ioctl, [0, ALLOWED_IOCTLS[0], 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
                (libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0], refused(libc::EPERM)),
                (libc::SYS_prctl, [15, 0, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
                (libc::SYS_prctl, [0x5961_6d61, 0, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
                (libc::SYS_prctl, [4, 0, 0, 0, 0, 0], refused(libc::EPERM)),
                (libc::SYS_prctl, [78, 1, 1 << 20, 0, 0, 0], refused(libc::EPERM)),
                (libc::SYS_setpriority, [0, 0, 19, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
                (libc::SYS_setpriority, [0, 7, 19, 0, 0, 0], refused(libc::EPERM)),
            ] {
                assert_eq!(ask(call, arguments), expected, "{call} {arguments:?}");
            }
        }
    }
}
