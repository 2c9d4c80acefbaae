//! Rows of attempts at individual tasks, and blocks of their payloads.

use std::ops::Range;

use model::{AttemptId, JobId};
use rusqlite::{Connection, OptionalExtension, Row};
use store::backend::{Answers, PayloadBlock};
use store::retention::failure_bytes;
use store::rules::{ATTEMPT_TASKS, FailureRow, KeptFailure, omit_failures, pieces};
use store::{Attempt, AttemptEnd, CompletedAttempt, array};

use crate::column::{self, Column};

/// Attempts whose answers are read at once.
const ANSWERS: i64 = 4096;
/// Most bytes of these answers, about.
const ANSWERS_BYTES: usize = 4 * 1024 * 1024;

pub(crate) fn put_completed(
    db: &Connection,
    key: i64,
    tasks: &Range<u64>,
    outcome: &CompletedAttempt,
) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO attempts (job, first, beyond, attempt, worker, allocated_at, running_at, completed_at, results)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut answers = outcome.results.chunks(ATTEMPT_TASKS as usize);
    for piece in pieces(tasks) {
        insert.execute((
            key,
            piece.start.column(),
            piece.end.column(),
            outcome.attempt.0.as_bytes(),
            outcome.worker_column(),
            outcome.allocated_at.column(),
            outcome.running_at.column(),
            outcome.completed_at.column(),
            answers.next().map(array),
        ))?;
    }
    Ok(())
}

/// Writes a failed attempt. Returns the bytes of rows that made room.
pub(crate) fn put_failed(db: &Connection, key: i64, failure: &FailureRow<'_>) -> rusqlite::Result<u64> {
    let mut insert = db.prepare_cached(
        "INSERT INTO attempts (job, first, beyond, worker, error_at, error, failures, given_up)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut freed = 0;
    for piece in pieces(&failure.tasks) {
        let (first, beyond, at) = (piece.start.column(), piece.end.column(), failure.at.column());
        insert.execute((key, first, beyond, failure.worker, at, failure.error, failure.failures, failure.given_up))?;
        freed += delete_omitted(db, key, first)?;
    }
    Ok(freed)
}

/// Deletes the failures between the first and the last ones, and adds their number to the next kept failure.
fn delete_omitted(db: &Connection, key: i64, first: i64) -> rusqlite::Result<u64> {
    let mut select = db.prepare_cached(
        "SELECT rowid, octet_length(worker), octet_length(error), coalesce(omitted, 0) FROM attempts
         WHERE job = ?1 AND first = ?2 AND error_at IS NOT NULL ORDER BY rowid",
    )?;
    let read = |row: &Row<'_>| {
        Ok(KeptFailure {
            row: row.get(0)?,
            bytes: failure_bytes(column::count(row, 1)?, column::count(row, 2)?),
            omitted: column::count(row, 3)?,
        })
    };
    let mut kept = select.query_map((key, first), read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let Some(omitted) = omit_failures(&mut kept) else { return Ok(0) };
    let mut delete = db.prepare_cached("DELETE FROM attempts WHERE rowid = ?1")?;
    for row in &omitted.rows {
        delete.execute([row])?;
    }
    let (next, before) = omitted.next;
    db.prepare_cached("UPDATE attempts SET omitted = ?2 WHERE rowid = ?1")?.execute((next, before.column()))?;
    Ok(omitted.bytes)
}

/// The block that contains the task.
pub(crate) fn payloads(db: &Connection, job: JobId, task: u64) -> rusqlite::Result<Option<PayloadBlock>> {
    let mut select = db.prepare_cached(
        "SELECT first, beyond, list FROM payloads WHERE job = (SELECT key FROM jobs WHERE id = ?1) AND first <= ?2
         ORDER BY first DESC LIMIT 1",
    )?;
    let read = |row: &Row<'_>| {
        let tasks = column::count(row, 0)?..column::count(row, 1)?;
        Ok(PayloadBlock { tasks, payloads: column::json(row, 2)? })
    };
    select.query_row((job.0.as_bytes(), task.column()), read).optional()
}

/// Every attempt that touches one of the tasks, by first task, then in the order in which they ended.
pub(crate) fn attempts(db: &Connection, job: JobId, tasks: &Range<u64>) -> rusqlite::Result<Vec<Attempt>> {
    let mut select = db.prepare_cached(
        "SELECT first, beyond, worker, attempt, allocated_at, running_at, completed_at, results, error_at, error,
         failures, given_up, omitted FROM attempts WHERE job = (SELECT key FROM jobs WHERE id = ?1)
         AND first > ?2 AND first < ?3 AND beyond > ?4 ORDER BY first, rowid",
    )?;
    // No row begins further back.
    let from = tasks.start.column() - ATTEMPT_TASKS as i64;
    let rows = select.query_map((job.0.as_bytes(), from, tasks.end.column(), tasks.start.column()), attempt)?;
    rows.collect()
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let end = match column::optional_time(row, 6)? {
        Some(completed_at) => AttemptEnd::Completed {
            attempt: AttemptId(column::uuid(row, 3)?),
            allocated_at: column::time(row, 4)?,
            running_at: column::time(row, 5)?,
            completed_at,
            results: if row.get_ref(7)?.as_str_or_null()?.is_some() { column::json(row, 7)? } else { Vec::new() },
        },
        None => AttemptEnd::Failed {
            at: column::time(row, 8)?,
            error: row.get(9)?,
            failures: row.get(10)?,
            given_up: row.get(11)?,
            omitted: row.get::<_, Option<i64>>(12)?.unwrap_or(0).unsigned_abs(),
        },
    };
    Ok(Attempt { tasks: column::count(row, 0)?..column::count(row, 1)?, worker: row.get(2)?, end })
}

/// Some answers from task `next` on, in order.
pub(crate) fn answers(db: &Connection, job: JobId, next: u64) -> rusqlite::Result<Vec<Answers>> {
    let mut select = db.prepare_cached(
        "SELECT first, beyond, results FROM attempts WHERE job = (SELECT key FROM jobs WHERE id = ?1)
         AND first >= ?2 AND completed_at IS NOT NULL ORDER BY first LIMIT ?3",
    )?;
    let mut rows = select.query((job.0.as_bytes(), next.column(), ANSWERS))?;
    let (mut some, mut bytes) = (Vec::new(), 0);
    while bytes < ANSWERS_BYTES
        && let Some(row) = rows.next()?
    {
        let tasks = column::count(row, 0)?..column::count(row, 1)?;
        let json: Option<String> = row.get(2)?;
        bytes += json.as_ref().map_or(0, String::len);
        some.push(Answers { tasks, json });
    }
    Ok(some)
}
