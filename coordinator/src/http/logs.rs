//! `/v1/jobs/{id}/logs`: the stderr of a job's programs, as a list or while it is written.

use std::collections::BTreeSet;
use std::fmt;
use std::num::ParseIntError;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use api::{LogPage, Problem, TaskLog};
use model::JobId;
use serde::Deserialize;
use service::{ApiError, Query};
use store::Store;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::State;
use super::errors::from_read;
use super::jobs::{job_id, unknown};
use super::query::{page_token, seconds};
use crate::task_logs::{Changed, TaskAttempt};

/// Logs in one answer, each of 64 KiB at most.
const MAX_LOGS: usize = 256;

/// The longest wait for changes.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Query of a job's logs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which are read one by one")]
pub(super) struct LogQuery {
    /// Only the logs of this task.
    task: Option<u64>,
    /// The `next_page_token` of the page before.
    page_token: Option<String>,
    /// The `cursor` of an earlier answer: only the logs that have changed since then. All logs if the changes are no longer
    /// known, such as after a restart.
    #[param(pattern = "^[0-9]+-[0-9]+$")]
    after: Option<String>,
    /// With `after`: how long to wait for a change, up to 60s: `30s` or `30`. The end of the job ends the wait.
    wait: Option<String>,
}

/// A place in the order in which logs change, valid while the coordinator of this epoch leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    epoch: u64,
    change: u64,
}

/// The part of a request that selects logs.
#[derive(Debug)]
struct Wanted {
    job: JobId,
    tasks: Range<u64>,
    wait: Duration,
}

/// The stderr of a job's programs: the last 64 KiB of each attempt.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/logs",
    operation_id = "job_logs",
    tag = "programs",
    params(("id" = uuid::Uuid, Path, description = "The job's id"), LogQuery),
    responses(
        (status = 200, description = "By task; with `after` in the order of the changes", body = LogPage),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job or task", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_job(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = job_id(&path)?;
    let query = Query::parse(request.query_string())?;
    let (task, from): (Option<u64>, Option<u64>) = (query.parsed("task")?, page_token(&query)?);
    let after: Option<Cursor> = query.parsed("after")?;
    let wait = query.one("wait")?.map(|text| seconds("wait", text, MAX_WAIT)).transpose()?.unwrap_or_default();
    let tasks = task.map_or(0..u64::MAX, |task| task..task.saturating_add(1));
    let term = state.term()?;
    let (store, epoch) = (Arc::clone(&term.store), term.epoch);
    // A request that waits must not delay the end of the term.
    drop(term);
    if let Some(task) = task {
        let record = store.job(job).await.map_err(from_read)?.ok_or_else(|| unknown(job))?;
        if task >= record.tasks {
            return Err(ApiError::Unknown(format!("job {job} has no task {task}")));
        }
    }
    let wanted = Wanted { job, tasks, wait };
    if let Some(after) = after.filter(|after| after.epoch == epoch) {
        let page = tokio::select! {
            page = changes(&state, &store, &wanted, after) => page?,
            // Workers report to the next leader.
            () = state.role.term_over(epoch) => return Err(ApiError::NotLeading),
        };
        if let Some(page) = page {
            return state.answers.answer_value(&page);
        }
    }
    state.answers.answer_value(&list(&state, &store, wanted, from.unwrap_or(0), epoch).await?)
}

/// A page of all logs from task `from` on.
async fn list(state: &State, store: &Store, wanted: Wanted, from: u64, epoch: u64) -> Result<LogPage, ApiError> {
    let Wanted { job, tasks, .. } = wanted;
    let tasks = tasks.start.max(from)..tasks.end;
    // Taken before the logs are read, so that later changes are newer than the cursor.
    let cursor = Cursor { epoch, change: state.programs.logs.newest() }.to_string();
    let is_over = store.job(job).await.map_err(from_read)?.ok_or_else(|| unknown(job))?.state.is_over();
    // Read before the kept logs: a log that ends in between is in at least one of the two.
    let live = state.programs.logs.live(job, &tasks);
    let beyond = tasks.end;
    let mut ended = store.logs(job, tasks, MAX_LOGS).await.map_err(from_read)?;
    let mut next = ended.last().map(|last| last.task).filter(|_| ended.len() == MAX_LOGS);
    if let Some(last) = next {
        // The next page begins with a whole task.
        if ended.first().is_some_and(|first| first.task < last) {
            ended.retain(|log| log.task < last);
        } else {
            ended = store.last_logs(job, last, MAX_LOGS).await.map_err(from_read)?;
            next = Some(last + 1).filter(|next| *next < beyond);
        }
    }
    let mut logs: Vec<_> = ended.into_iter().map(of_ended).collect();
    let is_of_page = |log: &TaskLog| next.is_none_or(|next| log.task < next);
    add_running(&mut logs, live.into_iter().filter(is_of_page).collect());
    Ok(LogPage { logs, next_page_token: next.map(|next| next.to_string()), cursor, is_over })
}

