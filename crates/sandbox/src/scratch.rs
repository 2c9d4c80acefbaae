//! Scratch directories: a fresh one a task, its size metered while the program may do anything in it, and removed
//! whatever it holds.
//!
//! All directories of one process lie in a directory that it keeps locked. A later process that uses the same root
//! removes those whose lock is free, with the programs in them: their owner was killed.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, DirEntry, FileType, FlockOperation, Mode, OFlags, chmodat, flock, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::native::kill_programs_of;

/// Assumed size of an inode and its name, for each file, directory or link, beside its blocks.
const ENTRY_BYTES: u64 = 4096;
const BLOCK_BYTES: u64 = 512;
/// Each level is an open descriptor while the size is taken.
const MAX_DEPTH: usize = 64;
const LOCK: &str = "lock";
const RUN_PREFIX: &str = "run-";
/// Directories that are made until one is locked: another process that starts may remove each of them before.
const MOST_TRIES: u32 = 1000;
/// A directory itself, not the target of a link.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory in which this process makes its scratch directories.
#[derive(Debug)]
pub(crate) struct ScratchRoot {
    directory: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl ScratchRoot {
    /// Makes a directory of this process below `root`, and removes those of processes that are gone.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        private_directory(root)?;
        for entry in fs::read_dir(root)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(RUN_PREFIX.as_bytes()) {
                remove_abandoned(&entry.path());
            }
        }
        for _ in 0..MOST_TRIES {
            if let Some((directory, lock)) = make_and_lock(root)? {
                return Ok(Self { directory: directory.canonicalize()?, next: AtomicU64::new(0), _lock: lock });
            }
        }
        Err(io::Error::other("other processes remove its directory over and over"))
    }

    /// A fresh, empty directory.
    pub(crate) fn create(&self) -> io::Result<Scratch> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("task-{number}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch { path })
    }
}

impl Drop for ScratchRoot {
    fn drop(&mut self) {
        let _ = remove(&self.directory);
    }
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next process that uses the root removes the remains.
        let _ = remove(&self.path);
    }
}

