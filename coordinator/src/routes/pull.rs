//! `/v1/worker/…`: the face for workers that fetch their tasks, in any language. A claim is a lease: fenced by its attempt,
//! over when it expires, and its outcome counts once.

use std::time::{Duration, Instant};

use actix_web::web::{Data, Json, Path, Payload};
use actix_web::{Either, HttpRequest, HttpResponse};
use api::{ClaimRequest, Claimed, ClaimedTask, Completion, LeaseName, Problem, Renewed, TaskFailure};
use jiff::Timestamp;
use model::{AttemptId, SleepParams};
use scheduler::{Failure, Outcome, WorkerKey};
use serde_json::value::RawValue;
use service::{ApiError, parse_json, read_body, with_body};
use tokio::time::timeout_at;
use uuid::Uuid;

use super::State;
use super::errors::{from_claim, from_invalid, from_read};
use crate::grid::{Fetched, LeaseEnd};
use crate::plan::Plan;
use crate::pullers::check_abilities;

/// The longest that a claim waits for a task.
const MAX_WAIT_SECONDS: f64 = 60.0;

/// The most tasks of one claim.
const MAX_TASKS: u32 = 10_000;

/// The longest report.
const MAX_REPORT_BYTES: usize = 64 * 1024 * 1024;

/// How long a report may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest reason for a failure that is kept, in characters.
const MAX_ERROR_CHARS: usize = 1_000;

type MaybeClaimed = Either<Json<Claimed>, HttpResponse>;

