//! The reading half.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use model::{AttemptId, Grain, JobEvent, JobId, ProgramHash};
use store::backend::{Answers, PayloadBlock, Reading, Reads, ResultRow, ResultRowBody};
use store::rules::ATTEMPT_TASKS;
use store::statistics::{PendingRow, PeriodKey, PeriodRow, Query, TaskKey, TaskRow};
use store::{
    Attempt, AttemptEnd, Cursor, Drain, JobFilter, JobKey, JobRecord, Position, ProgramRecord, Retention, TaskLog,
    UnfinishedJob, Unreadable, Verified,
};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::error::DbError;
use crate::io::Io;
use crate::link::Link;
use crate::pool::Pool;
use crate::rows::{self, Column};
use crate::target::Target;
use crate::{drains, jobs, listing, positions, programs, statistics};

/// Concurrent reads, most of them short: more would only share the same database, whose connections have a bound.
const READERS: usize = 4;
/// Concurrent lists.
const LISTS: usize = 2;
/// Concurrent reads of payloads.
const PAYLOADS: usize = 1;
/// Most connections of all reads.
pub(crate) const CONNECTIONS: usize = READERS + LISTS + PAYLOADS;
/// Attempts whose answers are read at once.
const ANSWERS: i64 = 512;
/// Most bytes of these answers, about.
const ANSWERS_BYTES: usize = 4 * 1024 * 1024;
/// Jobs that are forgotten at once.
const EXPIRED: i64 = 100_000;
/// Corrects the sum of the bytes of all jobs that are over.
pub(crate) const SUM_UP: &str = "UPDATE finished SET bytes = found.bytes FROM \
     (SELECT coalesce(sum(bytes), 0) AS bytes FROM jobs WHERE finished_at IS NOT NULL) AS found \
     WHERE finished.bytes <> found.bytes";

/// Reads over three pools.
#[derive(Debug)]
pub(crate) struct Readers {
    /// For any other read.
    pub(crate) any: Pool,
    /// For clients' lists and statistics, so that no other read waits behind them.
    lists: Pool,
    /// For payloads, so that a worker never waits behind lists of clients.
    payloads: Pool,
    unreadable: Arc<Unreadable>,
    /// Whether [`sum_up`] has succeeded or takes too long.
    is_summed_up: Arc<AtomicBool>,
}

impl Readers {
    pub(crate) fn new(io: &Arc<Io>, target: &Arc<Target>) -> Self {
        let unreadable = Arc::default();
        let (any, lists) = (Pool::new(io, target, READERS), Pool::new(io, target, LISTS));
        Self { any, lists, payloads: Pool::new(io, target, PAYLOADS), unreadable, is_summed_up: Arc::default() }
    }

    /// Reads a list; rows that cannot be read are noted.
    fn list<T, R, F>(&self, pool: &Pool, read: R) -> Reading<'static, Vec<T>>
    where
        T: Send + 'static,
        R: Fn(Arc<Link>, Arc<Unreadable>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<T>, DbError>> + Send + 'static,
    {
        let unreadable = self.unreadable.clone();
        pool.read(move |link| read(link, unreadable.clone()))
    }
}

impl Reads for Readers {
    fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    fn job(&self, id: JobId) -> Reading<'_, Option<JobRecord>> {
        let reading = self.any.read(move |link| async move { jobs::one(&link, id).await });
        Box::pin(async move { reading.await.map_err(|error| error.of_job(id)) })
    }

