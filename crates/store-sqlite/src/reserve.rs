//! Disk space that is kept for changes of existing jobs: a file that occupies it until nothing else is left. New jobs are
//! refused before, so that jobs can be canceled and pruned on a full disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use store::WriteError;

const RESERVE_FILE: &str = "divvy.reserve";
/// Largest size of the file: some thousand changes.
const MAX_BYTES: u64 = 16 << 20;
/// Share of a small disk that the file occupies.
const PART: u64 = 16;

/// The file, and as much space again that new jobs leave free.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    directory: PathBuf,
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    /// Occupies the space if there is enough.
    pub(crate) fn new(directory: &Path) -> Self {
        let (total, _) = room(directory);
        let mut reserve = Self {
            path: directory.join(RESERVE_FILE),
            directory: directory.to_owned(),
            bytes: (total / PART).min(MAX_BYTES),
            is_held: false,
        };
        // An earlier run may have left a file, perhaps of another length.
        reserve.is_held = fs::metadata(&reserve.path).is_ok_and(|file| file.len() == reserve.bytes);
        reserve.refill();
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

    /// Refuses new jobs while the file is absent, or little space is left beside it.
    pub(crate) fn check(&mut self) -> Result<(), WriteError> {
        self.refill();
        if self.is_held && room(&self.directory).1 >= self.bytes {
            return Ok(());
        }
        Err(WriteError::Full("the disk is full".to_owned()))
    }

    /// Whether so many bytes of the file system are free.
    pub(crate) fn has_free(&self, bytes: u64) -> bool {
        room(&self.directory).1 >= bytes
    }

    /// Frees the space for the next writes. Returns whether there was any.
    pub(crate) fn release(&mut self) -> bool {
        let was_held = std::mem::take(&mut self.is_held);
        if was_held {
            tracing::warn!(bytes = self.bytes, "the disk is full: changes go into the room that was kept for them");
        }
        fs::remove_file(&self.path).is_ok() && was_held
    }

    fn refill(&mut self) {
        if self.is_held || room(&self.directory).1 < self.bytes.saturating_mul(2) {
            return;
        }
        match self.take_up() {
            Ok(()) => self.is_held = true,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "no room can be kept for changes");
                // A part of the file may exist.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Writes every byte: a file system need not reserve space for a file with holes.
    fn take_up(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&self.path)?;
        let block = vec![0xFF; 64 * 1024];
        let mut left = self.bytes;
        while left > 0 {
            let part = left.min(block.len() as u64);
            file.write_all(&block[..part as usize])?;
            left -= part;
        }
        File::sync_all(&file)
    }
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
