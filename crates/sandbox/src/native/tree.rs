//! The processes below another one, from `/proc`: their ids, their memory and their open files.
//!
//! A process can end at any moment, so a file that is gone is no error here. A walk may miss a process that is forked
//! while it runs; callers repeat it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Longest line of ancestors that is followed.
const MAX_ANCESTORS: usize = 1 << 16;
/// The kernel memory that a full pipe, or what waits at one end of a socket pair, takes at most by default.
const PIPE_BYTES: u64 = 64 << 10;
const SOCKET_BYTES: u64 = 208 << 10;
/// The kernel memory of a mapping with a memory policy of its own, whether any of its pages is in memory or not.
const MAPPING_BYTES: u64 = 512;
/// The amount that a lock on a part of a file counts for, and a descriptor that `epoll` watches. They take less, but the time to
/// count many has a bound, too.
const LOCK_BYTES: u64 = 4096;
const BLOCK_BYTES: u64 = 512;
/// Calls after which a child shares the memory of its parent, which waits until the child executes a file or ends. The
/// flags of `clone3` are in the program's memory; no caged program can call it.
#[cfg(target_arch = "x86_64")]
const VFORKS: &[i64] = &[libc::SYS_vfork, libc::SYS_clone3];
#[cfg(not(target_arch = "x86_64"))]
const VFORKS: &[i64] = &[libc::SYS_clone3];
/// `CLONE_VFORK` and `CLONE_VM`.
const VFORK_FLAGS: u64 = 0x4000 | 0x100;

/// Resources of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) threads: u32,
    /// Anonymous and shared memory, swapped memory and page tables; no page cache, which the kernel can drop.
    pub(crate) memory_bytes: u64,
}

/// Resources behind the open descriptors and the mappings of a process, beside its memory.
#[derive(Debug, Default)]
pub(crate) struct HeldResources {
    /// Bytes of unlinked files by inode.
    unlinked: HashMap<u64, u64>,
    /// Pipes, with and without a name in the file system, and sockets, with the kernel memory that each may take.
    buffers: HashMap<Vec<u8>, u64>,
    /// Unlinked files that are only mapped, whose size cannot be read.
    mapped: HashSet<u64>,
    mappings: u64,
    /// Locks on files and on parts of them, and watches of `epoll`, of which all processes of the user share a number.
    locks: u64,
    /// Counting ends once they take more than this: each duplicate of a descriptor shows the same locks again, and the
    /// program's memory and time are not watched meanwhile.
    most_lock_bytes: u64,
}

impl HeldResources {
    /// Of a program whose memory has this bound.
    pub(crate) fn within(memory_bytes: u64) -> Self {
        Self { most_lock_bytes: memory_bytes, ..Self::default() }
    }

    pub(crate) fn unlinked_bytes(&self) -> u64 {
        self.unlinked.values().sum()
    }

    /// Memory of the kernel that no process shows as its own.
    pub(crate) fn kernel_bytes(&self) -> u64 {
        self.buffers.values().sum::<u64>() + self.mappings * MAPPING_BYTES + self.locks * LOCK_BYTES
    }

    /// Whether a file takes space that nothing shows.
    pub(crate) fn has_unmeasurable(&self) -> bool {
        self.mapped.iter().any(|inode| !self.unlinked.contains_key(inode))
    }
}

/// The descendants of `root`, parents first; no more are looked for once there are more than `most`. A tree that grows
/// while it is walked would else never be done with.
pub(crate) fn descendants(root: i32, most: usize) -> Vec<i32> {
    let mut found = Vec::new();
    push_children(root, &mut found);
    let mut next = 0;
    while let Some(&process) = found.get(next)
        && found.len() <= most
    {
        push_children(process, &mut found);
        next += 1;
    }
    found
}

fn push_children(process: i32, found: &mut Vec<i32>) {
    for thread in threads(process) {
        found.extend(children(process, thread));
    }
}

/// The children of a thread, the newest last.
pub(crate) fn children(process: i32, thread: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{process}/task/{thread}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

pub(crate) fn threads(process: i32) -> impl Iterator<Item = i32> {
    numbers_in(format!("/proc/{process}/task"))
}

/// The entries of a directory of `/proc` that are numbers.
pub(crate) fn numbers_in(directory: impl AsRef<Path>) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Resources of `process`; zero if it is gone.
pub(crate) fn taken(process: i32) -> Taken {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let taken = parse_status(&status);
    if taken.memory_bytes > 0 || taken.threads <= 1 {
        return taken;
    }
    // The first thread has ended and shows no memory any more; the others share it and do.
    let shown = threads(process)
        .map(|thread| fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).unwrap_or_default())
        .map(|status| parse_status(&status).memory_bytes)
        .max();
    Taken { memory_bytes: shown.unwrap_or(0), ..taken }
}

