//! Reads jobs: one, a page, those that are not over, and their events.

use model::{JobEvent, JobId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use store::stored::{options_from_stored, values_from_stored};
use store::{JobRecord, StoredSpan, UnfinishedJob, UnfinishedRows, Unreadable, Verified};

use crate::column::{self, Column};
use crate::error::is_of_a_row;
use crate::ledger::span_kind;
use crate::positions;

/// The columns that [`record`] reads.
pub(crate) const RECORD: &str = "jobs.id, jobs.kind, jobs.params, jobs.options, jobs.state, jobs.tasks, \
     jobs.tasks_done, jobs.tasks_failed, jobs.value, jobs.submitted_at, jobs.started_at, jobs.finished_at, jobs.error, \
     jobs.retried_at, jobs.attempts, jobs.verified";
/// The keys of unfinished jobs whose ids are in a JSON array, as hexadecimal digits. The sign keeps SQLite from going through
/// the index of all unfinished jobs.
const UNFINISHED: &str = "(SELECT key FROM jobs WHERE id IN (SELECT unhex(value) FROM json_each(?1)) \
                          AND +state IN ('queued', 'running', 'paused'))";

pub(crate) fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let (value, check) = column::stored(row, 8, values_from_stored)?;
    let record = JobRecord {
        id: column::job_id(row, 0)?,
        kind: column::parse(row, 1)?,
        params: column::raw_json(row, 2)?,
        options: column::stored(row, 3, options_from_stored)?,
        state: column::name(row, 4)?,
        tasks: column::count(row, 5)?,
        tasks_done: column::count(row, 6)?,
        tasks_failed: column::count(row, 7)?,
        value,
        check,
        submitted_at: column::time(row, 9)?,
        started_at: column::optional_time(row, 10)?,
        finished_at: column::optional_time(row, 11)?,
        error: row.get(12)?,
        retried_at: column::optional_time(row, 13)?,
        attempts: column::count(row, 14)?,
        verified: column::verified(row, 15)?,
    };
    record.checked().map_err(|error| column::wrong(5, Type::Integer, error))
}

pub(crate) fn one(db: &Connection, job: JobId) -> rusqlite::Result<Option<JobRecord>> {
    let mut select = db.prepare_cached(&format!("SELECT {RECORD} FROM jobs WHERE id = ?1"))?;
    select.query_row([job.0.as_bytes()], record).optional()
}

/// Verification of the newest verified jobs.
pub(crate) fn verified(db: &Connection, unreadable: &Unreadable, limit: usize) -> rusqlite::Result<Vec<Verified>> {
    let mut select =
        db.prepare_cached("SELECT verified, key FROM jobs WHERE verified IS NOT NULL ORDER BY key DESC LIMIT ?1")?;
    column::readable(&mut select.query([(limit as u64).column()])?, limit, |row| {
        column::skip(unreadable, "verification of a job", &row.get::<_, i64>(1)?, column::verified(row, 0))
    })
}

/// Every job that is not over.
pub(crate) fn open(db: &Connection) -> rusqlite::Result<Vec<JobId>> {
    let mut select = db.prepare_cached(
        "SELECT id FROM jobs WHERE state IN ('queued', 'running', 'paused') ORDER BY submitted_at, id",
    )?;
    select.query_map([], |row| column::job_id(row, 0))?.collect()
}

