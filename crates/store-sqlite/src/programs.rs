//! Rows of programs, and of the stderr of programs.

use std::ops::Range;

use model::{AttemptId, JobId, JobKind, JobState, ProgramHash, needs_program};
use rusqlite::{Connection, OptionalExtension, Row};
use store::stored::StoredName;
use store::{Answer, ProgramChange, ProgramRecord, TaskLog, Unreadable, in_use};

use crate::column::{self, Column};

const COLUMNS: &str = "sha256, bytes, kind, uploaded_at, uploaded_by";

pub(crate) fn apply(db: &Connection, change: &ProgramChange) -> rusqlite::Result<Answer> {
    match change {
        ProgramChange::Put(record) => put(db, record).map(|()| Answer::Done),
        ProgramChange::Delete(hash) => delete(db, *hash),
    }
}

fn put(db: &Connection, record: &ProgramRecord) -> rusqlite::Result<()> {
    let ProgramRecord { hash, bytes, kind, uploaded_at, uploaded_by } = record;
    let sql = format!("INSERT OR IGNORE INTO programs ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5)");
    let mut insert = db.prepare_cached(&sql)?;
    insert.execute((hash.0.as_slice(), bytes.column(), kind.as_str(), uploaded_at.column(), uploaded_by))?;
    Ok(())
}

/// The caller has written the touched ledgers before.
fn delete(db: &Connection, hash: ProgramHash) -> rusqlite::Result<Answer> {
    if let Some(job) = find_user(db, hash)? {
        return Ok(Answer::Refused(in_use(job)));
    }
    let mut delete = db.prepare_cached("DELETE FROM programs WHERE sha256 = ?1")?;
    Ok(Answer::Deleted(delete.execute([hash.0.as_slice()])? as u64))
}

/// A job that is not over and needs the program.
fn find_user(db: &Connection, hash: ProgramHash) -> rusqlite::Result<Option<JobId>> {
    let mut select = db.prepare_cached("SELECT id, params FROM jobs WHERE state = ?1 AND kind = ?2")?;
    for state in JobState::ALL.into_iter().filter(|state| !state.is_over()) {
        let mut rows = select.query((state.stored_name(), JobKind::PROGRAM.as_str()))?;
        while let Some(row) = rows.next()? {
            if needs_program(row.get_ref(1)?.as_str()?, hash) {
                return column::job_id(row, 0).map(Some);
            }
        }
    }
    Ok(None)
}

pub(crate) fn is_there(db: &Connection, hash: ProgramHash) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM programs WHERE sha256 = ?1")?.exists([hash.0.as_slice()])
}

pub(crate) fn one(db: &Connection, hash: ProgramHash) -> rusqlite::Result<Option<ProgramRecord>> {
    let mut select = db.prepare_cached(&format!("SELECT {COLUMNS} FROM programs WHERE sha256 = ?1"))?;
    select.query_row([hash.0.as_slice()], record).optional()
}

pub(crate) fn page(
    db: &Connection,
    unreadable: &Unreadable,
    after: Option<ProgramHash>,
    limit: usize,
) -> rusqlite::Result<Vec<ProgramRecord>> {
    let after = after.map(|after| after.0.to_vec()).unwrap_or_default();
    let sql = format!("SELECT {COLUMNS} FROM programs WHERE sha256 > ?1 ORDER BY sha256");
    let mut select = db.prepare_cached(&sql)?;
    column::readable(&mut select.query([after])?, limit, |row| {
        let hash = row.get(0).map(|hash| ProgramHash(hash).to_string()).unwrap_or_default();
        column::skip(unreadable, "program", &hash, record(row))
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<ProgramRecord> {
    Ok(ProgramRecord {
        hash: ProgramHash(row.get(0)?),
        bytes: column::count(row, 1)?,
        kind: column::parse(row, 2)?,
        uploaded_at: column::time(row, 3)?,
        uploaded_by: row.get(4)?,
    })
}

/// Keeps a log. Returns whether it is new and its job exists.
pub(crate) fn put_log(db: &Connection, log: &TaskLog) -> rusqlite::Result<bool> {
    let TaskLog { job, task, attempt, worker, ended_at, omitted_bytes, text } = log;
    let mut insert = db.prepare_cached(
        "INSERT INTO logs (job, task, attempt, worker, ended_at, omitted, text)
         SELECT key, ?2, ?3, ?4, ?5, ?6, ?7 FROM jobs WHERE id = ?1 AND NOT EXISTS
             (SELECT 1 FROM logs WHERE logs.job = jobs.key AND logs.task = ?2 AND logs.attempt = ?3)",
    )?;
    let put = insert.execute((
        job.0.as_bytes(),
        task.column(),
        attempt.0.as_bytes(),
        worker,
        ended_at.column(),
        omitted_bytes.column(),
        text,
    ))?;
    Ok(put > 0)
}

pub(crate) fn logs(
    db: &Connection,
    unreadable: &Unreadable,
    job: JobId,
    tasks: &Range<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<TaskLog>> {
    let mut select = db.prepare_cached(
        "SELECT task, attempt, worker, ended_at, omitted, text FROM logs
         WHERE job = (SELECT key FROM jobs WHERE id = ?1) AND task >= ?2 AND task < ?3 ORDER BY task, rowid",
    )?;
    let mut rows = select.query((job.0.as_bytes(), tasks.start.column(), tasks.end.column()))?;
    column::readable(&mut rows, limit, |row| column::skip(unreadable, "log of a job", &job, log(job, row)))
}

/// The last logs of a task, in the order in which the attempts ended.
pub(crate) fn last_logs(
    db: &Connection,
    unreadable: &Unreadable,
    job: JobId,
    task: u64,
    limit: usize,
) -> rusqlite::Result<Vec<TaskLog>> {
    let mut select = db.prepare_cached(
        "SELECT task, attempt, worker, ended_at, omitted, text FROM logs
         WHERE job = (SELECT key FROM jobs WHERE id = ?1) AND task = ?2 ORDER BY rowid DESC",
    )?;
    let mut rows = select.query((job.0.as_bytes(), task.column()))?;
    let mut logs =
        column::readable(&mut rows, limit, |row| column::skip(unreadable, "log of a job", &job, log(job, row)))?;
    logs.reverse();
    Ok(logs)
}

fn log(job: JobId, row: &Row<'_>) -> rusqlite::Result<TaskLog> {
    Ok(TaskLog {
        job,
        task: column::count(row, 0)?,
        attempt: AttemptId(column::uuid(row, 1)?),
        worker: row.get(2)?,
        ended_at: column::time(row, 3)?,
        omitted_bytes: column::count(row, 4)?,
        text: row.get(5)?,
    })
}
