//! Reads jobs: one, those that are not over, and their events.

use model::{JobEvent, JobId};
use store::stored::{options_from_stored, values_from_stored};
use store::{JobRecord, UnfinishedJob, UnfinishedRows, Unreadable, Verified};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::DbError;
use crate::link::{FlightError, Link, Param, Step};
use crate::positions;
use crate::rows::{self, Column};

/// The columns that [`record`] reads.
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
    let record = JobRecord {
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
    };
    record.checked().map_err(|error| DbError::Damaged(error.to_string()))
}

pub(crate) async fn one(link: &Link, job: JobId) -> Result<Option<JobRecord>, DbError> {
    const SQL: &str = concat!("SELECT ", record_columns!(), " FROM jobs WHERE id = $1");
    link.query_opt(SQL, &[&job.0]).await?.as_ref().map(record).transpose()
}

/// Verification of the newest verified jobs.
pub(crate) async fn verified(link: &Link, unreadable: &Unreadable, limit: usize) -> Result<Vec<Verified>, DbError> {
    const SQL: &str = "SELECT verified, id FROM jobs WHERE verified IS NOT NULL ORDER BY key DESC LIMIT $1";
    let limit = (limit as u64).column();
    let read = |row: &Row| {
        let id = rows::job_id(row, 1).map(|id| id.to_string()).unwrap_or_default();
        unreadable.skip("verification of a job", &id, rows::verified(row, 0))
    };
    Ok(link.query(SQL, &[&limit]).await?.iter().filter_map(read).collect())
}

/// Every job that is not over. The read is not bounded in time: no coordinator leads without these jobs.
pub(crate) async fn open(link: &Link) -> Result<Vec<JobId>, DbError> {
    const OPEN: &str = "SELECT id FROM jobs WHERE state IN ('queued', 'running', 'paused') ORDER BY submitted_at, id";
    link.client.batch_execute(BEGIN).await?;
    let mut jobs = Vec::new();
    let note = |row: &Row| rows::job_id(row, 0).map(|id| jobs.push(id));
    let read = link.each(OPEN, note).await;
    // Sent also after an error, so that the next read finds no transaction.
    let ended = link.client.batch_execute("COMMIT").await;
    read?;
    ended?;
    Ok(jobs)
}

/// A single snapshot, and no bound on the time of a statement.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = 0";

/// The jobs of `jobs` that are not over.
pub(crate) async fn unfinished(
    link: &Link,
    unreadable: &Unreadable,
    jobs: &[Uuid],
) -> Result<Vec<UnfinishedJob>, DbError> {
    let (mut found, mut parts) = (Vec::new(), vec![jobs]);
    while let Some(part) = parts.pop() {
        match (read_unfinished(link, unreadable, part).await, part) {
            (Ok(jobs), _) => found.extend(jobs),
            // The server itself cannot read a row.
            (Err(error), [job]) if error.is_damage() => unreadable.note_job(JobId(*job), &error),
            (Err(error), _) if error.is_damage() => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(found)
}

async fn read_unfinished(link: &Link, unreadable: &Unreadable, only: &[Uuid]) -> Result<Vec<UnfinishedJob>, DbError> {
    const JOBS: &str = concat!(
        "SELECT ",
        record_columns!(),
        " FROM jobs WHERE jobs.id = ANY($1::uuid[]) AND state IN ('queued', 'running', 'paused') ORDER BY submitted_at, id"
    );
    const SPANS: &str = "SELECT jobs.id, what, first, beyond, failures FROM jobs JOIN spans ON spans.job = jobs.key \
         WHERE jobs.id = ANY($1::uuid[]) AND state IN ('queued', 'running', 'paused') ORDER BY spans.job, what, first";
    let question = |sql| Step::Run { sql, params: vec![Box::new(only) as Param<'_>] };
    let answers = match link.fly(vec![Step::Plain(BEGIN), question(JOBS), question(SPANS), Step::Plain("COMMIT")]).await
    {
        Ok(answers) => answers,
        Err(FlightError { error, .. }) => return Err(error),
    };
    let mut found = UnfinishedRows::default();
    answers[1].iter().try_for_each(|row| add_job(&mut found, row))?;
    answers[2].iter().try_for_each(|row| add_span(&mut found, row))?;
    Ok(found.finish(unreadable))
}

fn add_job(found: &mut UnfinishedRows<JobId>, row: &Row) -> Result<(), DbError> {
    let id = rows::job_id(row, 0)?;
    found.add_job(id, id, record(row));
    Ok(())
}

fn add_span(found: &mut UnfinishedRows<JobId>, row: &Row) -> Result<(), DbError> {
    found.add_span(&rows::job_id(row, 0)?, rows::span(row, 1));
    Ok(())
}

pub(crate) async fn events(
    link: &Link,
    unreadable: &Unreadable,
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
    let (mut after, mut events) = (after.column(), Vec::new());
    loop {
        let wanted = limit - events.len();
        let most = (wanted as u64).column();
        let found = match job {
            None => link.query(ALL, &[&after, &most]).await?,
            Some(job) => link.query(OF_ONE, &[&after, &most, &job.0]).await?,
        };
        events.extend(found.iter().filter_map(|row| readable_event(row, unreadable)));
        match found.last() {
            // Readable events may follow the unreadable ones.
            Some(last) if found.len() == wanted && events.len() < limit => after = rows::get(last, 0)?,
            Some(_) | None => return Ok(events),
        }
    }
}

/// The last events of a job, the newest first.
pub(crate) async fn last_events(
    link: &Link,
    unreadable: &Unreadable,
    job: JobId,
    limit: usize,
) -> Result<Vec<JobEvent>, DbError> {
    const LAST: &str = "SELECT seq, jobs.id, events.kind, at, events.tasks_done, tasks_total, events.error, \
         jobs.kind, jobs.task, counts, source FROM jobs \
         JOIN events ON events.job = jobs.key WHERE jobs.id = $1 ORDER BY seq DESC LIMIT $2";
    let mut asked = limit;
    loop {
        let found = link.query(LAST, &[&job.0, &(asked as u64).column()]).await?;
        if let Some(page) = rows::page(&found, limit, &mut asked, |row| readable_event(row, unreadable)) {
            return Ok(page);
        }
    }
}

fn readable_event(row: &Row, unreadable: &Unreadable) -> Option<JobEvent> {
    let seq = rows::get::<i64>(row, 0).unwrap_or(0);
    let mut event = unreadable.skip("event", &seq, event(row))?;
    event.source = unreadable.skip("source of an event", &seq, positions::source(row, 10)).flatten();
    event.counts = Box::new(unreadable.skip("counts of an event", &seq, rows::counts(row, 9)).unwrap_or_default());
    Some(event)
}

/// An event without its figures and its source.
fn event(row: &Row) -> Result<JobEvent, DbError> {
    Ok(JobEvent {
        seq: rows::count(row, 0)?,
        job: rows::job_id(row, 1)?,
        kind: rows::name(row, 2)?,
        at: rows::time(row, 3)?,
        tasks_done: Some(rows::count(row, 4)?),
        tasks_total: Some(rows::count(row, 5)?),
        error: rows::get(row, 6)?,
        // The kind of an unreadable job is left out.
        job_kind: rows::parse(row, 7).ok(),
        task: rows::get(row, 8)?,
        source: None,
        counts: Box::default(),
    })
}
