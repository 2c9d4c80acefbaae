//! Reading jobs: one, those that are not over, and their events.

use std::collections::HashMap;

use model::{JobEvent, JobId};
use store::rules::SpanKind;
use store::stored::{options_from_stored, values_from_stored};
use store::{JobRecord, UnfinishedJob, Verified};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::DbError;
use crate::link::{FlightError, Link, Param, Step};
use crate::positions;
use crate::rows::{self, Column};

/// What [`record`] reads.
macro_rules! record_columns {
    () => {
        "jobs.id, jobs.kind, jobs.params, jobs.options, jobs.state, jobs.tasks, jobs.tasks_done, jobs.tasks_failed, \
         jobs.value, jobs.submitted_at, jobs.started_at, jobs.finished_at, jobs.error, jobs.retried_at, jobs.attempts, \
         jobs.verified"
    };
}
pub(crate) const RECORD: &str = record_columns!();

pub(crate) fn record(row: &Row) -> Result<JobRecord, DbError> {
    let (value, check) = rows::stored(row, 8, values_from_stored)?;
    Ok(JobRecord {
        id: rows::job_id(row, 0)?,
        kind: rows::parse(row, 1)?,
        params: rows::raw_json(row, 2)?,
        options: rows::stored(row, 3, options_from_stored)?,
        state: rows::name(row, 4)?,
        tasks: rows::count(row, 5)?,
        tasks_done: rows::count(row, 6)?,
        tasks_failed: rows::count(row, 7)?,
        value,
        check,
        submitted_at: rows::time(row, 9)?,
        started_at: rows::optional_time(row, 10)?,
        finished_at: rows::optional_time(row, 11)?,
        error: rows::get(row, 12)?,
        retried_at: rows::optional_time(row, 13)?,
        attempts: rows::count(row, 14)?,
        verified: rows::verified(row, 15)?,
    })
}

pub(crate) async fn one(link: &Link, job: JobId) -> Result<Option<JobRecord>, DbError> {
    const SQL: &str = concat!("SELECT ", record_columns!(), " FROM jobs WHERE id = $1");
    link.query_opt(SQL, &[&job.0]).await?.as_ref().map(record).transpose()
}

/// How the verification of the newest jobs has gone.
pub(crate) async fn verified(link: &Link, limit: usize) -> Result<Vec<Verified>, DbError> {
    const SQL: &str = "SELECT verified FROM jobs WHERE verified IS NOT NULL ORDER BY key DESC LIMIT $1";
    let limit = (limit as u64).column();
    link.query(SQL, &[&limit]).await?.iter().map(|row| rows::verified(row, 0)).collect()
}

