//! Disk space that is kept for changes of existing jobs: a file that occupies it until nothing else is left. New jobs are
//! refused before, so that jobs can be canceled and pruned on a full disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use store::WriteError;

const RESERVE_FILE: &str = "divvy.reserve";
/// Largest size of the file: some thousand changes.
const MAX_BYTES: u64 = 16 << 20;
/// Share of a small disk that the file occupies.
const PART: u64 = 16;
/// Share of a small disk that the log may take before it is copied back.
const LOG_PART: u64 = 64;
/// File that is written, and removed, to learn whether anything can be.
const PROBE_FILE: &str = "divvy.probe";
/// Its length: more than a write that failed for want of room may have left.
const PROBE_BYTES: u64 = 64 << 10;
/// Pause after the file could not be made: where a quota is used up, the file system shows room that there is not.
const REFILL_PAUSE: Duration = Duration::from_secs(10);

/// The file, and as much space again that new jobs leave free.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    directory: PathBuf,
    /// Size of the file system; 0 where it has no figures.
    total: u64,
    bytes: u64,
    is_held: bool,
    /// Instant of the next attempt to occupy the space, after one that failed.
    next_refill: Option<Instant>,
}

impl Reserve {
    /// Occupies the space if there is enough.
    pub(crate) fn new(directory: &Path) -> Self {
        let (total, _) = room(directory);
        let mut reserve = Self {
            path: directory.join(RESERVE_FILE),
            directory: directory.to_owned(),
            total,
            bytes: (total / PART).min(MAX_BYTES),
            is_held: false,
            next_refill: None,
        };
        // An earlier run may have left a file, perhaps of another length.
        reserve.is_held = fs::metadata(&reserve.path).is_ok_and(|file| file.len() == reserve.bytes);
        reserve.refill(0);
        reserve
    }

    /// Frees the space that an earlier run has kept, for a database that cannot be opened without it. Returns whether there was
    /// any.
    pub(crate) fn give_up(directory: &Path) -> bool {
        let is_removed = fs::remove_file(directory.join(RESERVE_FILE)).is_ok();
        if is_removed {
            tracing::warn!("the disk is full: the database is opened in the room that was kept for changes");
        }
        is_removed
    }

    /// Refuses new jobs while the file is absent, or little space is left beside it, beside what the database is yet to grow by
    /// and beside what the jobs add.
    pub(crate) fn check(&mut self, growth: u64, added: u64) -> Result<(), WriteError> {
        self.refill(growth);
        let free = if self.is_held { room(&self.directory).1 } else { 0 };
        match free.checked_sub(self.bytes.saturating_add(growth)) {
            Some(left) if left >= added => Ok(()),
            Some(_) => Err(WriteError::Full("the disk has no room for a job of this size".to_owned())),
            None => Err(WriteError::Full("the disk is full".to_owned())),
        }
    }

    /// Whether new jobs are refused soon, or already.
    pub(crate) fn is_short(&self) -> bool {
        !self.has_free(self.bytes.saturating_mul(2))
    }

    /// Length of the log from which it is copied back, in bytes: a quarter of the reserve on a small disk.
    pub(crate) fn log_bytes(&self, most: u64) -> u64 {
        if self.total == 0 { most } else { most.min(self.total / LOG_PART) }
    }

    /// Whether so many bytes of the file system are free.
    pub(crate) fn has_free(&self, bytes: u64) -> bool {
        room(&self.directory).1 >= bytes
    }

    /// Whether nothing more can be written: see [`is_used_up`].
    pub(crate) fn is_needed(&self) -> bool {
        is_used_up(&self.directory)
    }

    /// Frees the space for the next writes. Returns whether there was any.
    pub(crate) fn release(&mut self) -> bool {
        let was_held = std::mem::take(&mut self.is_held);
        if was_held {
            tracing::warn!(bytes = self.bytes, "the disk is full: changes go into the room that was kept for them");
        }
        fs::remove_file(&self.path).is_ok() && was_held
    }

