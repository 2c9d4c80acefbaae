//! The writing half: each batch is a transaction that begins with the fence.

use std::fs::File;

use rusqlite::Connection;
use store::backend::{Applied, Backend, BatchError};
use store::rules::Ledgers;
use store::statistics::Tally;
use store::{Answer, Batch, Epoch, WriteError};
use uuid::Uuid;

use crate::column::{self, Column};
use crate::error::{OpenError, batch_error};
use crate::file::OpenFile;
use crate::open::Opened;
use crate::{apply, statistics, vacuum};

/// The log is copied back when it has so many pages of 4 KiB, else while nothing is written.
const LOG_PAGES: i64 = 4096;

#[derive(Debug)]
pub(crate) struct SqliteBackend {
    db: Connection,
    file: OpenFile,
    ledgers: Ledgers<i64>,
    /// The last batch that was committed, with its answers.
    last: Option<(u64, Applied)>,
    epoch: Epoch,
    // Last: the directory is in use until all else is closed.
    _lock: File,
}

/// Begins an epoch: what an earlier owner sends is refused from here on. With the store's own id.
pub(crate) fn next_epoch(db: &Connection) -> rusqlite::Result<(Epoch, Uuid)> {
    let sql = "UPDATE fence SET epoch = epoch + 1, batch = 0 RETURNING epoch, store";
    db.query_row(sql, [], |row| Ok((Epoch(column::count(row, 0)?), column::uuid(row, 1)?)))
}

impl SqliteBackend {
    pub(crate) fn new(opened: Opened, epoch: Epoch) -> Result<Self, OpenError> {
        let Opened { db, path, lock } = opened;
        let file = OpenFile::new(&path).map_err(|source| OpenError::NotWritable { path, source })?;
        Ok(Self { db, file, ledgers: Ledgers::default(), last: None, epoch, _lock: lock })
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
                return Err(error);
            }
        };
        self.ledgers.keep();
        self.last = Some((batch.id, applied.clone()));
        // The file may have been replaced meanwhile: nobody would find there what is acknowledged.
        self.file.check().map_err(BatchError::Unknown)?;
        Ok(applied)
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
        // Some errors have rolled back already.
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll a transaction back");
        }
    }

    fn checkpoint(&self) {
        if let Err(error) = self.wal_checkpoint("PASSIVE") {
            tracing::warn!(%error, "cannot copy the write-ahead log back");
        }
    }

    /// Pages in the log that are not copied back.
    fn wal_checkpoint(&self, mode: &str) -> rusqlite::Result<i64> {
        let mut pragma = self.db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        pragma.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
    }
}

impl Backend for SqliteBackend {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        let last = self.last.as_ref().filter(|(id, _)| *id == batch.id && batch.epoch == self.epoch);
        let Some((_, applied)) = last else {
            self.file.check().map_err(BatchError::RolledBack)?;
            return self.commit(batch);
        };
        // It is committed to the file that was opened, which may have come back.
        self.file.check().map_err(BatchError::Unknown)?;
        Ok(applied.clone())
    }

    fn maintain(&mut self, is_idle: bool) -> bool {
        let log_pages = self.wal_checkpoint("NOOP").unwrap_or(0);
        if !is_idle {
            if log_pages >= LOG_PAGES {
                self.checkpoint();
            }
            return log_pages > 0;
        }
        let gives_back = vacuum::give_back(&self.db).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot give free pages back");
            false
        });
        self.checkpoint();
        gives_back
    }

    fn check(&mut self) -> Result<(), WriteError> {
        self.file.check()
    }
}
