//! Uploaded programs on disk: fetched once, verified by their hash, the least recently used removed first. The directory
//! is the worker's own (mode 0700); several workers of one user may share it.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, SystemTime};

use model::ProgramHash;
use reqwest::Response;
use sha2::{Digest, Sha256};
use tempfile::{Builder, NamedTempFile};

use crate::courier::{Courier, FetchError, piece_of};

/// Executable and readable by the worker alone, writable by nobody.
const MODE: u32 = 0o500;

/// A temporary file older than this belongs to a killed worker: no task takes so long to begin.
const LEFTOVER_AGE: Duration = Duration::from_hours(6);

/// Interval between marks of a file as used. A mark changes the state by which the sandbox remembers the hash of a file: with
/// one a task the whole file would be hashed for each.
const MARK_INTERVAL: Duration = Duration::from_mins(10);

/// Interval at which a task that waits for another task's fetch checks whether it was stopped.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

/// Programs whose locks are kept. The lock of a program makes its fetches wait for each other.
const MAX_LOCKS: usize = 1_024;

#[derive(Debug)]
pub(crate) struct ProgramCache {
    directory: PathBuf,
    max_bytes: u64,
    fetching: Mutex<HashMap<ProgramHash, Arc<Mutex<()>>>>,
}

impl ProgramCache {
    pub(crate) fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let cache = Self { directory: directory.to_owned(), max_bytes, fetching: Mutex::default() };
        cache.make_directory()?;
        Ok(cache)
    }

    /// Makes the directory, also again after it was removed. The directory above it is there.
    pub(crate) fn make_directory(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        fs::set_permissions(&self.directory, Permissions::from_mode(0o700))
    }

    /// The file of a program, fetched if it is not there. The sandbox verifies what it runs.
    pub(crate) fn get(&self, hash: ProgramHash, courier: &Courier, stop: &AtomicBool) -> Result<PathBuf, FetchError> {
        let path = self.directory.join(hash.to_string());
        if self.touch(&path) {
            return Ok(path);
        }
        let lock = self.lock_of(hash);
        let _fetching = lock_unless_stopped(&lock, stop).ok_or(FetchError::Stopped)?;
        if self.touch(&path) {
            return Ok(path);
        }
        courier.fetch(&["worker", "programs", &hash.to_string()], &[], stop, async |response| {
            self.store(hash, response, &path).await
        })?;
        self.evict(&path).map_err(FetchError::Local)?;
        Ok(path)
    }

    /// The longest file, in bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The directory, also for temporary files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A temporary file, removed when dropped.
    pub(crate) fn temporary_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(&self.directory)
    }

    /// Removes a file whose content does not match its name.
    pub(crate) fn drop_file(&self, hash: ProgramHash) {
        // The file may be gone already.
        let _ = fs::remove_file(self.directory.join(hash.to_string()));
    }

    /// Marks a file as used, unless its last mark is recent, and gives it back its mode. Returns whether it is there.
    fn touch(&self, path: &Path) -> bool {
        File::open(path).is_ok_and(|file| {
            let metadata = file.metadata();
            // A program that is not root's may change the mode of its own file, which other tasks execute, too.
            if metadata.as_ref().is_ok_and(|file| file.mode() & 0o7777 != MODE) {
                let _ = file.set_permissions(Permissions::from_mode(MODE));
            }
            let marked_at = metadata.and_then(|file| file.modified());
            let is_recent = |at: SystemTime| at.elapsed().is_ok_and(|age| age < MARK_INTERVAL);
            if !marked_at.is_ok_and(is_recent) {
                // The owner may set the times of a file although nobody may write to it.
                let _ = file.set_modified(SystemTime::now());
            }
            true
        })
    }

    fn lock_of(&self, hash: ProgramHash) -> Arc<Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if fetching.len() >= MAX_LOCKS {
            fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(fetching.entry(hash).or_default())
    }

    async fn store(&self, hash: ProgramHash, mut response: Response, path: &Path) -> Result<(), FetchError> {
        // The process id is no unique name: a worker in another container, or an earlier one in this container, may have the
        // same.
        let name = format!("{hash}.");
        let part = Builder::new().prefix(&name).suffix(".part").tempfile_in(&self.directory);
        let mut part = part.map_err(FetchError::Local)?;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = piece_of(&mut response).await? {
            bytes += piece.len() as u64;
            if bytes > self.max_bytes {
                let most = self.max_bytes;
                let message = format!("the program is longer than {most} bytes (DIVVY_PROGRAM_CACHE_BYTES)");
                return Err(FetchError::TooLong(message));
            }
            digest.update(&piece);
            part.write_all(&piece).map_err(FetchError::Local)?;
        }
        let found = ProgramHash(digest.finalize().into());
        if found != hash {
            return Err(FetchError::Unreachable(format!("it sent a program with the hash {found} instead of {hash}")));
        }
        part.as_file().set_permissions(Permissions::from_mode(MODE)).map_err(FetchError::Local)?;
        // An executable that is open for writing cannot be run: this closes it first.
        part.into_temp_path().persist(path).map_err(|error| FetchError::Local(error.error))
    }

    /// Removes the programs that were not used for the longest time until the rest fits, but not `keep`. Files on their way
    /// into the cache, or out of it to a program, are left to their makers, unless these ended without removing them.
    fn evict(&self, keep: &Path) -> io::Result<()> {
        let (mut programs, mut total) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Another worker may have removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            let (modified_at, bytes, path) = (metadata.modified()?, metadata.len(), entry.path());
            total += bytes;
            if entry.file_name().to_str().is_some_and(|name| name.parse::<ProgramHash>().is_ok()) {
                programs.push((modified_at, bytes, path));
            } else if modified_at.elapsed().is_ok_and(|age| age > LEFTOVER_AGE) && fs::remove_file(&path).is_ok() {
                total -= bytes;
            }
        }
        programs.sort_unstable();
        for (_, bytes, path) in programs {
            if total <= self.max_bytes {
                break;
            }
            if path != keep && fs::remove_file(&path).is_ok() {
                total -= bytes;
            }
        }
        Ok(())
    }
}

