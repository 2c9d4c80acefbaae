//! What the writer knows of the jobs that it changes: read once, then kept while they are not over.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use model::{JobId, JobKind, JobState};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::column::{self, Column};
use crate::spans::Spans;

/// What a span of tasks is, as it is stored.
pub(crate) const DONE: i64 = 0;
pub(crate) const FAILED: i64 = 1;
pub(crate) const RETRY: i64 = 2;

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) key: i64,
    pub(crate) is_individual: bool,
    pub(crate) state: JobState,
    pub(crate) tasks: u64,
    pub(crate) value: u128,
    pub(crate) bytes: u64,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) error: Option<String>,
    pub(crate) done: Spans,
    pub(crate) failed: Spans,
    pub(crate) retries: Spans,
}

impl Ledger {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key: row.get(0)?,
            is_individual: [JobKind::Tasks.as_str(), JobKind::Sleep.as_str()].contains(&row.get_ref(1)?.as_str()?),
            state: column::parse(row, 2)?,
            tasks: column::count(row, 3)?,
            value: column::parse(row, 4)?,
            bytes: column::count(row, 5)?,
            started_at: column::optional_time(row, 6)?,
            finished_at: column::optional_time(row, 7)?,
            error: row.get(8)?,
            done: Spans::default(),
            failed: Spans::default(),
            retries: Spans::default(),
        })
    }

    fn load(db: &Connection, job: JobId, even_over: bool) -> rusqlite::Result<Option<Self>> {
        let mut select = db.prepare_cached(
            "SELECT key, kind, state, tasks, value, bytes, started_at, finished_at, error FROM jobs WHERE id = ?1",
        )?;
        let ledger = select.query_row([job.0.as_bytes()], Self::read).optional()?;
        let Some(mut ledger) = ledger.filter(|ledger| even_over || !ledger.state.is_over()) else { return Ok(None) };
        ledger.load_spans(db)?;
        Ok(Some(ledger))
    }

    fn load_spans(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut select = db.prepare_cached("SELECT what, first, beyond, failures FROM spans WHERE job = ?1")?;
        let mut rows = select.query([self.key])?;
        while let Some(row) = rows.next()? {
            let spans = match row.get(0)? {
                DONE => &mut self.done,
                FAILED => &mut self.failed,
                RETRY => &mut self.retries,
                other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
            };
            spans.load(column::count(row, 1)?, column::count(row, 2)?, row.get(3)?);
        }
        Ok(())
    }

    /// Writes what changed since the last time.
    fn store(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT OR REPLACE INTO spans (job, what, first, beyond, failures) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut delete = db.prepare_cached("DELETE FROM spans WHERE job = ?1 AND what = ?2 AND first = ?3")?;
        for (what, spans) in [(DONE, &mut self.done), (FAILED, &mut self.failed), (RETRY, &mut self.retries)] {
            for (first, span) in spans.take_changed() {
                match span {
                    Some((beyond, failures)) => {
                        put.execute((self.key, what, first.column(), beyond.column(), failures))?
                    }
                    None => delete.execute((self.key, what, first.column()))?,
                };
            }
        }
        db.prepare_cached(
            "UPDATE jobs SET state = ?2, tasks_done = ?3, tasks_failed = ?4, value = ?5, bytes = ?6, started_at = ?7,
             finished_at = ?8, error = ?9 WHERE key = ?1",
        )?
        .execute((
            self.key,
            self.state.as_str(),
            self.done.tasks().column(),
            self.failed.tasks().column(),
            self.value.to_string(),
            self.bytes.column(),
            self.started_at.map(|at| at.column()),
            self.finished_at.map(|at| at.column()),
            &self.error,
        ))?;
        Ok(())
    }
}

/// The ledgers that are known, and which of them the group at hand has touched.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    known: HashMap<JobId, Ledger>,
    touched: HashSet<JobId>,
}

impl Ledgers {
    /// A job to be changed. None where there is no such job, or it is over and that was not asked for.
    pub(crate) fn find(
        &mut self,
        db: &Connection,
        job: JobId,
        even_over: bool,
    ) -> rusqlite::Result<Option<&mut Ledger>> {
        let ledger = match self.known.entry(job) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match Ledger::load(db, job, even_over)? {
                Some(ledger) => place.insert(ledger),
                None => return Ok(None),
            },
        };
        if ledger.state.is_over() && !even_over {
            return Ok(None);
        }
        self.touched.insert(job);
        Ok(Some(ledger))
    }

    /// Writes what the group changed.
    pub(crate) fn store(&mut self, db: &Connection) -> rusqlite::Result<()> {
        for job in &self.touched {
            if let Some(ledger) = self.known.get_mut(job) {
                ledger.store(db)?;
            }
        }
        Ok(())
    }

    /// The group is committed.
    pub(crate) fn keep(&mut self) {
        for job in self.touched.drain() {
            if self.known.get(&job).is_some_and(|ledger| ledger.state.is_over()) {
                self.known.remove(&job);
            }
        }
    }

    /// The group was rolled back: what it touched is read again when it is needed.
    pub(crate) fn forget(&mut self) {
        for job in self.touched.drain() {
            self.known.remove(&job);
        }
    }
}
