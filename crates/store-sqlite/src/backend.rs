//! The writing half: each batch is a transaction that begins with the fence.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use store::backend::{Applied, Backend, BatchError};
use store::rules::Ledgers;
use store::statistics::Tally;
use store::{Answer, Batch, Entry, Epoch, WriteError};
use uuid::Uuid;

use crate::column::{self, Column};
use crate::error::{OpenError, batch_error};
use crate::file::OpenFile;
use crate::log::{self, LogFile};
use crate::open::{BUSY_TIMEOUT, Opened};
use crate::reserve::Reserve;
use crate::{apply, statistics, vacuum};

/// Bytes of pages in the log from which it is copied back; a shorter log is copied back while nothing is written. On a small disk
/// fewer: a log that needs more room in the database than is left can be neither copied back nor shortened.
const LOG_BYTES: u64 = 4096 * PAGE_SIZE;
/// Pages in the log, 64 MiB, from which it is begun anew. While a reader sees an old state, SQLite begins the log anew only
/// after the reader has ended, and not while other readers come.
const LONG_LOG_PAGES: i64 = 16_384;
/// Bytes of a page.
const PAGE_SIZE: u64 = 4096;
/// A page in the log, with its header.
const PAGE_BYTES: u64 = PAGE_SIZE + 24;
/// Free pages that are kept for later rows, unless room is short.
const KEPT_PAGES: i64 = 256;
/// Time for which the writer waits for readers to release the log.
const READERS_PATIENCE: Duration = Duration::from_millis(100);
/// Pauses between attempts to begin the log anew: each attempt may take [`READERS_PATIENCE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct SqliteBackend {
    db: Connection,
    file: OpenFile,
    log_file: LogFile,
    reserve: Reserve,
    /// Whether the last look found no room for new jobs.
    is_refusing: bool,
    ledgers: Ledgers<i64>,
    /// The last batch that was committed, with its answers.
    last: Option<(u64, Applied)>,
    epoch: Epoch,
    log: LogState,
    // Dropped last: the directory is in use until all connections are closed.
    _lock: File,
}

/// Begins an epoch: batches of an earlier owner are refused from here on. Returns the epoch with the store's own id.
pub(crate) fn next_epoch(db: &Connection) -> rusqlite::Result<(Epoch, Uuid)> {
    let sql = "UPDATE fence SET epoch = epoch + 1, batch = 0 RETURNING epoch, store";
    db.query_row(sql, [], |row| Ok((Epoch(column::count(row, 0)?), column::uuid(row, 1)?)))
}

impl SqliteBackend {
    pub(crate) fn new(opened: Opened, epoch: Epoch) -> Result<Self, OpenError> {
        let Opened { db, path, lock } = opened;
        let reserve = Reserve::new(path.parent().unwrap_or(Path::new(".")));
        let not_writable = |cause| OpenError::NotWritable { path: path.clone(), cause };
        let file = OpenFile::new(&path).map_err(not_writable)?;
        let log_file = LogFile::of(&path).map_err(not_writable)?;
        Ok(Self {
            db,
            file,
            log_file,
            reserve,
            is_refusing: false,
            ledgers: Ledgers::default(),
            last: None,
            epoch,
            log: LogState::default(),
            _lock: lock,
        })
    }