fn parse_status(status: &str) -> Taken {
    let mut taken = Taken::default();
    for line in status.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let number =
            || value.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        match name {
            "RssAnon" | "RssShmem" | "VmSwap" | "VmPTE" => taken.memory_bytes += number() << 10,
            "Threads" => taken.threads = u32::try_from(number()).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    taken
}

/// The memory of `process` with each shared page divided by the number of its users; `None` where that cannot be read.
/// Takes milliseconds for a large process.
pub(crate) fn proportional_memory_bytes(process: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let kilobytes = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    let wanted = |line: &&str| ["Pss_Anon:", "Pss_Shmem:", "SwapPss:"].iter().any(|name| line.starts_with(name));
    let lines: Vec<_> = rollup.lines().filter(wanted).filter_map(kilobytes).collect();
    (!lines.is_empty()).then(|| lines.iter().sum::<u64>() << 10)
}

/// The children that run in the memory of `process`, from their `vfork` until they execute a file or end. Each shows all
/// of it as its own.
pub(crate) fn children_in_its_memory(process: i32) -> Vec<i32> {
    threads(process).filter_map(|thread| child_of_vfork(process, thread)).collect()
}

/// The child that a thread waits for. It is the newest: the thread makes no other one meanwhile.
fn child_of_vfork(process: i32, thread: i32) -> Option<i32> {
    let newest = || children(process, thread).pop();
    let child = newest()?;
    // Another look at the children: the thread may have begun to wait for a child that came after the first one.
    (waits_for_vfork(process, thread) && newest() == Some(child)).then_some(child)
}

fn waits_for_vfork(process: i32, thread: i32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{process}/task/{thread}/{name}")).unwrap_or_default();
    // A thread that is stopped on its way out of the call still shows the call.
    is_vfork(&read("syscall")) && parse_stat(&read("stat")).is_some_and(|stat| stat.state == 'D')
}

/// Whether a line of `/proc/PID/syscall` is of a call after which parent and child share their memory.
fn is_vfork(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    let call = fields.next().and_then(|number| number.parse::<i64>().ok());
    let flags = fields.next().and_then(|flags| u64::from_str_radix(flags.strip_prefix("0x")?, 16).ok());
    call.is_some_and(|call| {
        VFORKS.contains(&call)
            || (call == libc::SYS_clone && flags.is_some_and(|flags| flags & VFORK_FLAGS == VFORK_FLAGS))
    })
}

/// Adds what `process` holds to `held`: files below `scratch` that have no name any more, pipes, sockets,
/// locks and mappings.
///
/// # Errors
/// The process hides its descriptors.
pub(crate) fn add_held(process: i32, scratch: &Path, held: &mut HeldResources) -> io::Result<()> {
    let readable = add_descriptors(&format!("/proc/{process}/fd"), scratch, held)?;
    if readable == 0 {
        // The first thread may have ended; the others have descriptors.
        for thread in threads(process) {
            add_descriptors(&format!("/proc/{process}/task/{thread}/fd"), scratch, held)?;
        }
    }
    add_mapped(process, scratch, held)
}

fn add_descriptors(directory: &str, scratch: &Path, held: &mut HeldResources) -> io::Result<usize> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
        Err(_) => return Ok(0),
        Ok(entries) => entries,
    };
    let mut count = 0;
    for entry in entries.flatten() {
        count += 1;
        let path = entry.path();
        let target = match fs::read_link(&path) {
            // A file whose path is longer than a page, wherever it is: a program can make such a path.
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => scratch.to_owned(),
            Err(_) => continue,
            Ok(target) => target,
        };
        let name = target.as_os_str().as_bytes();
        let has_locks = name.starts_with(b"/") || name == b"anon_inode:[eventpoll]";
        if has_locks && held.locks * LOCK_BYTES <= held.most_lock_bytes {
            held.locks += count_locks(&Path::new(&format!("{directory}info")).join(entry.file_name()));
        }
        if name.starts_with(b"pipe:") || name.starts_with(b"socket:") {
            let bytes = if name.starts_with(b"pipe:") { PIPE_BYTES } else { SOCKET_BYTES };
            held.buffers.insert(name.to_vec(), bytes);
        } else if target.starts_with(scratch)
            && let Ok(file) = fs::metadata(&path)
        {
            if file.file_type().is_fifo() {
                held.buffers.insert(format!("fifo:{}", file.ino()).into_bytes(), PIPE_BYTES);
            } else if file.nlink() == 0 {
                held.unlinked.insert(file.ino(), file.blocks() * BLOCK_BYTES);
            }
        }
    }
    Ok(count)
}

fn count_locks(descriptor: &Path) -> u64 {
    let shown = fs::read(descriptor).unwrap_or_default();
    let is_counted = |line: &&[u8]| line.starts_with(b"lock:") || line.starts_with(b"tfd:");
    shown.split(|byte| *byte == b'\n').filter(is_counted).map(|_| 1_u64).sum()
}

