//! Scratch directories: a fresh one a task, its size metered while the program may do anything in it, and removed
//! whatever it holds.
//!
//! All directories of one process lie in a directory that it keeps locked. A later process that uses the same root
//! removes those whose lock is free, with the programs in them: their owner was killed.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Dir, DirEntry, FileType, FlockOperation, Mode, OFlags, StatVfs, chmodat, fchmod, flock, fstat,
    openat, renameat, statat, statvfs, unlinkat,
};
use rustix::io::Errno;

use crate::native::kill_programs_of;

/// Assumed size of an inode and its name, for each file, directory or link, beside its blocks.
const ENTRY_BYTES: u64 = 4096;
const BLOCK_BYTES: u64 = 512;
/// Each level is an open descriptor while the size is taken.
const MAX_DEPTH: usize = 64;
/// A disk with less free space is full: what other programs remove and write moves it by some blocks.
const LEAST_FREE_BYTES: u64 = 64 << 10;
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
    lock: Mutex<File>,
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
                return Ok(Self {
                    directory: directory.canonicalize()?,
                    next: AtomicU64::new(0),
                    lock: Mutex::new(lock),
                });
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

    /// Makes its directory again, and locks it, after a cleaner of temporary files has removed it.
    pub(crate) fn restore(&self) -> io::Result<()> {
        // Two threads may have found it missing.
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join(LOCK);
        if path.exists() {
            return Ok(());
        }
        self.directory.parent().map_or(Ok(()), private_directory)?;
        private_directory(&self.directory)?;
        let made = File::create_new(&path)?;
        flock(&made, FlockOperation::NonBlockingLockExclusive)?;
        *lock = made;
        Ok(())
    }
}

impl Drop for ScratchRoot {
    fn drop(&mut self) {
        let _ = remove_run(&self.directory);
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

    /// Whether its file system takes next to nothing more, whatever has filled it.
    pub(crate) fn is_on_full_disk(&self) -> bool {
        statvfs(&self.path).is_ok_and(|stat| is_full(&stat, rustix::process::geteuid().is_root()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next process that uses the root removes the remains.
        let _ = remove(&self.path);
    }
}

fn is_full(stat: &StatVfs, is_root: bool) -> bool {
    // A part of the disk may be kept for root.
    let (blocks, files) = if is_root { (stat.f_bfree, stat.f_ffree) } else { (stat.f_bavail, stat.f_favail) };
    // A file system without a bound on blocks or files shows none.
    let has_no_blocks = stat.f_blocks > 0 && blocks.saturating_mul(stat.f_frsize) < LEAST_FREE_BYTES;
    has_no_blocks || stat.f_files > 0 && files == 0
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
        let _ = remove_run(directory);
    }
}

/// Removes the directory of a process, the lock after all directories of tasks: where the removal fails or is cut short, a
/// later process finds the lock and goes on.
fn remove_run(directory: &Path) -> io::Result<()> {
    let mut removed = Ok(());
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removed = remove(&entry.path()).and(removed);
        }
    }
    removed?;
    remove(directory)
}

/// The directory is nested too deep to be measured, or its program takes the right to look at it away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unmeasurable;

/// The bytes that all below `directory` takes on disk, entries without contents included. Stops counting above `limit`.
pub(crate) fn size_of(directory: &Path, limit: u64) -> Result<u64, Unmeasurable> {
    let Some(top) = unless_withheld(open_directory(CWD, directory))? else { return Ok(0) };
    let mut size = Size::default();
    // From the top down to the directory being counted: each with the names of its directories that are still to count.
    let mut path = vec![(count_entries(top.as_fd(), limit, &mut size)?, top)];
    while let Some((to_count, directory)) = path.last_mut() {
        if size.bytes > limit {
            break;
        }
        let Some(name) = to_count.pop() else {
            path.pop();
            continue;
        };
        let Some(below) = unless_withheld(open_directory(directory.as_fd(), &*name))? else { continue };
        if path.len() == MAX_DEPTH {
            return Err(Unmeasurable);
        }
        path.push((count_entries(below.as_fd(), limit, &mut size)?, below));
    }
    Ok(size.bytes)
}

#[derive(Default)]
struct Size {
    bytes: u64,
    /// Files with several names whose blocks are counted, by device and inode.
    counted: HashSet<(u64, u64)>,
}

/// Adds what the entries of one directory take to `size`, and returns those that are directories.
fn count_entries(directory: BorrowedFd<'_>, limit: u64, size: &mut Size) -> Result<Vec<CString>, Unmeasurable> {
    let mut directories = Vec::new();
    let entries = unless_withheld(Dir::read_from(directory))?;
    for entry in entries.into_iter().flatten().flatten().filter(is_named) {
        let stat = unless_withheld(statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW))?;
        let Some(stat) = stat else { continue };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let is_counted = !is_directory && stat.st_nlink > 1 && !size.counted.insert((stat.st_dev, stat.st_ino));
        let blocks = if is_counted { 0 } else { u64::try_from(stat.st_blocks).unwrap_or(0) };
        size.bytes += ENTRY_BYTES + blocks * BLOCK_BYTES;
        if size.bytes > limit {
            break;
        }
        if is_directory {
            directories.push(entry.file_name().to_owned());
        }
    }
    Ok(directories)
}

/// The value; `None` where the file is gone or of another user. [`open_directory`] has given the rights that are missing.
fn unless_withheld<T>(found: Result<T, Errno>) -> Result<Option<T>, Unmeasurable> {
    match found {
        Err(Errno::ACCESS) => Err(Unmeasurable),
        found => Ok(found.ok()),
    }
}

/// Removes a directory with all in it, however deep and whatever its modes. No process may be adding to it.
///
/// Each directory found is emptied into the top one, so neither depth nor path length has a bound.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    // Most programs leave nothing.
    if remove_empty(directory).is_ok() {
        return Ok(());
    }
    let top = match open_directory(CWD, directory) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    // To remove an entry is to write into its directory.
    let _ = fchmod(&top, Mode::RWXU);
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
            let below = match open_directory(top.as_fd(), &*name) {
                // The supervisor of a killed host removes it, too.
                Err(Errno::NOENT) => continue,
                opened => opened?,
            };
            let _ = fchmod(&below, Mode::RWXU);
            let found_below = names(below.as_fd());
            let is_unread = found_below.is_empty();
            for inner in found_below {
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
                // Its entries cannot be listed: the next turn would find the same.
                Err(Errno::NOTEMPTY) if is_unread => return Err(Errno::NOTEMPTY.into()),
                Err(Errno::NOENT | Errno::NOTEMPTY) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    remove_empty(directory)
}

fn remove_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Opens a directory, giving its owner the rights to read and to search it if need be: without the latter its entries can
/// be neither listed nor measured.
fn open_directory<P: rustix::path::Arg + Copy>(parent: BorrowedFd<'_>, path: P) -> Result<OwnedFd, Errno> {
    let opened = match openat(parent, path, OFlags::RDONLY | DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let pinned = give_rights(parent, path)?;
            openat(&pinned, ".", OFlags::RDONLY | DIRECTORY, Mode::empty())?
        }
        answer => answer?,
    };
    if !Mode::from_raw_mode(fstat(&opened)?.st_mode).contains(Mode::XUSR) {
        fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
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
mod tests;
