//! Rows of programs, and of the stderr of programs. A submission locks the rows of its programs against a transaction that
//! deletes one, also of another coordinator.

use std::collections::HashSet;
use std::ops::Range;

use model::{AttemptId, JobId, JobKind, ProgramHash, needs_program, uploaded_programs};
use store::retention::log_bytes;
use store::{Answer, Entry, ProgramChange, ProgramRecord, TaskLog, Unreadable, in_use};
use tokio_postgres::Row;

use crate::error::DbError;
use crate::link::{Link, Param, Step};
use crate::rows::{self, Column};

const PUT: &str = "INSERT INTO programs (sha256, bytes, kind, uploaded_at, uploaded_by) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT DO NOTHING";
const LOCK: &str = "SELECT 1 FROM programs WHERE sha256 = $1 FOR UPDATE";
const USERS: &str = "SELECT id, params FROM jobs WHERE kind = $1 AND state IN ('queued', 'running', 'paused')";
const DELETE: &str = "DELETE FROM programs WHERE sha256 = $1";
const HOLD: &str = "SELECT sha256 FROM programs WHERE sha256 = ANY($1) ORDER BY sha256 FOR SHARE";
const ONE: &str = "SELECT sha256, bytes, kind, uploaded_at, uploaded_by FROM programs WHERE sha256 = $1";
const PAGE: &str = "SELECT sha256, bytes, kind, uploaded_at, uploaded_by FROM programs WHERE sha256 > $1 \
     ORDER BY sha256 LIMIT $2";
const PUT_LOG: &str = "INSERT INTO logs (job, task, attempt, worker, ended_at, omitted, text) \
     SELECT key, $2, $3, $4, $5, $6, $7 FROM jobs WHERE id = $1 AND NOT EXISTS \
     (SELECT 1 FROM logs WHERE logs.job = jobs.key AND logs.task = $2::bigint AND logs.attempt = $3::uuid)";
/// As [`PUT_LOG`], and the row of the job counts the bytes of a new log.
const PUT_AND_COUNT_LOG: &str = "WITH put AS (INSERT INTO logs (job, task, attempt, worker, ended_at, omitted, text) \
     SELECT key, $2::bigint, $3::uuid, $4::text, $5::bigint, $6::bigint, $7::text FROM jobs WHERE id = $1 AND NOT EXISTS \
     (SELECT 1 FROM logs WHERE logs.job = jobs.key AND logs.task = $2::bigint AND logs.attempt = $3::uuid) RETURNING job) \
     UPDATE jobs SET bytes = bytes + $8::bigint FROM put WHERE jobs.key = put.job";
const LOGS: &str = "SELECT task, attempt, worker, ended_at, omitted, text FROM logs \
     WHERE job = (SELECT key FROM jobs WHERE id = $1) AND task >= $2 AND task < $3 ORDER BY task, seq LIMIT $4";
const LAST_LOGS: &str = "SELECT task, attempt, worker, ended_at, omitted, text FROM logs \
     WHERE job = (SELECT key FROM jobs WHERE id = $1) AND task = $2 ORDER BY seq DESC LIMIT $3";

pub(crate) async fn apply(link: &Link, change: &ProgramChange) -> Result<Answer, DbError> {
    match change {
        ProgramChange::Put(ProgramRecord { hash, bytes, kind, uploaded_at, uploaded_by }) => {
            let sha256 = hash.0.as_slice();
            link.query(PUT, &[&sha256, &bytes.column(), &kind.as_str(), &uploaded_at.column(), uploaded_by]).await?;
            Ok(Answer::Done)
        }
        ProgramChange::Delete(hash) => delete(link, *hash).await,
    }
}

async fn delete(link: &Link, hash: ProgramHash) -> Result<Answer, DbError> {
    let sha256 = hash.0.as_slice();
    // Locked before the jobs are read: a submission of another coordinator is committed by then, or waits.
    if link.query_opt(LOCK, &[&sha256]).await?.is_none() {
        return Ok(Answer::Deleted(0));
    }
    for row in link.query(USERS, &[&JobKind::PROGRAM.as_str()]).await? {
        if needs_program(rows::get(&row, 1)?, hash) {
            return Ok(Answer::Refused(in_use(rows::job_id(&row, 0)?)));
        }
    }
    link.query(DELETE, &[&sha256]).await?;
    Ok(Answer::Deleted(1))
}

/// The programs that the submissions need.
pub(crate) fn needed(entries: &[Entry]) -> HashSet<ProgramHash> {
    let submissions = entries.iter().filter_map(|entry| match entry {
        Entry::Submission(new) => Some(&**new),
        Entry::Advance(advance) => advance.job.as_ref().map(|(new, _)| &**new),
        Entry::Change(_)
        | Entry::Housekeeping(_)
        | Entry::Program(_)
        | Entry::Log(_)
        | Entry::Drain(_)
        | Entry::Nothing => None,
    });
    submissions.flat_map(|new| uploaded_programs(new.kind, new.params.get())).collect()
}