/// Fetches tasks of the job that is next for this worker; waits for one if asked to.
#[utoipa::path(
    post,
    path = "/v1/worker/claim",
    operation_id = "claim_tasks",
    tag = "workers",
    request_body = ClaimRequest,
    responses(
        (status = 200, description = "Tasks to run: consecutive ones of one job", body = Claimed),
        (status = 204, description = "There is nothing for this worker now"),
        (status = 400, description = "A field is not as it must be", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn claim(state: Data<State>, request: HttpRequest, body: Payload) -> Result<MaybeClaimed, ApiError> {
    state.token.demand(&request)?;
    let claim: ClaimRequest = service::read_json(body).await?;
    check(&claim)?;
    fetch(&state, &claim).await
}

/// Reports that the tasks of an attempt are done, and fetches the next if asked to.
#[utoipa::path(
    post,
    path = "/v1/worker/tasks/{attempt}/complete",
    operation_id = "complete_tasks",
    tag = "workers",
    params(("attempt" = Uuid, Path, description = "The claim's attempt")),
    request_body = Completion,
    responses(
        (status = 200, description = "The outcome counts; the next tasks", body = Claimed),
        (status = 204, description = "The outcome counts"),
        (status = 400, description = "A field is not as it must be", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The attempt holds no lease any more: its outcome does not count", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn complete(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<MaybeClaimed, ApiError> {
    state.token.demand(&request)?;
    let attempt = attempt_id(&path)?;
    let completion: Completion = with_body(read_body(body, MAX_REPORT_BYTES, BODY_TIMEOUT).await?, parse_json).await?;
    let (plan, tasks, busy) = state.grid.held(attempt).ok_or_else(stale)?;
    let (value, results) = judge(&plan, &tasks, completion.results)?;
    // Before the outcome counts: an error must not come after it did.
    completion.claim.as_ref().map_or(Ok(()), check)?;
    let outcome = Outcome { value, busy };
    state.grid.report(attempt, LeaseEnd::Completed(outcome), results).map_err(|_| stale())?;
    match completion.claim {
        // Nothing that keeps it from its next tasks takes back what it has done.
        Some(claim) => Ok(fetch(&state, &claim).await.unwrap_or_else(|_| nothing())),
        None => Ok(nothing()),
    }
}

/// Reports that an attempt has failed. Its tasks are tried again while they have attempts left.
#[utoipa::path(
    post,
    path = "/v1/worker/tasks/{attempt}/fail",
    operation_id = "fail_tasks",
    tag = "workers",
    params(("attempt" = Uuid, Path, description = "The claim's attempt")),
    request_body = TaskFailure,
    responses(
        (status = 204, description = "Noted"),
        (status = 400, description = "A field is not as it must be", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The attempt holds no lease any more", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn fail(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    let attempt = attempt_id(&path)?;
    let TaskFailure { error, .. } = service::read_json(body).await?;
    let cause = Failure::Refused(error.chars().take(MAX_ERROR_CHARS).collect());
    state.grid.report(attempt, LeaseEnd::Failed(cause), Vec::new()).map_err(|_| stale())?;
    Ok(HttpResponse::NoContent().finish())
}

/// Keeps a lease that would expire.
#[utoipa::path(
    post,
    path = "/v1/worker/tasks/{attempt}/renew",
    operation_id = "renew_tasks",
    tag = "workers",
    params(("attempt" = Uuid, Path, description = "The claim's attempt")),
    responses(
        (status = 200, description = "When it expires now", body = Renewed),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The attempt holds no lease any more", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn renew(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<Json<Renewed>, ApiError> {
    state.token.demand(&request)?;
    let expires_at = state.grid.renew(attempt_id(&path)?).map_err(|_| stale())?;
    Ok(Json(Renewed { expires_at: to_timestamp(expires_at) }))
}

fn nothing() -> MaybeClaimed {
    MaybeClaimed::Right(HttpResponse::NoContent().finish())
}

fn check(claim: &ClaimRequest) -> Result<(), ApiError> {
    let invalid = |field, message: String| ApiError::InvalidField { field, message };
    if !(0.0..=MAX_WAIT_SECONDS).contains(&claim.wait_seconds) {
        return Err(invalid("wait_seconds", format!("must be from 0 to {MAX_WAIT_SECONDS}")));
    }
    if !(1..=MAX_TASKS).contains(&claim.max_tasks) {
        return Err(invalid("max_tasks", format!("must be from 1 to {MAX_TASKS}")));
    }
    check_abilities(claim).map_err(from_invalid)
}

async fn fetch(state: &State, claim: &ClaimRequest) -> Result<MaybeClaimed, ApiError> {
    let worker = state.pullers.see(claim, Instant::now()).map_err(from_claim)?;
    let until = tokio::time::Instant::now() + Duration::from_secs_f64(claim.wait_seconds);
    match wait_for_tasks(state, worker, claim.max_tasks.into(), until).await {
        Some(fetched) => to_claimed(state, fetched).map(|claimed| MaybeClaimed::Left(Json(claimed))),
        // It would ask again at once.
        None if state.health.is_draining() => Err(ApiError::Unavailable("the coordinator is stopping".to_owned())),
        None => Ok(nothing()),
    }
}

async fn wait_for_tasks(
    state: &State,
    worker: WorkerKey,
    max_tasks: u64,
    until: tokio::time::Instant,
) -> Option<Fetched> {
    loop {
        let more = state.grid.work_to_fetch();
        tokio::pin!(more);
        more.as_mut().enable();
        if state.health.is_draining() {
            return None;
        }
        if let Some(fetched) = state.grid.fetch(worker, max_tasks) {
            return Some(fetched);
        }
        let more = async {
            tokio::select! {
                () = more => (),
                () = state.health.drained() => (),
            }
        };
        timeout_at(until, more).await.ok()?;
    }
}

fn to_claimed(state: &State, fetched: Fetched) -> Result<Claimed, ApiError> {
    let Fetched { job, attempt, plan, tasks, expires_at, .. } = fetched;
    let payloads = match plan {
        Plan::Tasks { .. } => match state.jobs.store().payloads(job, tasks.clone()) {
            Ok(payloads) => payloads,
            Err(error) => {
                let cause = Failure::Refused(format!("its payload cannot be read: {error}"));
                // It was just leased; if it is gone already, so much the better.
                let _ = state.grid.report(attempt, LeaseEnd::Failed(cause), Vec::new());
                return Err(from_read(error));
            }
        },
        Plan::Sum(split) | Plan::Count(split) => {
            let range = |task| split.numbers(&(task..task + 1));
            tasks.clone().map(|task| raw(&format!(r#"{{"a":{},"b":{}}}"#, range(task).a(), range(task).b()))).collect()
        }
        Plan::Sleep(SleepParams { seconds, .. }) => {
            tasks.clone().map(|_| raw(&format!(r#"{{"seconds":{seconds}}}"#))).collect()
        }
    };
    let lease = LeaseName { job, first: tasks.start, beyond: tasks.end };
    let tasks = tasks.zip(payloads).map(|(index, payload)| ClaimedTask { index, payload }).collect();
    Ok(Claimed { attempt, job, kind: plan.kind(), tasks, lease, expires_at: to_timestamp(expires_at) })
}

/// What the results add to the job's total, and those that are kept.
fn judge(
    plan: &Plan,
    tasks: &std::ops::Range<u64>,
    results: Vec<Box<RawValue>>,
) -> Result<(u128, Vec<Box<RawValue>>), ApiError> {
    let invalid = |message: String| ApiError::InvalidField { field: "results", message };
    let count = tasks.end - tasks.start;
    let is_whole = results.len() as u64 == count;
    match plan {
        Plan::Sum(_) | Plan::Count(_) => {
            let parsed = |result: &RawValue| serde_json::from_str::<String>(result.get()).ok()?.parse::<u128>().ok();
            let values: Option<Vec<_>> = results.iter().map(|result| parsed(result)).collect();
            let total =
                values.filter(|_| is_whole).and_then(|values| values.into_iter().try_fold(0u128, u128::checked_add));
            let total = total.filter(|total| *total <= plan.max_value(tasks));
            let message = || invalid(format!("must hold {count} decimal strings, each no larger than it can be"));
            Ok((total.ok_or_else(message)?, Vec::new()))
        }
        Plan::Sleep(_) | Plan::Tasks { .. } if is_whole || results.is_empty() => Ok((0, results)),
        Plan::Sleep(_) | Plan::Tasks { .. } => {
            Err(invalid(format!("must hold one result for each of the {count} tasks, or none at all")))
        }
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("numbers in braces are JSON")
}

fn attempt_id(text: &str) -> Result<AttemptId, ApiError> {
    Uuid::try_parse(text).map(AttemptId).map_err(|_| stale())
}

fn stale() -> ApiError {
    ApiError::Conflict("the attempt holds no lease: it ended, expired or never was".to_owned())
}

/// An instant by the calendar.
fn to_timestamp(instant: Instant) -> Timestamp {
    let left = instant.saturating_duration_since(Instant::now());
    Timestamp::now().saturating_add(left).unwrap_or(Timestamp::MAX)
}