fn add_mapped(process: i32, scratch: &Path, held: &mut HeldResources) -> io::Result<()> {
    let maps = match fs::read(format!("/proc/{process}/maps")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
        Err(_) => return Ok(()),
        Ok(maps) => maps,
    };
    let scratch = scratch.as_os_str().as_bytes();
    for line in maps.split(|byte| *byte == b'\n') {
        held.mappings += 1;
        if !line.ends_with(b" (deleted)") {
            continue;
        }
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let inode = fields.nth(4).and_then(|inode| std::str::from_utf8(inode).ok()?.parse().ok());
        let path = fields.next().unwrap_or_default().trim_ascii_start();
        if let (Some(inode), true) = (inode, path.starts_with(scratch)) {
            held.mapped.insert(inode);
        }
    }
    Ok(())
}

/// Sends a signal to a process that is known to be a descendant of `root`, unless it has ended meanwhile.
pub(crate) fn signal_descendant(root: i32, process: i32, signal: Signal) {
    let Some(pid) = Pid::from_raw(process) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // The number may have been given to a stranger since the walk: the descriptor pins it, and the ancestry is checked.
    if has_ancestor(process, root) {
        let _ = pidfd_send_signal(pidfd, signal);
    }
}

/// Whether `process` is of a session. A zombie is no member any more: only its parent can remove it.
pub(crate) fn is_in_session(process: i32, session: i32) -> bool {
    stat_fields(process).is_some_and(|stat| stat.session == session && stat.state != 'Z')
}

/// Whether `process` is of a process group.
pub(crate) fn is_in_group(process: i32, group: i32) -> bool {
    stat_fields(process).is_some_and(|stat| stat.group == group)
}

fn has_ancestor(process: i32, ancestor: i32) -> bool {
    let mut current = process;
    for _ in 0..MAX_ANCESTORS {
        match stat_fields(current) {
            Some(stat) if stat.parent == ancestor => return true,
            Some(stat) if stat.parent > 1 => current = stat.parent,
            _ => return false,
        }
    }
    false
}

struct Stat {
    state: char,
    parent: i32,
    group: i32,
    session: i32,
}

fn stat_fields(process: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The name before it is the program's choice and may contain anything, parentheses too.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    Some(Stat { state, parent, group, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_threads_are_read_from_a_status_page() {
        let status =
            "Name:\tx\nThreads:\t3\nVmPTE:\t      4 kB\nRssAnon:\t     100 kB\nRssFile:\t  9999 kB\nVmSwap:\t 1 kB\n";
        assert_eq!(parse_status(status), Taken { threads: 3, memory_bytes: 105 << 10 });
    }

    #[test]
    fn only_calls_that_share_memory_count_as_vfork() {
        let line = |call: i64, flags: &str| format!("{call} {flags} 0x0 0x0 0x0 0x0 0x0 0x7ffe0 0x7f030\n");
        for vfork in VFORKS {
            assert!(is_vfork(&line(*vfork, "0x0")), "{vfork}");
        }
        assert!(is_vfork(&line(libc::SYS_clone, "0x4111")));
        for flags in ["0x4011", "0x111", "0x11"] {
            assert!(!is_vfork(&line(libc::SYS_clone, flags)), "{flags}");
        }
        assert!(!is_vfork("running\n") && !is_vfork("") && !is_vfork(&line(libc::SYS_read, "0x4100")));
    }

    #[test]
    fn a_child_is_found_with_its_parent_and_its_memory() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(descendants(own, 1000).contains(&pid));
        assert!(has_ancestor(pid, own));
        assert!(!has_ancestor(own, pid));
        assert_eq!(taken(pid).threads, 1);
        signal_descendant(own, pid, Signal::KILL);
        child.wait().expect("it ended");
    }

    #[test]
    fn locks_are_counted_until_they_take_more_than_the_memory() {
        let files = [(); 3].map(|()| tempfile::tempfile().expect("a file"));
        for file in &files {
            rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("locked");
        }
        let own = i32::try_from(std::process::id()).expect("a pid");
        let locks = |memory_bytes: u64| {
            let mut held = HeldResources::within(memory_bytes);
            add_held(own, Path::new("/nowhere"), &mut held).expect("it hides nothing");
            held.locks
        };
        assert!(locks(u64::MAX) >= 3);
        assert_eq!([locks(0), locks(LOCK_BYTES)], [1, 2]);
    }

    #[test]
    fn a_named_pipe_counts_as_a_buffer_also_when_its_name_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let scratch = directory.path().canonicalize().expect("there");
        let path = scratch.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("made");
        let _open = fs::File::options().read(true).write(true).open(&path).expect("open");
        let own = i32::try_from(std::process::id()).expect("a pid");
        let named_pipes = || {
            let mut held = HeldResources::default();
            add_held(own, &scratch, &mut held).expect("it hides nothing");
            held.buffers.keys().filter(|name| name.starts_with(b"fifo:")).count()
        };
        assert_eq!(named_pipes(), 1);
        fs::remove_file(&path).expect("removed");
        assert_eq!(named_pipes(), 1);
    }
}