/// Waits for the end of a fetch, which may wait for a coordinator; `None` when `stop` is set before.
fn lock_unless_stopped<'a>(lock: &'a Mutex<()>, stop: &AtomicBool) -> Option<MutexGuard<'a, ()>> {
    while !stop.load(Ordering::Relaxed) {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(STOP_INTERVAL),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_waits_for_a_fetch_can_be_stopped() {
        let (lock, stop) = (Mutex::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            let fetching = lock_unless_stopped(&lock, &stop).expect("nobody fetches");
            let waiting = scope.spawn(|| lock_unless_stopped(&lock, &stop).is_some());
            stop.store(true, Ordering::Relaxed);
            assert!(!waiting.join().expect("no panic"), "the fetch has not ended");
            drop(fetching);
        });
        stop.store(false, Ordering::Relaxed);
        assert!(lock_unless_stopped(&lock, &stop).is_some());
    }

    #[test]
    fn a_program_that_tasks_use_over_and_over_stays_the_file_whose_hash_is_known() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ProgramCache::open(directory.path(), 25).expect("a cache");
        let path = directory.path().join("aa".repeat(32));
        fs::write(&path, "ten bytes.").expect("written");
        let marked_at = || fs::metadata(&path).and_then(|file| file.modified()).expect("there");
        let mark = |age: Duration| {
            let file = File::open(&path).expect("there");
            file.set_modified(SystemTime::now() - age).expect("its owner");
            marked_at()
        };
        let recent = mark(Duration::from_secs(1));
        assert!(cache.touch(&path));
        assert_eq!(marked_at(), recent);
        let old = mark(Duration::from_hours(1));
        assert!(cache.touch(&path));
        assert!(marked_at() > old);
        assert!(!cache.touch(&directory.path().join("bb".repeat(32))));
    }

    #[test]
    fn a_program_whose_mode_has_changed_can_be_executed_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ProgramCache::open(directory.path(), 25).expect("a cache");
        let path = directory.path().join("aa".repeat(32));
        fs::write(&path, "ten bytes.").expect("written");
        for mode in [0o400, 0o4777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its owner");
            assert!(cache.touch(&path));
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, MODE);
        }
    }

    #[test]
    fn programs_make_room_for_others_and_files_that_are_in_use_do_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ProgramCache::open(directory.path(), 25).expect("a cache");
        let make = |name: &str, age: Duration| {
            let path = directory.path().join(name);
            fs::write(&path, "ten bytes.").expect("written");
            let file = File::options().append(true).open(&path).expect("there");
            file.set_modified(SystemTime::now() - age).expect("its owner");
            path
        };
        let (minute, day) = (Duration::from_mins(1), Duration::from_hours(24));
        let [old, newer, kept] =
            [("aa", 3), ("bb", 2), ("cc", 4)].map(|(byte, age)| make(&byte.repeat(32), minute * age));
        let [part, lines] =
            [format!("{}.7.0.part", "dd".repeat(32)), ".tmpAbCdEf".to_owned()].map(|name| make(&name, minute * 9));
        let abandoned = make(&format!("{}.7.1.part", "ee".repeat(32)), day);
        cache.evict(&kept).expect("readable");
        assert!(part.exists() && lines.exists(), "a fetch and a fold go on");
        assert!(kept.exists() && !old.exists() && !newer.exists(), "what is in use takes room too");
        assert!(!abandoned.exists());
    }
}
