//! One change after another, inside the writer's transaction. Whatever is refused is refused before anything was written.

use std::ops::Range;

use jiff::Timestamp;
use model::{EventKind, JobState};
use rusqlite::Connection;

use crate::change::{Change, Outcome, ResultBody};
use crate::column::Column;
use crate::json::array;
use crate::ledger::{Ledger, Ledgers};
use crate::queue::{Done, Work};
use crate::{retention, submit};

/// Most tasks in one row of attempts, so that a search by task knows how far back to look.
pub(crate) const ATTEMPT_TASKS: u64 = 1024;
/// What a row takes up beside its texts, about.
const ROW_BYTES: u64 = 100;

pub(crate) fn apply(db: &Connection, ledgers: &mut Ledgers, work: &Work) -> rusqlite::Result<Done> {
    match work {
        Work::Submit(job) => submit::insert(db, job),
        Work::Change(change) => {
            let is_retry = matches!(change, Change::Retried { .. });
            match ledgers.find(db, change.job(), is_retry)? {
                Some(ledger) => apply_change(db, ledger, change),
                None => Ok(Done::Changed),
            }
        }
        Work::Barrier => Ok(Done::Changed),
        Work::Doom(keys) => {
            // It looks at rows, so what is known must be in them, and must be read again if they go.
            ledgers.store(db)?;
            ledgers.forget();
            retention::doom(db, keys).map(Done::Rows)
        }
        Work::Sweep(key) => retention::sweep(db, *key).map(Done::Rows),
    }
}

fn apply_change(db: &Connection, job: &mut Ledger, change: &Change) -> rusqlite::Result<Done> {
    match change {
        Change::Started { at, .. } => started(db, job, *at),
        Change::Paused { at, .. } => {
            if job.state == JobState::Paused {
                return Ok(Done::Changed);
            }
            job.state = JobState::Paused;
            event(db, job, EventKind::Paused, *at, None)
        }
        Change::Resumed { at, .. } => {
            if job.state != JobState::Paused {
                return Ok(Done::Changed);
            }
            job.state = going_on(job);
            event(db, job, EventKind::Resumed, *at, None)
        }
        Change::Canceled { at, .. } => end(db, job, JobState::Canceled, *at, None),
        Change::Completed { tasks, value, outcome, .. } => completed(db, job, tasks, *value, outcome.as_ref()),
        Change::AttemptFailed { tasks, failures, at, worker, error, .. } => {
            failed(db, job, &Failure { tasks, failures: *failures, at: *at, worker, error, given_up: false })
        }
        Change::TasksFailed { tasks, failures, at, worker, error, .. } => {
            failed(db, job, &Failure { tasks, failures: *failures, at: *at, worker, error, given_up: true })
        }
        Change::Progress { at, .. } => event(db, job, EventKind::Progress, *at, None),
        Change::Retried { at, .. } => retried(db, job, *at),
        Change::Ended { state, result, error, at, .. } => {
            if !state.is_over() {
                return Ok(Done::Refused(format!("a job cannot end as {state}")));
            }
            if *state == JobState::Succeeded && job.done.tasks() != job.tasks {
                let (done, tasks) = (job.done.tasks(), job.tasks);
                return Ok(Done::Refused(format!("{done} of {tasks} tasks are done: the job has not succeeded")));
            }
            if let Some(result) = result {
                put_result(db, job, result)?;
            }
            end(db, job, *state, *at, error.as_deref())
        }
    }
}

fn going_on(job: &Ledger) -> JobState {
    if job.started_at.is_some() { JobState::Running } else { JobState::Queued }
}

fn started(db: &Connection, job: &mut Ledger, at: Timestamp) -> rusqlite::Result<Done> {
    if job.started_at.is_some() {
        return Ok(Done::Changed);
    }
    job.started_at = Some(at);
    if job.state == JobState::Queued {
        job.state = JobState::Running;
    }
    event(db, job, EventKind::Started, at, None)
}

/// What is wrong with the tasks that a change names.
fn check(job: &Ledger, tasks: &Range<u64>) -> Option<Done> {
    let refused = |what: &str| Some(Done::Refused(format!("tasks {} to {} {what}", tasks.start, tasks.end)));
    if tasks.is_empty() || tasks.end > job.tasks {
        return refused("are not tasks of the job");
    }
    if job.done.overlaps(tasks) {
        return refused("are done in part");
    }
    if job.failed.overlaps(tasks) {
        return refused("are out of attempts in part");
    }
    None
}

fn completed(
    db: &Connection,
    job: &mut Ledger,
    tasks: &Range<u64>,
    value: u128,
    outcome: Option<&Outcome>,
) -> rusqlite::Result<Done> {
    if let Some(refused) = check(job, tasks) {
        return Ok(refused);
    }
    let Some(sum) = job.value.checked_add(value) else {
        return Ok(Done::Refused("the job's value is beyond 2^128".to_owned()));
    };
    if let Some(outcome) = outcome {
        let answers = outcome.results.len();
        if answers != 0 && answers as u64 != tasks.end - tasks.start {
            return Ok(Done::Refused(format!("{answers} results for tasks {} to {}", tasks.start, tasks.end)));
        }
        job.bytes += put_outcome(db, job.key, tasks, outcome)?;
    }
    job.value = sum;
    job.retries.remove(tasks);
    job.done.insert(tasks.clone(), 0);
    Ok(Done::Changed)
}