/// Adds the logs of running attempts, unless they have ended meanwhile.
fn add_running(logs: &mut Vec<TaskLog>, mut running: Vec<TaskLog>) {
    running.retain(|log| logs.iter().all(|ended| (ended.task, ended.attempt) != (log.task, log.attempt)));
    logs.append(&mut running);
}

/// The logs of the attempts at one task, the last [`MAX_LOGS`] of those that have ended.
pub(super) async fn of_task(state: &State, store: &Store, job: JobId, task: u64) -> Result<Vec<TaskLog>, ApiError> {
    let tasks = task..task.saturating_add(1);
    let live = state.programs.logs.live(job, &tasks);
    let ended = store.last_logs(job, task, MAX_LOGS).await.map_err(from_read)?;
    let mut logs: Vec<_> = ended.into_iter().map(of_ended).collect();
    add_running(&mut logs, live);
    Ok(logs)
}

/// Waits for logs that have changed after `after`; `None` where the changes are no longer known.
async fn changes(
    state: &State,
    store: &Store,
    wanted: &Wanted,
    mut after: Cursor,
) -> Result<Option<LogPage>, ApiError> {
    let (until, job) = (Instant::now() + wanted.wait, wanted.job);
    loop {
        // Subscribed before the job and its logs are read, so that no change falls between.
        let (mut events, mut written) = (state.events.subscribe(Some(job)), state.programs.logs.follow(job));
        let is_over = store.job(job).await.map_err(from_read)?.ok_or_else(|| unknown(job))?.state.is_over();
        let Some(page) = changed(state, store, wanted, &mut after, is_over).await? else { return Ok(None) };
        if !page.logs.is_empty() || is_over || Instant::now() >= until || state.health.is_draining() {
            return Ok(Some(page));
        }
        let news = async {
            loop {
                tokio::select! {
                    event = events.next() => if event.is_none_or(|event| event.kind.is_end()) { return },
                    _ = written.changed() => return,
                    () = state.health.drained() => return,
                }
            }
        };
        // After a change and after the time limit alike, the logs are read again.
        let _ = timeout_at(until, news).await;
    }
}

/// The logs that have changed after `after`, which becomes the newest change.
async fn changed(
    state: &State,
    store: &Store,
    wanted: &Wanted,
    after: &mut Cursor,
    is_over: bool,
) -> Result<Option<LogPage>, ApiError> {
    let newest = state.programs.logs.newest();
    let Some(mut changes) = state.programs.logs.changes(wanted.job, &wanted.tasks, after.change) else {
        return Ok(None);
    };
    let has_more = changes.len() > MAX_LOGS;
    changes.truncate(MAX_LOGS);
    after.change = changes.last().filter(|_| has_more).map_or(newest, |(change, _)| *change);
    let (mut logs, mut ended) = (Vec::new(), Vec::new());
    for (_, change) in changes {
        match change {
            Changed::Live(log) => logs.push(log),
            Changed::Stored(attempt) => ended.push(attempt),
        }
    }
    logs.extend(stored(store, wanted.job, &ended).await?);
    Ok(Some(LogPage { logs, next_page_token: None, cursor: after.to_string(), is_over: is_over && !has_more }))
}

async fn stored(store: &Store, job: JobId, attempts: &[TaskAttempt]) -> Result<Vec<TaskLog>, ApiError> {
    let tasks: BTreeSet<u64> = attempts.iter().map(|attempt| attempt.task).collect();
    let mut found = Vec::new();
    for task in tasks {
        let logs = store.last_logs(job, task, MAX_LOGS).await.map_err(from_read)?;
        let is_wanted =
            |log: &store::TaskLog| attempts.iter().any(|ended| (ended.task, ended.id) == (log.task, log.attempt));
        found.extend(logs.into_iter().filter(is_wanted).map(of_ended));
    }
    Ok(found)
}

fn of_ended(log: store::TaskLog) -> TaskLog {
    let store::TaskLog { task, attempt, worker, ended_at, omitted_bytes, text, .. } = log;
    TaskLog { task, attempt, worker, omitted_bytes, text, ended_at: Some(ended_at) }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.change)
    }
}

/// The error of a text that is no cursor.
#[derive(Debug, thiserror::Error)]
#[error("it must be the `cursor` of an earlier answer")]
struct InvalidCursor;

impl From<ParseIntError> for InvalidCursor {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (epoch, change) = text.split_once('-').ok_or(InvalidCursor)?;
        Ok(Self { epoch: epoch.parse()?, change: change.parse()? })
    }
}