    fn transact(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let failed = |error: rusqlite::Error| batch_error(&error, None);
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        self.pass_fence(batch)?;
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.entries.len());
        let mut tally = Tally::default();
        for (index, entry) in batch.entries.iter().enumerate() {
            let answer = apply::apply(&self.db, &mut self.ledgers, &mut tally, entry);
            answers.push(answer.map_err(|error| batch_error(&error, Some(index)))?);
        }
        apply::store_touched(&self.db, &mut self.ledgers).map_err(failed)?;
        statistics::add(&self.db, &tally).map_err(failed)?;
        let latest_event = apply::latest_event(&self.db).map_err(failed)?;
        self.db.execute_batch("COMMIT").map_err(failed)?;
        Ok(Applied { answers, latest_event })
    }

    fn commit(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let applied = match self.transact(batch) {
            Ok(applied) => applied,
            Err(error) => {
                self.roll_back();
                let error = self.explained(error);
                let is_full = matches!(&error, BatchError::RolledBack(WriteError::Full(_)));
                // A log that cannot grow, as by a limit of file lengths, may begin anew.
                if matches!(&error, BatchError::RolledBack(WriteError::Unavailable(_))) {
                    self.shorten_log();
                }
                // There is more room at most once.
                return if is_full && self.make_room(batch) { self.commit(batch) } else { Err(error) };
            }
        };
        self.ledgers.keep();
        self.last = Some((batch.id, applied.clone()));
        // The file may have been replaced meanwhile: acknowledged changes would be lost in the old file.
        self.file.check().map_err(BatchError::Unknown)?;
        Ok(applied)
    }

    /// The error of a batch, which is that of a full disk where a quota is used up.
    fn explained(&self, error: BatchError) -> BatchError {
        let may_be_full = matches!(&error, BatchError::RolledBack(WriteError::Unavailable(_)));
        if may_be_full && self.reserve.is_needed() {
            return BatchError::RolledBack(WriteError::Full("the disk is full".to_owned()));
        }
        error
    }

    /// Lets the batch that follows the last one of the current epoch pass.
    fn pass_fence(&self, batch: &Batch) -> Result<(), BatchError> {
        let failed = |error: rusqlite::Error| batch_error(&error, None);
        let sql = "UPDATE fence SET batch = ?2 WHERE epoch = ?1 AND batch = ?2 - 1";
        let mut pass = self.db.prepare_cached(sql).map_err(failed)?;
        if pass.execute((batch.epoch.0.column(), batch.id.column())).map_err(failed)? == 1 {
            return Ok(());
        }
        let sql = "SELECT epoch, batch FROM fence";
        let read = |row: &rusqlite::Row<'_>| Ok((Epoch(column::count(row, 0)?), column::count(row, 1)?));
        let (current, last) = self.db.query_row(sql, [], read).map_err(failed)?;
        if current != batch.epoch {
            return Err(BatchError::Superseded { current });
        }
        let reason = format!("batch {} cannot follow batch {last}", batch.id);
        Err(BatchError::Deterministic { entry: None, reason })
    }

    fn roll_back(&mut self) {
        self.ledgers.forget();
        // SQLite has rolled back already after some errors.
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll a transaction back");
        }
    }

    /// Frees the room of the log and, if the batch is for existing jobs, the room that is kept for them. Returns whether there
    /// was any.
    fn make_room(&mut self, batch: &Batch) -> bool {
        let is_released = !batch.entries.iter().any(Entry::is_new) && self.reserve.release();
        self.shorten_log();
        is_released
    }

    /// Copies the log into the database and cuts it off, if the disk has room for that. Otherwise only cuts off what a failed
    /// batch has left at its end.
    fn shorten_log(&self) {
        if let Err(error) = self.cut_log() {
            tracing::debug!(%error, "the end of the write-ahead log is not cut off");
        }
        if !self.can_copy_log() {
            return;
        }
        let shortened = self.db.busy_timeout(READERS_PATIENCE).and_then(|()| self.wal_checkpoint("TRUNCATE"));
        let restored = self.db.busy_timeout(BUSY_TIMEOUT);
        if let Err(error) = shortened.and(restored) {
            tracing::debug!(%error, "the write-ahead log is not shortened");
        }
    }

    /// Cuts off the frames behind the last commit, which a failed batch has left: see [`LogFile::cut`]. SQLite has no other way
    /// beside a reader: it begins a log anew, or shortens it (`journal_size_limit`, `wal_checkpoint(TRUNCATE)`), only after the
    /// reader has ended and the whole log is copied back, for which these frames may have left no room.
    fn cut_log(&self) -> rusqlite::Result<()> {
        let version = || self.db.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0));
        let (before, counted) = (version()?, self.wal_checkpoint("NOOP")?);
        // A count is negative while another program writes or repairs the log's index.
        let Ok(frames) = u64::try_from(counted.all) else { return Ok(()) };
        let end = log::end(frames, vacuum::page_size(&self.db)?);
        if self.log_file.length() <= end {
            return Ok(());
        }
        // No frames can be counted within a transaction. The version is another one after any change of the log's index by another
        // program since before the count.
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        if version().is_ok_and(|now| now == before)
            && let Err(error) = self.log_file.cut(end)
        {
            tracing::debug!(%error, "cannot cut the write-ahead log");
        }
        self.db.execute_batch("ROLLBACK")
    }

    /// The bytes by which a copy of the log lengthens the database.
    fn growth(&self) -> u64 {
        vacuum::bytes(&self.db).map_or(0, |bytes| bytes.saturating_sub(self.file.length()))
    }

    /// Whether the disk has room for a copy of the log. A copy that stops halfway takes the room from the changes that come next,
    /// and gives none of the log back.
    fn can_copy_log(&self) -> bool {
        self.reserve.has_free(self.growth())
    }

    /// Whether the log may be shortened to make room for new jobs, about once a second.
    fn may_shorten_log(&mut self) -> bool {
        let now = Instant::now();
        let is_early = self.log.next_shortening.is_some_and(|next| now < next);
        if is_early || self.log_file.length() == 0 {
            return false;
        }
        self.log.next_shortening = Some(now + FIRST_PAUSE);
        true
    }

    /// Gives some free pages to the file system. Returns whether there are more.
    fn give_pages_back(&self, is_short: bool) -> bool {
        let log_pages = (self.reserve.log_bytes(LOG_BYTES) / PAGE_SIZE).max(1).cast_signed();
        let kept = if is_short { 0 } else { KEPT_PAGES.min(log_pages) };
        match vacuum::give_back(&self.db, kept, 2 * log_pages) {
            Ok(more) => more,
            // The next change finds that the disk is full, too.
            Err(error) if is_short => {
                tracing::debug!(%error, "cannot give free pages back");
                self.shorten_log();
                false
            }
            Err(error) => {
                tracing::warn!(%error, "cannot give free pages back");
                false
            }
        }
    }

    fn checkpoint(&self) {
        if !self.can_copy_log() {
            return;
        }
        if let Err(error) = self.wal_checkpoint("PASSIVE") {
            tracing::warn!(%error, "cannot copy the write-ahead log back");
        }
    }

    fn wal_checkpoint(&self, mode: &str) -> rusqlite::Result<LogPages> {
        let mut pragma = self.db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        pragma.query_row([], |row| {
            let (all, copied): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(LogPages { is_held: row.get::<_, i64>(0)? != 0, all, uncopied: all - copied })
        })
    }

    /// Begins a long log anew.
    fn restart_long_log(&mut self, now: Instant) {
        if self.log.pages < LONG_LOG_PAGES {
            self.log.pause = FIRST_PAUSE;
            self.log.warned_pages = 0;
            return;
        }
        if self.log.next_attempt.is_some_and(|next| now < next) || !self.can_copy_log() {
            return;
        }
        let restarted = self.db.busy_timeout(READERS_PATIENCE).and_then(|()| self.wal_checkpoint("TRUNCATE"));
        let restored = self.db.busy_timeout(BUSY_TIMEOUT);
        match restarted.and_then(|log| restored.map(|()| log)) {
            Ok(log) if log.is_held => {
                self.log.next_attempt = Some(now + self.log.pause);
                self.log.pause = (self.log.pause * 2).min(LAST_PAUSE);
                if log.all >= 2 * self.log.warned_pages {
                    self.log.warned_pages = log.all;
                    tracing::warn!(
                        bytes = self.log_bytes(),
                        "a reader of the database has not ended: the write-ahead log grows until it does"
                    );
                }
            }
            Ok(log) => self.log.pages = log.all,
            Err(error) => tracing::warn!(%error, "cannot begin the write-ahead log anew"),
        }
    }
}

