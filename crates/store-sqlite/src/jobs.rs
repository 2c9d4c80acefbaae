//! Reading jobs: one, a page, those that are not over, and their events.

use std::collections::HashMap;

use model::{JobEvent, JobId};
use rusqlite::{Connection, OptionalExtension, Row};
use store::rules::SpanKind;
use store::stored::{options_from_stored, values_from_stored};
use store::{JobRecord, UnfinishedJob, Verified};

use crate::column::{self, Column};
use crate::ledger::span_kind;
use crate::positions;

/// What [`record`] reads.
pub(crate) const RECORD: &str = "jobs.id, jobs.kind, jobs.params, jobs.options, jobs.state, jobs.tasks, \
     jobs.tasks_done, jobs.tasks_failed, jobs.value, jobs.submitted_at, jobs.started_at, jobs.finished_at, jobs.error, \
     jobs.retried_at, jobs.attempts, jobs.verified";
/// As a set of keys, which SQLite goes through in the order of the table, so that it reads no page twice. The parameter
/// names no job.
const UNFINISHED: &str = "(SELECT key FROM jobs WHERE state IN ('queued', 'running', 'paused') AND ?1 IS NULL)";
/// The same of the jobs whose ids are in a JSON array, as hexadecimal digits.
const SOME_UNFINISHED: &str = "(SELECT key FROM jobs WHERE id IN (SELECT unhex(value) FROM json_each(?1)) \
                               AND state IN ('queued', 'running', 'paused'))";

pub(crate) fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let (value, check) = column::stored(row, 8, values_from_stored)?;
    Ok(JobRecord {
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
    })
}

pub(crate) fn one(db: &Connection, job: JobId) -> rusqlite::Result<Option<JobRecord>> {
    let mut select = db.prepare_cached(&format!("SELECT {RECORD} FROM jobs WHERE id = ?1"))?;
    select.query_row([job.0.as_bytes()], record).optional()
}

/// How the verification of the newest jobs has gone.
pub(crate) fn verified(db: &Connection, limit: usize) -> rusqlite::Result<Vec<Verified>> {
    let mut select =
        db.prepare_cached("SELECT verified FROM jobs WHERE verified IS NOT NULL ORDER BY key DESC LIMIT ?1")?;
    select.query_map([(limit as u64).column()], |row| column::verified(row, 0))?.collect()
}

/// All jobs that are not over, or those of them that are named.
pub(crate) fn unfinished(db: &Connection, only: Option<&[JobId]>) -> rusqlite::Result<Vec<UnfinishedJob>> {
    let keys = if only.is_some() { SOME_UNFINISHED } else { UNFINISHED };
    let only = only.map(|jobs| {
        let digits: Vec<_> = jobs.iter().map(|job| job.0.simple().to_string()).collect();
        serde_json::json!(digits).to_string()
    });
    // One transaction, so that spans and jobs are of the same moment.
    let transaction = db.unchecked_transaction()?;
    let mut jobs = Vec::new();
    let mut places = HashMap::new();
    let mut select = transaction.prepare(&format!("SELECT {RECORD}, key FROM jobs WHERE key IN {keys}"))?;
    let mut rows = select.query([&only])?;
    while let Some(row) = rows.next()? {
        let record = record(row)?;
        places.insert(row.get::<_, i64>(16)?, jobs.len());
        jobs.push(UnfinishedJob { record, done: Vec::new(), failed: Vec::new(), retries: Vec::new() });
    }
    let mut select =
        transaction.prepare(&format!("SELECT job, what, first, beyond, failures FROM spans WHERE job IN {keys}"))?;
    let mut rows = select.query([&only])?;
    while let Some(row) = rows.next()? {
        let Some(job) = places.get(&row.get(0)?).and_then(|&place: &usize| jobs.get_mut(place)) else { continue };
        let tasks = column::count(row, 2)?..column::count(row, 3)?;
        match span_kind(row, 1)? {
            SpanKind::Done => job.done.push(tasks),
            SpanKind::Failed => job.failed.push(tasks),
            SpanKind::Retry => job.retries.push((tasks, row.get(4)?)),
        }
    }
    jobs.iter_mut().for_each(UnfinishedJob::add_failed_to_done);
    jobs.sort_unstable_by_key(|job| (job.record.submitted_at, job.record.id));
    Ok(jobs)
}

const EVENT: &str = "seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error, jobs.kind, jobs.task, \
                     counts, source";

pub(crate) fn events(db: &Connection, after: u64, job: Option<JobId>, limit: usize) -> rusqlite::Result<Vec<JobEvent>> {
    let of_one = if job.is_some() { "events.job = (SELECT key FROM jobs WHERE id = ?3) AND" } else { "?3 IS NULL AND" };
    let mut select = db.prepare_cached(&format!(
        "SELECT {EVENT} FROM events CROSS JOIN jobs ON jobs.key = events.job WHERE {of_one} seq > ?1 ORDER BY seq LIMIT ?2"
    ))?;
    let rows = select.query_map((after.column(), (limit as u64).column(), job.map(|job| *job.0.as_bytes())), event)?;
    rows.collect()
}

/// The newest first.
pub(crate) fn last_events(db: &Connection, job: JobId, limit: usize) -> rusqlite::Result<Vec<JobEvent>> {
    let mut select = db.prepare_cached(&format!(
        "SELECT {EVENT} FROM events CROSS JOIN jobs ON jobs.key = events.job
         WHERE events.job = (SELECT key FROM jobs WHERE id = ?1) ORDER BY seq DESC LIMIT ?2"
    ))?;
    let rows = select.query_map((*job.0.as_bytes(), (limit as u64).column()), event)?;
    rows.collect()
}

fn event(row: &Row<'_>) -> rusqlite::Result<JobEvent> {
    Ok(JobEvent {
        seq: column::count(row, 0)?,
        job: column::job_id(row, 1)?,
        kind: column::name(row, 2)?,
        at: column::time(row, 3)?,
        job_kind: Some(column::parse(row, 7)?),
        task: row.get(8)?,
        tasks_done: Some(column::count(row, 4)?),
        tasks_total: Some(column::count(row, 5)?),
        error: row.get(6)?,
        source: positions::source(row, 10)?,
        counts: Box::new(column::counts(row, 9)?),
    })
}