fn put_outcome(db: &Connection, job: i64, tasks: &Range<u64>, outcome: &Outcome) -> rusqlite::Result<u64> {
    let mut insert = db.prepare_cached(
        "INSERT INTO attempts (job, first, beyond, attempt, worker, allocated_at, running_at, completed_at, results)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut answers = outcome.results.chunks(ATTEMPT_TASKS as usize);
    let mut bytes = 0;
    for piece in pieces(tasks) {
        let results = answers.next().map(array);
        bytes += ROW_BYTES + results.as_ref().map_or(0, |results| results.len() as u64);
        insert.execute((
            job,
            piece.start.column(),
            piece.end.column(),
            outcome.attempt.0.as_bytes(),
            &outcome.worker,
            outcome.allocated_at.column(),
            outcome.running_at.column(),
            outcome.completed_at.column(),
            results,
        ))?;
    }
    Ok(bytes)
}

fn pieces(tasks: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = tasks.end;
    (tasks.start..end).step_by(ATTEMPT_TASKS as usize).map(move |first| first..end.min(first + ATTEMPT_TASKS))
}

struct Failure<'a> {
    tasks: &'a Range<u64>,
    failures: u32,
    at: Timestamp,
    worker: &'a str,
    error: &'a str,
    given_up: bool,
}

fn failed(db: &Connection, job: &mut Ledger, failure: &Failure<'_>) -> rusqlite::Result<Done> {
    if let Some(refused) = check(job, failure.tasks) {
        return Ok(refused);
    }
    if job.is_individual {
        job.bytes += put_failure(db, job.key, failure)?;
    }
    if !failure.given_up {
        job.retries.insert(failure.tasks.clone(), failure.failures);
        return Ok(Done::Changed);
    }
    job.retries.remove(failure.tasks);
    job.failed.insert(failure.tasks.clone(), 0);
    event(db, job, EventKind::TaskFailed, failure.at, Some(failure.error))
}

fn put_failure(db: &Connection, job: i64, failure: &Failure<'_>) -> rusqlite::Result<u64> {
    let mut insert = db.prepare_cached(
        "INSERT INTO attempts (job, first, beyond, worker, error_at, error, failures, given_up)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut bytes = 0;
    for piece in pieces(failure.tasks) {
        bytes += ROW_BYTES + failure.error.len() as u64;
        let (first, beyond, at) = (piece.start.column(), piece.end.column(), failure.at.column());
        insert.execute((job, first, beyond, failure.worker, at, failure.error, failure.failures, failure.given_up))?;
    }
    Ok(bytes)
}

fn retried(db: &Connection, job: &mut Ledger, at: Timestamp) -> rusqlite::Result<Done> {
    if job.state == JobState::Succeeded {
        return Ok(Done::Changed);
    }
    if job.state.is_over() {
        job.state = going_on(job);
    }
    job.failed.clear();
    job.retries.clear();
    job.finished_at = None;
    job.error = None;
    drop_result(db, job)?;
    event(db, job, EventKind::Retried, at, None)
}

fn end(
    db: &Connection,
    job: &mut Ledger,
    state: JobState,
    at: Timestamp,
    error: Option<&str>,
) -> rusqlite::Result<Done> {
    job.state = state;
    job.finished_at = Some(at);
    job.error = error.map(str::to_owned);
    let kind = match state {
        JobState::Succeeded => EventKind::Succeeded,
        JobState::Canceled => EventKind::Canceled,
        JobState::Queued | JobState::Running | JobState::Paused | JobState::Failed => EventKind::Failed,
    };
    event(db, job, kind, at, error)
}

fn drop_result(db: &Connection, job: &mut Ledger) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM results WHERE job = ?1 RETURNING bytes")?;
    let mut rows = delete.query([job.key])?;
    while let Some(row) = rows.next()? {
        job.bytes = job.bytes.saturating_sub(crate::column::count(row, 0)?);
    }
    Ok(())
}

fn put_result(db: &Connection, job: &mut Ledger, result: &ResultBody) -> rusqlite::Result<()> {
    drop_result(db, job)?;
    let mut insert =
        db.prepare_cached("INSERT INTO results (job, json, object, bytes, sha256) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let bytes = match result {
        ResultBody::Inline(json) => {
            let bytes = json.get().len() as u64;
            insert.execute((job.key, json.get(), None::<&str>, bytes.column(), None::<&[u8]>))?;
            bytes
        }
        ResultBody::Object(object) => {
            insert.execute((job.key, None::<&str>, &object.name, object.bytes.column(), object.sha256.as_slice()))?;
            object.bytes
        }
    };
    job.bytes += bytes;
    Ok(())
}

fn event(
    db: &Connection,
    job: &mut Ledger,
    kind: EventKind,
    at: Timestamp,
    error: Option<&str>,
) -> rusqlite::Result<Done> {
    put_event(db, job.key, kind, at, (job.done.tasks(), job.tasks), error)?;
    job.bytes += ROW_BYTES + error.map_or(0, |error| error.len() as u64);
    Ok(Done::Changed)
}

pub(crate) fn put_event(
    db: &Connection,
    job: i64,
    kind: EventKind,
    at: Timestamp,
    (done, total): (u64, u64),
    error: Option<&str>,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO events (job, kind, at, tasks_done, tasks_total, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((job, kind.as_str(), at.column(), done.column(), total.column(), error))?;
    Ok(())
}

/// The newest event's number; it stays when the event itself is gone.
pub(crate) fn latest_event(db: &Connection) -> rusqlite::Result<u64> {
    let mut select = db.prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'")?;
    select.query_row([], |row| crate::column::count(row, 0))
}