    fn jobs(&self, filter: JobFilter, before: Option<Cursor>, limit: usize) -> Reading<'_, Vec<JobRecord>> {
        let filter = Arc::new(filter);
        self.list(&self.lists, move |link, unreadable| {
            let filter = filter.clone();
            async move { listing::page(&link, &unreadable, &filter, before, limit).await }
        })
    }

    fn count(&self, filter: JobFilter, since: Option<Timestamp>) -> Reading<'_, u64> {
        let filter = Arc::new(filter);
        self.lists.read(move |link| {
            let filter = filter.clone();
            async move { listing::count(&link, &filter, since).await }
        })
    }

    fn open_jobs(&self) -> Reading<'_, Vec<JobId>> {
        self.any.read_long(|link| async move { jobs::open(&link).await })
    }

    fn unfinished(&self, jobs: Vec<JobId>) -> Reading<'_, Vec<UnfinishedJob>> {
        let (jobs, unreadable): (Arc<[_]>, _) = (jobs.into_iter().map(|job| job.0).collect(), self.unreadable.clone());
        self.any.read_long(move |link| {
            let (jobs, unreadable) = (jobs.clone(), unreadable.clone());
            async move { jobs::unfinished(&link, &unreadable, &jobs).await }
        })
    }

    fn verified(&self, limit: usize) -> Reading<'_, Vec<Verified>> {
        self.list(&self.any, move |link, unreadable| async move { jobs::verified(&link, &unreadable, limit).await })
    }

    fn attempts(&self, job: JobId, tasks: Range<u64>) -> Reading<'_, Vec<Attempt>> {
        self.any.read(move |link| {
            let tasks = tasks.clone();
            async move { attempts(&link, job, &tasks).await }
        })
    }

    fn payloads(&self, job: JobId, task: u64) -> Reading<'_, Option<PayloadBlock>> {
        self.payloads.read(move |link| async move { payloads(&link, job, task).await })
    }

    fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        self.list(&self.any, move |link, unreadable| async move {
            jobs::events(&link, &unreadable, after, job, limit).await
        })
    }

    fn periods(&self, query: Query, after: Option<PeriodKey>, limit: usize) -> Reading<'_, Vec<PeriodRow>> {
        let query = Arc::new(query);
        self.list(&self.lists, move |link, unreadable| {
            let query = query.clone();
            async move { statistics::periods(&link, &unreadable, &query, after, limit).await }
        })
    }

    fn pending(&self, grain: Grain, before: Timestamp) -> Reading<'_, Vec<PendingRow>> {
        self.list(&self.any, move |link, unreadable| async move {
            statistics::pending(&link, &unreadable, grain, before).await
        })
    }

    fn task_starts(&self, query: Query, after: Option<TaskKey>, limit: usize) -> Reading<'_, Vec<TaskRow>> {
        let asked = Arc::new((query, after));
        self.list(&self.lists, move |link, unreadable| {
            let asked = asked.clone();
            async move { statistics::task_starts(&link, &unreadable, &asked.0, asked.1.as_ref(), limit).await }
        })
    }

    fn last_events(&self, job: JobId, limit: usize) -> Reading<'_, Vec<JobEvent>> {
        self.list(
            &self.any,
            move |link, unreadable| async move { jobs::last_events(&link, &unreadable, job, limit).await },
        )
    }

    fn result(&self, job: JobId) -> Reading<'_, Option<ResultRow>> {
        const SQL: &str = "SELECT id, json, object, sha256, results.bytes FROM jobs JOIN results ON results.job = jobs.key \
             WHERE id = $1";
        self.any.read(move |link| async move { result(link.query_opt(SQL, &[&job.0]).await?) })
    }

    fn result_by_name(&self, output: &str) -> Reading<'_, Option<ResultRow>> {
        const SQL: &str = "SELECT id, json, object, sha256, results.bytes FROM jobs JOIN results ON results.job = jobs.key \
             WHERE output = $1 AND state = 'succeeded' ORDER BY finished_at DESC LIMIT 1";
        let output = output.replace('\0', "");
        self.any.read(move |link| {
            let output = output.clone();
            async move { result(link.query_opt(SQL, &[&output]).await?) }
        })
    }

    fn answers(&self, job: JobId, next: u64) -> Reading<'_, Vec<Answers>> {
        self.any.read(move |link| async move { answers(&link, job, next).await })
    }

    fn program(&self, hash: ProgramHash) -> Reading<'_, Option<ProgramRecord>> {
        self.any.read(move |link| async move { programs::one(&link, hash).await })
    }

    fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Reading<'_, Vec<ProgramRecord>> {
        self.list(
            &self.lists,
            move |link, unreadable| async move { programs::page(&link, &unreadable, after, limit).await },
        )
    }

    fn drains(&self) -> Reading<'_, Vec<Drain>> {
        self.list(&self.any, |link, unreadable| async move { drains::all(&link, &unreadable).await })
    }

    fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        self.list(&self.any, move |link, unreadable| {
            let tasks = tasks.clone();
            async move { programs::logs(&link, &unreadable, job, &tasks, limit).await }
        })
    }

    fn last_logs(&self, job: JobId, task: u64, limit: usize) -> Reading<'_, Vec<TaskLog>> {
        self.list(&self.any, move |link, unreadable| async move {
            programs::last_logs(&link, &unreadable, job, task, limit).await
        })
    }

    fn expired(&self, retention: Retention, now: Timestamp) -> Reading<'_, Vec<(JobKey, u64)>> {
        let is_summed_up = self.is_summed_up.clone();
        self.any.read_long(move |link| {
            let is_summed_up = is_summed_up.clone();
            async move {
                if !is_summed_up.load(Ordering::Relaxed) {
                    let is_over = sum_up(&link).await.map_or_else(|error| is_too_long(&error), |()| true);
                    is_summed_up.store(is_over, Ordering::Relaxed);
                }
                expired(&link, retention, now).await
            }
        })
    }

    fn positions(&self) -> Reading<'_, Vec<(String, Position)>> {
        self.any.read(|link| async move { positions::all(&link).await })
    }

    fn with_events_from(&self, seq: u64, jobs: Vec<JobKey>) -> Reading<'_, Vec<JobKey>> {
        let jobs = Arc::new(jobs);
        self.any.read_long(move |link| {
            let jobs = jobs.clone();
            async move { positions::with_events_from(&link, seq, &jobs).await }
        })
    }

    fn unswept(&self) -> Reading<'_, Vec<(JobKey, JobId)>> {
        const SQL: &str = "SELECT job, id FROM swept ORDER BY job";
        let read = |row: &Row| Ok((JobKey(rows::get(row, 0)?), rows::job_id(row, 1)?));
        self.any.read(move |link| async move { link.query(SQL, &[]).await?.iter().map(read).collect() })
    }

    fn dropped_objects(&self, limit: usize) -> Reading<'_, Vec<String>> {
        const SQL: &str = "SELECT object FROM dropped_objects LIMIT $1";
        let limit = (limit as u64).column();
        self.any.read(move |link| async move { names(&link.query(SQL, &[&limit]).await?) })
    }

    fn named_objects(&self, objects: Vec<String>) -> Reading<'_, Vec<String>> {
        const SQL: &str = "SELECT object FROM results WHERE object = ANY($1::text[])";
        let objects = Arc::new(objects);
        self.any.read(move |link| {
            let objects = objects.clone();
            async move { names(&link.query(SQL, &[&*objects]).await?) }
        })
    }
}