/// The jobs of `only` that are not over.
pub(crate) fn unfinished(
    db: &Connection,
    unreadable: &Unreadable,
    only: &[JobId],
) -> rusqlite::Result<Vec<UnfinishedJob>> {
    let digits: Vec<_> = only.iter().map(|job| job.0.simple().to_string()).collect();
    let only = serde_json::json!(digits).to_string();
    // A single transaction, so that spans and jobs are of the same moment.
    let transaction = db.unchecked_transaction()?;
    let mut found = UnfinishedRows::default();
    let mut select =
        transaction.prepare_cached(&format!("SELECT {RECORD}, key FROM jobs WHERE key IN {UNFINISHED}"))?;
    let mut rows = select.query([&only])?;
    while let Some(row) = rows.next()? {
        found.add_job(row.get::<_, i64>(16)?, column::job_id(row, 0)?, of_row(record(row))?);
    }
    let mut select = transaction
        .prepare_cached(&format!("SELECT job, what, first, beyond, failures FROM spans WHERE job IN {UNFINISHED}"))?;
    let mut rows = select.query([&only])?;
    while let Some(row) = rows.next()? {
        found.add_span(&row.get::<_, i64>(0)?, of_row(span(row))?);
    }
    Ok(found.finish(unreadable))
}

/// Separates the error of a row from those of the whole read.
fn of_row<T>(read: rusqlite::Result<T>) -> rusqlite::Result<rusqlite::Result<T>> {
    match read {
        Err(error) if !is_of_a_row(&error) => Err(error),
        read => Ok(read),
    }
}

fn span(row: &Row<'_>) -> rusqlite::Result<StoredSpan> {
    Ok((span_kind(row, 1)?, column::count(row, 2)?..column::count(row, 3)?, row.get(4)?))
}

const EVENT: &str = "seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error, jobs.kind, jobs.task, \
                     counts, source";

pub(crate) fn events(
    db: &Connection,
    unreadable: &Unreadable,
    after: u64,
    job: Option<JobId>,
    limit: usize,
) -> rusqlite::Result<Vec<JobEvent>> {
    let of_one = if job.is_some() { "events.job = (SELECT key FROM jobs WHERE id = ?2) AND" } else { "?2 IS NULL AND" };
    let mut select = db.prepare_cached(&format!(
        "SELECT {EVENT} FROM events CROSS JOIN jobs ON jobs.key = events.job WHERE {of_one} seq > ?1 ORDER BY seq"
    ))?;
    let mut rows = select.query((after.column(), job.map(|job| *job.0.as_bytes())))?;
    column::readable(&mut rows, limit, |row| readable_event(row, unreadable))
}

/// The last events of a job, the newest first.
pub(crate) fn last_events(
    db: &Connection,
    unreadable: &Unreadable,
    job: JobId,
    limit: usize,
) -> rusqlite::Result<Vec<JobEvent>> {
    let mut select = db.prepare_cached(&format!(
        "SELECT {EVENT} FROM events CROSS JOIN jobs ON jobs.key = events.job
         WHERE events.job = (SELECT key FROM jobs WHERE id = ?1) ORDER BY seq DESC"
    ))?;
    column::readable(&mut select.query([*job.0.as_bytes()])?, limit, |row| readable_event(row, unreadable))
}

fn readable_event(row: &Row<'_>, unreadable: &Unreadable) -> rusqlite::Result<Option<JobEvent>> {
    let seq: i64 = row.get(0)?;
    let Some(mut event) = column::skip(unreadable, "event", &seq, event(row))? else { return Ok(None) };
    event.source = column::skip(unreadable, "source of an event", &seq, positions::source(row, 10))?.flatten();
    let counts = column::skip(unreadable, "counts of an event", &seq, column::counts(row, 9))?;
    event.counts = Box::new(counts.unwrap_or_default());
    Ok(Some(event))
}

/// An event without its figures and its source.
fn event(row: &Row<'_>) -> rusqlite::Result<JobEvent> {
    Ok(JobEvent {
        seq: column::count(row, 0)?,
        job: column::job_id(row, 1)?,
        kind: column::name(row, 2)?,
        at: column::time(row, 3)?,
        // The kind of an unreadable job is left out.
        job_kind: column::parse(row, 7).ok(),
        task: row.get(8)?,
        tasks_done: Some(column::count(row, 4)?),
        tasks_total: Some(column::count(row, 5)?),
        error: row.get(6)?,
        source: None,
        counts: Box::default(),
    })
}
