//! `/v1/jobs/{id}/tasks`: the individual tasks of a job.

use std::collections::BTreeMap;
use std::ops::Range;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use api::{Problem, Task, TaskPage};
use engine::LeasedTasks;
use jiff::Timestamp;
use model::{JobState, TaskState};
use service::{ApiError, Query};
use store::{Attempt, AttemptEnd, JobRecord};

use super::State;
use super::errors::{from_invalid, from_read};
use super::jobs::{job_id, unknown};
use super::query::{page_limit, page_token};
use crate::clock::now;

/// Tasks that are examined for one page: a rare state may need several pages to be found.
const LOOKED_AT: u64 = 20_000;
const LOOKED_AT_ONCE: usize = 1_000;

/// Bytes of results and errors after which a page ends, however many tasks it has.
const PAGE_BYTES: usize = 8 << 20;

/// The tasks of a job whose tasks are individual: `tasks` and `sleep`.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/tasks",
    operation_id = "list_tasks",
    tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "The job's id"),
        ("state" = Option<api::schema::TaskState>, Query, description = "Only tasks in this state"),
        ("page_token" = Option<String>, Query, description = "From `next_page_token` of the page before"),
        ("limit" = Option<u32>, Query, description = "The most to list, 1 to 1000; a page ends early after 8 MiB of results. Default 100", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page of tasks", body = TaskPage),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The tasks of the job are not individual", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let id = job_id(&path)?;
    let query = Query::parse(request.query_string())?;
    let wanted = query.one("state")?.map(|state| state.parse::<TaskState>().map_err(from_invalid)).transpose()?;
    let (first, limit) = (page_token::<u64>(&query)?.unwrap_or(0), page_limit(&query)?);
    let record = state.store.job(id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
    let page = page(&state, &record, wanted, first, limit).await?;
    let kind = record.kind;
    let not_individual = || ApiError::Conflict(format!("the tasks of a job of the kind {kind} are not individual"));
    state.answers.answer_value(&page.ok_or_else(not_individual)?)
}

/// Some tasks of a job from `first` on; `None` where its tasks are not individual.
pub(super) async fn page(
    state: &State,
    record: &JobRecord,
    wanted: Option<TaskState>,
    first: u64,
    limit: usize,
) -> Result<Option<TaskPage>, ApiError> {
    let id = record.id;
    let is_individual = workloads::kind(record.kind)
        .and_then(|found| found.restore(&record.params, record.options.chunk_size.unwrap_or(state.chunk_size)))
        .is_ok_and(|work| work.profile().is_individual);
    if !is_individual {
        return Ok(None);
    }
    let (mut tasks, mut next, end) = (Vec::new(), first, record.tasks.min(first.saturating_add(LOOKED_AT)));
    let (mut step, mut bytes) = (1, 0);
    while next < end && tasks.len() < limit && bytes < PAGE_BYTES {
        // A rare state is searched in larger steps than a page.
        let most = if wanted.is_some() { LOOKED_AT_ONCE.max(limit) } else { limit };
        let some = next..end.min(next + step as u64);
        let mut attempts = state.store.outcomes(id, some.start, step).await.map_err(from_read)?;
        // Read after the attempts: a lease that has ended would be beside its attempt.
        let leased = leases(state, record);
        // A later attempt may have begun with an earlier task.
        attempts.sort_by_key(ended_at);
        let seen = look_at(record, some.clone(), &attempts, &leased);
        next = some.end;
        let looked_at: usize = seen.iter().map(text_bytes).sum();
        let mut fitting = seen.into_iter().filter(|task| wanted.is_none_or(|wanted| task.state == wanted));
        while tasks.len() < limit && bytes < PAGE_BYTES {
            let Some(task) = fitting.next() else { break };
            bytes += text_bytes(&task);
            tasks.push(task);
        }
        if let Some(left) = fitting.next() {
            next = left.index;
        }
        // A step may read far more than a page holds: steps grow only while they are small.
        step = if looked_at < PAGE_BYTES / 8 { (step * 4).min(most) } else { 1 };
    }
    let next_page_token = (next < record.tasks).then(|| next.to_string());
    Ok(Some(TaskPage { tasks, next_page_token }))
}

/// The leases of a job. A job whose pause or end is stored has none, though its workers may not have heard of it.
fn leases(state: &State, record: &JobRecord) -> Vec<LeasedTasks> {
    let Some(term) = state.role.term().filter(|_| runs(record.state)) else { return Vec::new() };
    term.driver.view(|engine| engine.leased_tasks(record.id, now()))
}

fn runs(state: JobState) -> bool {
    !state.is_over() && state != JobState::Paused
}

/// Bytes of a task's result and error.
fn text_bytes(task: &Task) -> usize {
    task.result.as_ref().map_or(0, |result| result.get().len()) + task.last_error.as_ref().map_or(0, String::len)
}

/// The tasks of a range, from their attempts and leases.
fn look_at(record: &JobRecord, tasks: Range<u64>, attempts: &[Attempt], leased: &[LeasedTasks]) -> Vec<Task> {
    let pending = |index| Task {
        index,
        state: TaskState::Pending,
        attempts: 0,
        worker: None,
        pending_at: record.submitted_at,
        allocated_at: None,
        running_at: None,
        completed_at: None,
        error_at: None,
        last_error: None,
        result: None,
    };
    let mut seen: BTreeMap<u64, Task> = tasks.map(|index| (index, pending(index))).collect();
    for attempt in attempts {
        for (_, task) in seen.range_mut(attempt.tasks.clone()) {
            note_attempt(task, attempt, record.retried_at);
        }
    }
    for lease in leased {
        for (_, task) in seen.range_mut(lease.tasks.clone()) {
            task.attempts += 1;
            task.state = TaskState::Running;
            task.worker.clone_from(&lease.worker);
            (task.allocated_at, task.running_at) = (Some(lease.allocated_at), Some(lease.allocated_at));
        }
    }
    seen.into_values().collect()
}

fn ended_at(attempt: &Attempt) -> Timestamp {
    match &attempt.end {
        AttemptEnd::Completed { completed_at: at, .. } | AttemptEnd::Failed { at, .. } => *at,
    }
}

fn note_attempt(task: &mut Task, attempt: &Attempt, retried_at: Option<Timestamp>) {
    task.attempts += 1;
    match &attempt.end {
        AttemptEnd::Completed { allocated_at, running_at, completed_at, results, .. } => {
            task.worker = attempt.worker.parse().ok();
            task.state = TaskState::Succeeded;
            task.allocated_at = Some(*allocated_at);
            task.running_at = Some(*running_at);
            task.completed_at = Some(*completed_at);
            let place = usize::try_from(task.index - attempt.tasks.start).unwrap_or(usize::MAX);
            task.result = results.get(place).cloned();
        }
        AttemptEnd::Failed { at, error, given_up, omitted, .. } => {
            // Every attempt that begins at the same task had that task; it may not have had the later ones.
            if attempt.tasks.start == task.index {
                task.attempts = task.attempts.saturating_add(u32::try_from(*omitted).unwrap_or(u32::MAX));
            }
            task.error_at = Some(*at);
            task.last_error = Some(error.clone());
            // A task that is done stays done, whatever another coordinator's clock says of its failures.
            if task.state != TaskState::Succeeded {
                task.worker = attempt.worker.parse().ok();
                // A retry of the job opens the tasks that were out of attempts.
                let is_out = *given_up && retried_at.is_none_or(|retried_at| *at >= retried_at);
                task.state = if is_out { TaskState::Failed } else { TaskState::Pending };
            }
        }
    }
}