/// Makes a directory that only this user can enter, or checks that the one there is such.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own || found.mode() & 0o077 != 0 {
        let message = format!("{} is not a directory that user {own} alone can enter (mode 0700)", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Makes a directory and locks it; none where another process has taken it for abandoned before it was locked.
fn make_and_lock(root: &Path) -> io::Result<Option<(PathBuf, File)>> {
    let directory = tempfile::Builder::new().prefix(RUN_PREFIX).tempdir_in(root)?.keep();
    let path = directory.join(LOCK);
    let lock = match File::create_new(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        made => made?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    Ok(path.exists().then_some((directory, lock)))
}

fn remove_abandoned(directory: &Path) {
    // Without a lock file it is one that is being made right now, or one whose removal was cut short.
    let Ok(lock) = File::open(directory.join(LOCK)) else {
        let _ = fs::remove_dir(directory);
        return;
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        // Its supervisors have ended their programs, unless they were killed with it.
        if let Ok(directory) = directory.canonicalize() {
            kill_programs_of(&directory);
        }
        let _ = remove(directory);
    }
}

/// The directory is nested too deep to be measured.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// The bytes that all below `directory` takes on disk, entries without contents included. Stops counting above `limit`.
pub(crate) fn size_of(directory: &Path, limit: u64) -> Result<u64, TooDeep> {
    let Ok(top) = open_directory(CWD, directory) else { return Ok(0) };
    let mut sum = 0;
    // From the top down to the directory being counted: each with the names of its directories that are still to count.
    let mut path = vec![(count_entries(top.as_fd(), limit, &mut sum), top)];
    while let Some((to_count, directory)) = path.last_mut() {
        if sum > limit {
            break;
        }
        let Some(name) = to_count.pop() else {
            path.pop();
            continue;
        };
        let Ok(below) = open_directory(directory.as_fd(), &*name) else { continue };
        if path.len() == MAX_DEPTH {
            return Err(TooDeep);
        }
        path.push((count_entries(below.as_fd(), limit, &mut sum), below));
    }
    Ok(sum)
}

/// Adds what the entries of one directory take to `sum`, and returns those that are directories.
fn count_entries(directory: BorrowedFd<'_>, limit: u64, sum: &mut u64) -> Vec<CString> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory).into_iter().flatten().flatten().filter(is_named) {
        let Ok(stat) = statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        *sum += ENTRY_BYTES + u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        if *sum > limit {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            directories.push(entry.file_name().to_owned());
        }
    }
    directories
}

/// Removes a directory with all in it, however deep and whatever its modes. No process may be changing it.
///
/// Each directory found is emptied into the top one, so neither depth nor path length has a bound.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    let top = match open_directory(CWD, directory) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut moved = 0_u64;
    loop {
        let found = names(top.as_fd());
        if found.is_empty() {
            break;
        }
        for name in found {
            if unlinkat(&top, &*name, AtFlags::empty()).is_ok() {
                continue;
            }
            let below = open_directory(top.as_fd(), &*name)?;
            for inner in names(below.as_fd()) {
                if unlinkat(&below, &*inner, AtFlags::empty()).is_ok() {
                    continue;
                }
                // To move a directory is to write into it: its link to the parent changes.
                let _ = give_rights(below.as_fd(), &*inner);
                while let Err(error) = renameat(&below, &*inner, &top, format!("moved-{moved}")) {
                    // The program may have used the name.
                    if !matches!(error, Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) {
                        return Err(error.into());
                    }
                    moved += 1;
                }
                moved += 1;
            }
            match unlinkat(&top, &*name, AtFlags::REMOVEDIR) {
                Err(Errno::NOENT | Errno::NOTEMPTY) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Opens a directory, giving its owner the right to if need be.
fn open_directory<P: rustix::path::Arg + Copy>(parent: BorrowedFd<'_>, path: P) -> Result<OwnedFd, Errno> {
    match openat(parent, path, OFlags::RDONLY | DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let pinned = give_rights(parent, path)?;
            openat(&pinned, ".", OFlags::RDONLY | DIRECTORY, Mode::empty())
        }
        answer => answer,
    }
}

/// Gives a directory's owner all rights to it. By a descriptor: a program that still runs can put a link to another file
/// in the place of the name.
fn give_rights<P: rustix::path::Arg>(parent: BorrowedFd<'_>, path: P) -> Result<OwnedFd, Errno> {
    let pinned = openat(parent, path, OFlags::PATH | DIRECTORY, Mode::empty())?;
    chmodat(CWD, format!("/proc/self/fd/{}", pinned.as_raw_fd()), Mode::RWXU, AtFlags::empty())?;
    Ok(pinned)
}

fn names(directory: BorrowedFd<'_>) -> Vec<CString> {
    let entries = Dir::read_from(directory).into_iter().flatten().flatten();
    entries.filter(is_named).map(|entry| entry.file_name().to_owned()).collect()
}

fn is_named(entry: &DirEntry) -> bool {
    !matches!(entry.file_name().to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, ScratchRoot) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = ScratchRoot::open(&directory.path().join("root")).expect("a root");
        (directory, root)
    }

    #[test]
    fn a_scratch_directory_goes_with_all_that_is_in_it() {
        let (_keep, root) = root();
        let scratch = root.create().expect("created");
        let path = scratch.path().to_owned();
        let outside = root.directory.join("outside");
        fs::write(&outside, "stays").expect("written");
        fs::create_dir(path.join("closed")).expect("made");
        fs::write(path.join("closed/file"), "x").expect("written");
        fs::write(path.join("moved-0"), "in the way").expect("written");
        fs::create_dir_all(path.join("moved-1/a/b/c")).expect("made");
        symlink(&outside, path.join("link")).expect("linked");
        fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o000)).expect("closed");
        drop(scratch);
        assert!(!path.exists());
        assert!(outside.exists());
    }

    #[test]
    fn rights_are_given_to_directories_and_not_to_what_links_lead_to() {
        let (_keep, root) = root();
        let scratch = root.create().expect("created");
        let (outside, closed) = (root.directory.join("outside"), scratch.path().join("closed"));
        for (directory, mode) in [(&outside, 0o500), (&closed, 0o000)] {
            fs::create_dir(directory).expect("made");
            fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("set");
        }
        symlink(&outside, scratch.path().join("link")).expect("linked");
        let top = open_directory(CWD, scratch.path()).expect("open");
        assert!(give_rights(top.as_fd(), "link").is_err());
        give_rights(top.as_fd(), "closed").expect("a directory");
        let mode = |directory: &Path| fs::metadata(directory).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&outside), mode(&closed)), (0o500, 0o700));
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_too_deep_to_measure_and_is_removed() {
        let (_keep, root) = root();
        let scratch = root.create().expect("created");
        let mut at = open_directory(CWD, scratch.path()).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("made");
            at = open_directory(at.as_fd(), "d").expect("open");
        }
        assert_eq!(size_of(scratch.path(), u64::MAX), Err(TooDeep));
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn size_counts_blocks_and_entries_but_not_what_links_lead_to() {
        let (_keep, root) = root();
        let scratch = root.create().expect("created");
        fs::write(scratch.path().join("file"), vec![1; 1 << 20]).expect("written");
        symlink("/", scratch.path().join("link")).expect("linked");
        let size = size_of(scratch.path(), u64::MAX).expect("measured");
        assert!(((1 << 20)..(1 << 20) + 4 * ENTRY_BYTES).contains(&size), "{size}");
        assert!(size_of(scratch.path(), 4096).expect("measured") > 4096);
        for name in 0..2 * MAX_DEPTH {
            fs::create_dir(scratch.path().join(name.to_string())).expect("made");
        }
        assert!(size_of(scratch.path(), u64::MAX).expect("wide, not deep") > size);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("root");
        let living = ScratchRoot::open(&path).expect("a root");
        let kept = living.create().expect("created");
        let abandoned = path.join("run-dead");
        fs::create_dir_all(abandoned.join("task-1/x")).expect("made");
        fs::write(abandoned.join(LOCK), "").expect("written");
        drop(ScratchRoot::open(&path).expect("a root"));
        assert!(kept.path().exists());
        assert!(!abandoned.exists());
    }

    #[test]
    fn processes_that_start_at_the_same_time_keep_their_directories() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("root");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let root = ScratchRoot::open(&path).expect("a root");
                        assert!(root.create().expect("created").path().exists());
                    }
                });
            }
        });
    }

    #[test]
    fn a_root_that_others_can_enter_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opened");
        assert_eq!(
            ScratchRoot::open(directory.path()).expect_err("open to all").kind(),
            io::ErrorKind::PermissionDenied
        );
    }
}
