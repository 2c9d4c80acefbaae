//! Reading jobs: one, a page, those that are not over, and their events.

use std::collections::HashMap;

use model::{EventKind, JobEvent, JobId, JobKind, JobWork};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::column::{self, Column};
use crate::error::ReadError;
use crate::ledger::{DONE, FAILED, RETRY};
use crate::record::{JobRecord, UnfinishedJob};

/// What [`record`] reads.
pub(crate) const RECORD: &str = "jobs.id, jobs.kind, jobs.params, jobs.options, jobs.state, jobs.tasks, \
     jobs.tasks_done, jobs.tasks_failed, jobs.value, jobs.submitted_at, jobs.started_at, jobs.finished_at, jobs.error";
/// As a set of keys, which SQLite goes through in the order of the table, so that it reads no page twice. The parameter
/// names no job.
const UNFINISHED: &str = "(SELECT key FROM jobs WHERE state IN ('queued', 'running', 'paused') AND ?1 IS NULL)";
/// The same of one job.
const ONE_UNFINISHED: &str = "(SELECT key FROM jobs WHERE id = ?1 AND state IN ('queued', 'running', 'paused'))";

pub(crate) fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord {
        id: column::job_id(row, 0)?,
        kind: column::parse(row, 1)?,
        params: column::raw_json(row, 2)?,
        options: column::json(row, 3)?,
        state: column::parse(row, 4)?,
        tasks: column::count(row, 5)?,
        tasks_done: column::count(row, 6)?,
        tasks_failed: column::count(row, 7)?,
        value: column::parse(row, 8)?,
        submitted_at: column::time(row, 9)?,
        started_at: column::optional_time(row, 10)?,
        finished_at: column::optional_time(row, 11)?,
        error: row.get(12)?,
    })
}

pub(crate) fn one(db: &Connection, job: JobId) -> Result<Option<JobRecord>, ReadError> {
    let mut select = db.prepare_cached(&format!("SELECT {RECORD} FROM jobs WHERE id = ?1"))?;
    Ok(select.query_row([job.0.as_bytes()], record).optional()?)
}

/// All jobs that are not over, or one of them.
pub(crate) fn unfinished(db: &Connection, only: Option<JobId>) -> Result<Vec<UnfinishedJob>, ReadError> {
    let keys = if only.is_some() { ONE_UNFINISHED } else { UNFINISHED };
    let only = only.map(|job| *job.0.as_bytes());
    // One transaction, so that spans and jobs are of the same moment.
    let transaction = db.unchecked_transaction()?;
    let mut jobs = Vec::new();
    let mut places = HashMap::new();
    let mut select = transaction.prepare(&format!("SELECT {RECORD}, work, key FROM jobs WHERE key IN {keys}"))?;
    let mut rows = select.query([only])?;
    while let Some(row) = rows.next()? {
        let record = record(row)?;
        let work = work(record.kind, row, 13)?;
        places.insert(row.get::<_, i64>(14)?, jobs.len());
        jobs.push(UnfinishedJob { record, work, done: Vec::new(), failed: Vec::new(), retries: Vec::new() });
    }
    let mut select =
        transaction.prepare(&format!("SELECT job, what, first, beyond, failures FROM spans WHERE job IN {keys}"))?;
    let mut rows = select.query([only])?;
    while let Some(row) = rows.next()? {
        let Some(job) = places.get(&row.get(0)?).and_then(|&place: &usize| jobs.get_mut(place)) else { continue };
        let tasks = column::count(row, 2)?..column::count(row, 3)?;
        match row.get(1)? {
            DONE => job.done.push(tasks),
            FAILED => job.failed.push(tasks),
            RETRY => job.retries.push((tasks, row.get(4)?)),
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other).into()),
        }
    }
    jobs.iter_mut().filter(|job| !job.failed.is_empty()).for_each(add_failed);
    jobs.sort_unstable_by_key(|job| (job.record.submitted_at, job.record.id));
    Ok(jobs)
}

/// Counts the tasks that are out of attempts as done, too.
fn add_failed(job: &mut UnfinishedJob) {
    job.done.extend_from_slice(&job.failed);
    job.done.sort_unstable_by_key(|tasks| tasks.start);
    job.done.dedup_by(|next, last| {
        let are_one = next.start == last.end;
        if are_one {
            last.end = next.end;
        }
        are_one
    });
}

fn work(kind: JobKind, row: &Row<'_>, index: usize) -> rusqlite::Result<JobWork> {
    Ok(match kind {
        JobKind::SumOfPrimes => JobWork::SumOfPrimes(column::json(row, index)?),
        JobKind::CountPrimes => JobWork::CountPrimes(column::json(row, index)?),
        JobKind::Sleep => JobWork::Sleep(column::json(row, index)?),
        JobKind::Tasks => JobWork::Tasks { count: column::json(row, index)? },
    })
}

pub(crate) fn events(
    db: &Connection,
    after: u64,
    job: Option<JobId>,
    limit: usize,
) -> Result<Vec<JobEvent>, ReadError> {
    let of_one = if job.is_some() { "events.job = (SELECT key FROM jobs WHERE id = ?3) AND" } else { "?3 IS NULL AND" };
    let mut select = db.prepare_cached(&format!(
        "SELECT seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error
         FROM events CROSS JOIN jobs ON jobs.key = events.job WHERE {of_one} seq > ?1 ORDER BY seq LIMIT ?2"
    ))?;
    let rows = select.query_map((after.column(), (limit as u64).column(), job.map(|job| *job.0.as_bytes())), event)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn event(row: &Row<'_>) -> rusqlite::Result<JobEvent> {
    let kind = row.get_ref(2)?.as_str()?;
    let kind = EVENT_KINDS.into_iter().find(|known| known.as_str() == kind);
    Ok(JobEvent {
        seq: column::count(row, 0)?,
        job: column::job_id(row, 1)?,
        kind: kind.ok_or_else(|| rusqlite::Error::InvalidColumnName("kind".to_owned()))?,
        at: column::time(row, 3)?,
        tasks_done: Some(column::count(row, 4)?),
        tasks_total: Some(column::count(row, 5)?),
        error: row.get(6)?,
    })
}

const EVENT_KINDS: [EventKind; 10] = [
    EventKind::Submitted,
    EventKind::Started,
    EventKind::Progress,
    EventKind::Paused,
    EventKind::Resumed,
    EventKind::Retried,
    EventKind::TaskFailed,
    EventKind::Succeeded,
    EventKind::Failed,
    EventKind::Canceled,
];