/// The programs of `programs` that exist; they stay until the transaction ends.
pub(crate) async fn hold(link: &Link, programs: &HashSet<ProgramHash>) -> Result<HashSet<ProgramHash>, DbError> {
    let hashes: Vec<&[u8]> = programs.iter().map(|hash| hash.0.as_slice()).collect();
    link.query(HOLD, &[&hashes]).await?.iter().map(|row| hash(row, 0)).collect()
}

/// Keeps a log. The job's row must be written by earlier steps. It counts the log if no ledger does.
pub(crate) fn put_log(log: &TaskLog, is_counted: bool) -> Step<'_> {
    let TaskLog { job, task, attempt, worker, ended_at, omitted_bytes, text } = log;
    // No text of the database has a zero in it.
    let text = text.replace('\0', "\u{fffd}");
    let (task, ended_at, omitted) = (task.column(), ended_at.column(), omitted_bytes.column());
    let mut params: Vec<Param<'_>> = vec![
        Box::new(job.0),
        Box::new(task),
        Box::new(attempt.0),
        Box::new(worker.as_str()),
        Box::new(ended_at),
        Box::new(omitted),
        Box::new(text),
    ];
    if is_counted {
        return Step::Run { sql: PUT_LOG, params };
    }
    params.push(Box::new(log_bytes(log).column()));
    Step::Run { sql: PUT_AND_COUNT_LOG, params }
}

pub(crate) async fn one(link: &Link, hash: ProgramHash) -> Result<Option<ProgramRecord>, DbError> {
    link.query_opt(ONE, &[&hash.0.as_slice()]).await?.as_ref().map(record).transpose()
}

pub(crate) async fn page(
    link: &Link,
    unreadable: &Unreadable,
    after: Option<ProgramHash>,
    limit: usize,
) -> Result<Vec<ProgramRecord>, DbError> {
    let after = after.map(|after| after.0.to_vec()).unwrap_or_default();
    let read = |row: &Row| {
        let hash = hash(row, 0).map(|hash| hash.to_string()).unwrap_or_default();
        unreadable.skip("program", &hash, record(row))
    };
    let mut asked = limit;
    loop {
        let found = link.query(PAGE, &[&after, &(asked as u64).column()]).await?;
        if let Some(page) = rows::page(&found, limit, &mut asked, read) {
            return Ok(page);
        }
    }
}

pub(crate) async fn logs(
    link: &Link,
    unreadable: &Unreadable,
    job: JobId,
    tasks: &Range<u64>,
    limit: usize,
) -> Result<Vec<TaskLog>, DbError> {
    let (first, beyond) = (tasks.start.column(), tasks.end.column());
    let mut asked = limit;
    loop {
        let found = link.query(LOGS, &[&job.0, &first, &beyond, &(asked as u64).column()]).await?;
        let read = |row: &Row| unreadable.skip("log of a job", &job, log(job, row));
        if let Some(page) = rows::page(&found, limit, &mut asked, read) {
            return Ok(page);
        }
    }
}

/// The last logs of a task, in the order in which the attempts ended.
pub(crate) async fn last_logs(
    link: &Link,
    unreadable: &Unreadable,
    job: JobId,
    task: u64,
    limit: usize,
) -> Result<Vec<TaskLog>, DbError> {
    let mut asked = limit;
    loop {
        let found = link.query(LAST_LOGS, &[&job.0, &task.column(), &(asked as u64).column()]).await?;
        let read = |row: &Row| unreadable.skip("log of a job", &job, log(job, row));
        if let Some(mut page) = rows::page(&found, limit, &mut asked, read) {
            page.reverse();
            return Ok(page);
        }
    }
}

fn log(job: JobId, row: &Row) -> Result<TaskLog, DbError> {
    Ok(TaskLog {
        job,
        task: rows::count(row, 0)?,
        attempt: AttemptId(rows::get(row, 1)?),
        worker: rows::get(row, 2)?,
        ended_at: rows::time(row, 3)?,
        omitted_bytes: rows::count(row, 4)?,
        text: rows::get(row, 5)?,
    })
}

fn record(row: &Row) -> Result<ProgramRecord, DbError> {
    Ok(ProgramRecord {
        hash: hash(row, 0)?,
        bytes: rows::count(row, 1)?,
        kind: rows::parse(row, 2)?,
        uploaded_at: rows::time(row, 3)?,
        uploaded_by: rows::get(row, 4)?,
    })
}

fn hash(row: &Row, column: usize) -> Result<ProgramHash, DbError> {
    let bytes: &[u8] = rows::get(row, column)?;
    bytes.try_into().map(ProgramHash).map_err(|_| rows::damaged(row, column, "no SHA-256"))
}