/// All jobs that are not over, or those of them that are named.
pub(crate) async fn unfinished(link: &Link, only: Option<&[Uuid]>) -> Result<Vec<UnfinishedJob>, DbError> {
    const JOBS: &str = concat!(
        "SELECT ",
        record_columns!(),
        " FROM jobs WHERE state IN ('queued', 'running', 'paused') ORDER BY submitted_at, id"
    );
    const SOME: &str = concat!(
        "SELECT ",
        record_columns!(),
        " FROM jobs WHERE jobs.id = ANY($1::uuid[]) AND state IN ('queued', 'running', 'paused') ORDER BY submitted_at, id"
    );
    const SPANS: &str = "SELECT jobs.id, what, first, beyond, failures FROM jobs JOIN spans ON spans.job = jobs.key \
         WHERE state IN ('queued', 'running', 'paused') ORDER BY spans.job, what, first";
    const SPANS_OF_SOME: &str = "SELECT jobs.id, what, first, beyond, failures FROM jobs JOIN spans ON spans.job = jobs.key \
         WHERE jobs.id = ANY($1::uuid[]) AND state IN ('queued', 'running', 'paused') ORDER BY spans.job, what, first";
    let (jobs, spans) = if only.is_some() { (SOME, SPANS_OF_SOME) } else { (JOBS, SPANS) };
    let question = |sql| Step::Run { sql, params: only.iter().map(|jobs| Box::new(*jobs) as Param<'_>).collect() };
    // One snapshot, so that spans and jobs are of the same moment.
    let mut steps = vec![Step::Plain("BEGIN ISOLATION LEVEL REPEATABLE READ")];
    if only.is_none() {
        // However many there are, no coordinator leads without them.
        steps.push(Step::Plain("SET LOCAL statement_timeout = 0"));
    }
    let first = steps.len();
    steps.extend([question(jobs), question(spans), Step::Plain("COMMIT")]);
    let answers = match link.fly(steps).await {
        Ok(answers) => answers,
        Err(FlightError { error, .. }) => return Err(error),
    };
    read_unfinished(&answers[first], &answers[first + 1])
}

fn read_unfinished(jobs: &[Row], spans: &[Row]) -> Result<Vec<UnfinishedJob>, DbError> {
    let mut found = Vec::with_capacity(jobs.len());
    let mut places = HashMap::with_capacity(jobs.len());
    for row in jobs {
        let record = record(row)?;
        places.insert(record.id, found.len());
        found.push(UnfinishedJob { record, done: Vec::new(), failed: Vec::new(), retries: Vec::new() });
    }
    for row in spans {
        let job = places.get(&rows::job_id(row, 0)?).and_then(|&place: &usize| found.get_mut(place));
        let Some(job): Option<&mut UnfinishedJob> = job else { continue };
        let tasks = rows::count(row, 2)?..rows::count(row, 3)?;
        match rows::span_kind(row, 1)? {
            SpanKind::Done => job.done.push(tasks),
            SpanKind::Failed => job.failed.push(tasks),
            SpanKind::Retry => job.retries.push((tasks, rows::small(row, 4)?)),
        }
    }
    found.iter_mut().for_each(UnfinishedJob::add_failed_to_done);
    Ok(found)
}

pub(crate) async fn events(
    link: &Link,
    after: u64,
    job: Option<JobId>,
    limit: usize,
) -> Result<Vec<JobEvent>, DbError> {
    const ALL: &str = "SELECT seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error, \
         jobs.kind, jobs.task, counts, source FROM events \
         JOIN jobs ON jobs.key = events.job WHERE seq > $1 ORDER BY seq LIMIT $2";
    const OF_ONE: &str = "SELECT seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error, \
         jobs.kind, jobs.task, counts, source FROM jobs \
         JOIN events ON events.job = jobs.key WHERE jobs.id = $3 AND seq > $1 ORDER BY seq LIMIT $2";
    let (after, limit) = (after.column(), (limit as u64).column());
    let found = match job {
        None => link.query(ALL, &[&after, &limit]).await?,
        Some(job) => link.query(OF_ONE, &[&after, &limit, &job.0]).await?,
    };
    found.iter().map(event).collect()
}

/// The newest first.
pub(crate) async fn last_events(link: &Link, job: JobId, limit: usize) -> Result<Vec<JobEvent>, DbError> {
    const LAST: &str = "SELECT seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error, \
         jobs.kind, jobs.task, counts, source FROM jobs \
         JOIN events ON events.job = jobs.key WHERE jobs.id = $1 ORDER BY seq DESC LIMIT $2";
    let found = link.query(LAST, &[&job.0, &(limit as u64).column()]).await?;
    found.iter().map(event).collect()
}

fn event(row: &Row) -> Result<JobEvent, DbError> {
    Ok(JobEvent {
        seq: rows::count(row, 0)?,
        job: rows::job_id(row, 1)?,
        kind: rows::name(row, 2)?,
        at: rows::time(row, 3)?,
        tasks_done: Some(rows::count(row, 4)?),
        tasks_total: Some(rows::count(row, 5)?),
        error: rows::get(row, 6)?,
        job_kind: Some(rows::parse(row, 7)?),
        task: rows::get(row, 8)?,
        source: positions::source(row, 10)?,
        counts: Box::new(rows::counts(row, 9)?),
    })
}