fn names(found: &[Row]) -> Result<Vec<String>, DbError> {
    found.iter().map(|row| rows::get(row, 0)).collect()
}

async fn attempts(link: &Link, job: JobId, tasks: &Range<u64>) -> Result<Vec<Attempt>, DbError> {
    const SQL: &str = "SELECT first, beyond, worker, attempt, allocated_at, running_at, completed_at, results, error_at, \
         error, failures, given_up, omitted FROM attempts WHERE job = (SELECT key FROM jobs WHERE id = $1) \
         AND first > $2 AND first < $3 AND beyond > $4 ORDER BY first, id";
    // No row begins further back.
    let (first, end) = (tasks.start.column(), tasks.end.column());
    let found = link.query(SQL, &[&job.0, &(first - ATTEMPT_TASKS as i64), &end, &first]).await?;
    found.iter().map(attempt).collect()
}

fn attempt(row: &Row) -> Result<Attempt, DbError> {
    let end = match rows::optional_time(row, 6)? {
        Some(completed_at) => AttemptEnd::Completed {
            attempt: AttemptId(rows::get(row, 3)?),
            allocated_at: rows::time(row, 4)?,
            running_at: rows::time(row, 5)?,
            completed_at,
            results: if rows::get::<Option<&str>>(row, 7)?.is_some() { rows::json(row, 7)? } else { Vec::new() },
        },
        None => AttemptEnd::Failed {
            at: rows::time(row, 8)?,
            error: rows::get(row, 9)?,
            failures: rows::small(row, 10)?,
            given_up: rows::get(row, 11)?,
            omitted: rows::get::<Option<i64>>(row, 12)?.unwrap_or(0).unsigned_abs(),
        },
    };
    Ok(Attempt { tasks: rows::count(row, 0)?..rows::count(row, 1)?, worker: rows::get(row, 2)?, end })
}

/// The block that contains the task.
async fn payloads(link: &Link, job: JobId, task: u64) -> Result<Option<PayloadBlock>, DbError> {
    const SQL: &str = "SELECT first, beyond, list FROM payloads WHERE job = (SELECT key FROM jobs WHERE id = $1) \
         AND first <= $2 ORDER BY first DESC LIMIT 1";
    let Some(row) = link.query_opt(SQL, &[&job.0, &task.column()]).await? else { return Ok(None) };
    let tasks = rows::count(&row, 0)?..rows::count(&row, 1)?;
    Ok(Some(PayloadBlock { tasks, payloads: rows::json(&row, 2)? }))
}