/// Result of a checkpoint.
struct LogPages {
    /// Whether a reader has kept the log from being copied or begun anew.
    is_held: bool,
    all: i64,
    /// Pages of the log that are not copied back.
    uncopied: i64,
}

/// The log at the last checkpoint.
#[derive(Debug)]
struct LogState {
    pages: i64,
    /// Its length at the last warning.
    warned_pages: i64,
    /// Instant of the next attempt to begin the log anew.
    next_attempt: Option<Instant>,
    /// Instant from which the log may be shortened again for new jobs.
    next_shortening: Option<Instant>,
    pause: Duration,
}

impl Default for LogState {
    fn default() -> Self {
        Self { pages: 0, warned_pages: 0, next_attempt: None, next_shortening: None, pause: FIRST_PAUSE }
    }
}

impl Backend for SqliteBackend {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let last = self.last.as_ref().filter(|(id, _)| *id == batch.id && batch.epoch == self.epoch);
        let Some((_, applied)) = last else {
            self.file.check().map_err(BatchError::RolledBack)?;
            return self.commit(batch);
        };
        // The batch is committed to the file that was opened, which may have come back.
        self.file.check().map_err(BatchError::Unknown)?;
        Ok(applied.clone())
    }

    fn maintain(&mut self, is_idle: bool) -> bool {
        let uncopied = self.wal_checkpoint("NOOP").map_or(0, |log| {
            self.log.pages = log.all;
            log.uncopied
        });
        self.restart_long_log(Instant::now());
        // Where room is short, the work that makes room is due at once.
        let is_short = self.is_refusing || self.reserve.is_short();
        if !is_idle && !is_short {
            if uncopied.unsigned_abs() * PAGE_SIZE >= self.reserve.log_bytes(LOG_BYTES) {
                self.checkpoint();
            }
            return uncopied > 0;
        }
        let gives_back = self.give_pages_back(is_short);
        self.checkpoint();
        gives_back
    }

    fn log_bytes(&self) -> u64 {
        self.log.pages.unsigned_abs() * PAGE_BYTES
    }

    fn check(&mut self) -> Result<(), WriteError> {
        self.file.check()
    }

    fn has_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        // The rows with their pages, in the log and then in the database.
        let added = bytes.saturating_mul(5) / 2;
        // The database grows by no more pages than the log has: usually enough is left.
        let mut room = self.reserve.check(self.log_bytes(), added);
        if room.is_err() {
            room = self.reserve.check(self.growth(), added);
        }
        if room.is_err() && self.may_shorten_log() {
            self.shorten_log();
            room = self.reserve.check(self.growth(), added);
        }
        self.is_refusing = room.is_err();
        room
    }
}

#[cfg(test)]
mod tests;