    fn refill(&mut self, growth: u64) {
        let is_early = || self.next_refill.is_some_and(|next| Instant::now() < next);
        let needed = self.bytes.saturating_mul(2).saturating_add(growth);
        if self.is_held || room(&self.directory).1 < needed || is_early() {
            return;
        }
        match occupy(&self.path, self.bytes) {
            Ok(()) => (self.is_held, self.next_refill) = (true, None),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "no room can be kept for changes");
                self.next_refill = Some(Instant::now() + REFILL_PAUSE);
                // A part of the file may exist.
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

/// Whether the directory takes no more bytes, though its file system may have some: SQLite tells of a quota that is used up as of
/// any error of I/O.
pub(crate) fn is_used_up(directory: &Path) -> bool {
    let path = directory.join(PROBE_FILE);
    let written = occupy(&path, PROBE_BYTES);
    let _ = fs::remove_file(&path);
    written.is_err_and(|error| is_want_of_room(&error))
}

fn is_want_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes every byte: a file system need not reserve space for a file with holes.
fn occupy(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let block = vec![0xFF; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(block.len() as u64);
        file.write_all(&block[..part as usize])?;
        left -= part;
    }
    File::sync_all(&file)
}

/// Size of a directory's file system and the free part of it for this process, in bytes. A size of 0 means that the file system
/// has no figures. May block as long as the file system does.
#[cfg(unix)]
#[must_use]
pub fn room(directory: &Path) -> (u64, u64) {
    // A file system without figures counts as one with space.
    rustix::fs::statvfs(directory).map_or((0, u64::MAX), |stat| {
        (stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize))
    })
}

/// Size of a directory's file system and the free part of it for this process, in bytes. A size of 0 means that the file system
/// has no figures.
#[cfg(not(unix))]
#[must_use]
pub fn room(_: &Path) -> (u64, u64) {
    (0, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_quota_is_want_of_room_and_a_limit_of_file_lengths_is_not() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        assert!(is_want_of_room(&error(rustix::io::Errno::DQUOT)));
        assert!(is_want_of_room(&error(rustix::io::Errno::NOSPC)));
        assert!(!is_want_of_room(&error(rustix::io::Errno::FBIG)));
        assert!(!is_want_of_room(&error(rustix::io::Errno::IO)));
    }

    #[test]
    fn a_look_whether_anything_can_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("room");
        assert!(!is_used_up(directory.path()));
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0);
        assert!(!is_used_up(&directory.path().join("absent")), "that is another error");
    }

    #[test]
    fn room_that_cannot_be_taken_up_is_not_tried_for_again_at_once() {
        let directory = tempfile::tempdir().expect("room");
        // A directory in the place of the file.
        fs::create_dir(directory.path().join(RESERVE_FILE)).expect("room");
        let mut reserve = Reserve::new(directory.path());
        assert!(reserve.next_refill.is_some(), "{reserve:?}");
        reserve.next_refill = Some(Instant::now() + Duration::from_hours(1));
        assert_eq!(reserve.check(0, 0), Err(WriteError::Full("the disk is full".to_owned())));
        fs::remove_dir(directory.path().join(RESERVE_FILE)).expect("it is there");
        assert!(reserve.check(0, 0).is_err(), "the pause has not ended");
        reserve.next_refill = Some(Instant::now());
        assert_eq!(reserve.check(0, 0), Ok(()));
    }

    #[test]
    fn new_jobs_leave_room_for_the_copy_of_the_log_and_for_themselves() {
        let directory = tempfile::tempdir().expect("room");
        let mut reserve = Reserve::new(directory.path());
        let full = |text: &str| Err(WriteError::Full(text.to_owned()));
        assert_eq!(reserve.check(0, u64::MAX), full("the disk has no room for a job of this size"));
        assert_eq!(reserve.check(u64::MAX, 0), full("the disk is full"));
    }

    #[test]
    fn a_small_disk_has_a_short_log() {
        let directory = tempfile::tempdir().expect("room");
        let mut reserve = Reserve::new(directory.path());
        for (total, expected) in [(8 << 20, 128 << 10), (1 << 40, 16 << 20), (0, 16 << 20)] {
            reserve.total = total;
            assert_eq!(reserve.log_bytes(16 << 20), expected, "{total}");
        }
    }
}