fn result(row: Option<Row>) -> Result<Option<ResultRow>, DbError> {
    let Some(row) = row else { return Ok(None) };
    let body = match rows::get(&row, 1)? {
        Some(json) => ResultRowBody::Json(json),
        None => ResultRowBody::Object {
            name: rows::get(&row, 2)?,
            sha256: rows::get(&row, 3)?,
            bytes: rows::count(&row, 4)?,
        },
    };
    Ok(Some(ResultRow { job: rows::job_id(&row, 0)?, body }))
}

/// Some answers from task `next` on, in order, as many as fit into the bound, at least one.
async fn answers(link: &Link, job: JobId, next: u64) -> Result<Vec<Answers>, DbError> {
    const SQL: &str = "SELECT first, beyond, results FROM (SELECT first, beyond, results, \
         sum(coalesce(octet_length(results), 0)) OVER (ORDER BY first) - coalesce(octet_length(results), 0) AS before \
         FROM (SELECT first, beyond, results FROM attempts WHERE job = (SELECT key FROM jobs WHERE id = $1) \
         AND first >= $2 AND completed_at IS NOT NULL ORDER BY first LIMIT $3) AS part) AS sized \
         WHERE before < $4::bigint ORDER BY first";
    let bytes = (ANSWERS_BYTES as u64).column();
    let found = link.query(SQL, &[&job.0, &next.column(), &ANSWERS, &bytes]).await?;
    let read = |row: &Row| Ok(Answers { tasks: rows::count(row, 0)?..rows::count(row, 1)?, json: rows::get(row, 2)? });
    found.iter().map(read).collect()
}

/// Corrects the sum of the bytes of all jobs that are over: the deletion of a damaged row subtracts other bytes than were added
/// for it. Fails without effect if the sum changes meanwhile.
async fn sum_up(link: &Link) -> Result<(), DbError> {
    // A sequential scan is the quickest way through the whole table.
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE; SET LOCAL statement_timeout = '1min'; \
         SET LOCAL enable_seqscan = on";
    // A single message: a process that halts, or is cut off, does not keep the row of the sum locked.
    let summed_up = link.client.batch_execute(&format!("{BEGIN}; {SUM_UP}; COMMIT")).await;
    let Err(error) = summed_up else { return Ok(()) };
    // The next read must find no transaction.
    link.client.batch_execute("ROLLBACK").await?;
    Err(error.into())
}

/// Whether the sum takes too long to be tried again: retention goes on with the kept one.
fn is_too_long(error: &DbError) -> bool {
    tracing::debug!(%error, "cannot sum up the bytes of finished jobs");
    error.is(&SqlState::QUERY_CANCELED)
}

/// Jobs to be forgotten, the first to end in front. Retention must end however many jobs there are.
async fn expired(link: &Link, retention: Retention, now: Timestamp) -> Result<Vec<(JobKey, u64)>, DbError> {
    link.client.batch_execute(jobs::BEGIN).await?;
    let found = expired_in_snapshot(link, retention, now).await;
    // Sent also after an error, so that the next read finds no transaction.
    let ended = link.client.batch_execute("COMMIT").await;
    let found = found?;
    ended?;
    found.iter().map(|row| Ok((JobKey(rows::get(row, 0)?), rows::about(row, 1)?))).collect()
}

async fn expired_in_snapshot(link: &Link, retention: Retention, now: Timestamp) -> Result<Vec<Row>, DbError> {
    const TOTAL: &str = "SELECT greatest(0, least(bytes, 9223372036854775807))::bigint FROM finished";
    const BY_AGE: &str = "SELECT key, bytes FROM jobs WHERE finished_at <= $1 ORDER BY finished_at, key LIMIT $2";
    // Sums up those alone that one call may forget.
    const BY_SIZE: &str = "SELECT key, bytes FROM (SELECT key, bytes, finished_at, \
         sum(bytes) OVER (ORDER BY finished_at, key) - bytes AS before FROM (SELECT key, bytes, finished_at FROM jobs \
         WHERE finished_at IS NOT NULL ORDER BY finished_at, key LIMIT $2) AS oldest) AS over_ \
         WHERE finished_at <= $1 OR before < $3::bigint ORDER BY finished_at, key";
    let total = link.query_opt(TOTAL, &[]).await?;
    let total = total.ok_or_else(|| DbError::Damaged("the sum over the jobs that are over is gone".to_owned()))?;
    let excess = rows::about(&total, 0)?.saturating_sub(retention.max_bytes);
    let oldest = now.checked_sub(retention.max_age).unwrap_or(Timestamp::MIN).column();
    if excess == 0 {
        link.query(BY_AGE, &[&oldest, &EXPIRED]).await
    } else {
        link.query(BY_SIZE, &[&oldest, &EXPIRED, &excess.column()]).await
    }
}
