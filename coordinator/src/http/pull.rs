//! `/v1/worker/…`: the interface for workers that fetch their tasks, in any language. A claim is a lease: fenced by its
//! attempt, over when it expires, and its outcome counts once.

pub(super) mod claims;
mod named;

use std::time::{Duration, Instant};

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Data, Json, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{ClaimRequest, Claimed, Completion, Problem, ReleaseRequest, RenewRequest, Renewed, TaskFailure};
use engine::{CompleteError, Engine, LeaseFailure};
use jiff::Timestamp;
use model::{AttemptId, JobKind};
use scheduler::AttemptFailure;
use serde_json::value::RawValue;
use service::{ApiError, Body, parse_json, read_body, with_body};
use uuid::Uuid;
use workloads::Report;

use self::named::{end_at_named, hold, to_named, without_rest};
use super::State;
use super::errors::{from_invalid, from_read};
use crate::clock::now;
use crate::lease_log::End;
use crate::metrics::LeaseEnd;
use crate::outcomes::{OutcomePermit, OutcomeSize};
use crate::outputs::{Reported, UncountedError};
use crate::programs::is_program;
use crate::pull_workers::check_abilities;
use crate::spans::{lease_ended, traced_lease};
use crate::term::Term;
use crate::undelivered::UNDELIVERED;

/// The longest wait of a claim for a task, in seconds.
const MAX_WAIT_SECONDS: f64 = 60.0;

/// The most bytes of a report's JSON beside its results.
pub(crate) const REPORT_OVERHEAD_BYTES: usize = 64 * 1024;

/// Longest time that a report may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time that a worker may have computed where the start of its lease is unknown: no lease lasts longer.
const LONGEST_COMPUTATION: Duration = Duration::from_hours(24 * 366);

/// The longest reason of a failure that is kept, in characters.
const MAX_ERROR_CHARS: usize = 1_000;

/// Fetches tasks of the job that is next for this worker; with `wait_seconds`, waits for one.
#[utoipa::path(
    post,
    path = "/v1/worker/claim",
    operation_id = "claim_tasks",
    tag = "workers",
    request_body = ClaimRequest,
    responses(
        (status = 200, description = "Tasks to run: consecutive ones of one job", body = Claimed),
        (status = 204, description = "There are no tasks for this worker now; with `Retry-After` where it is drained and gets no more"),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A worker of this name waits for tasks that can do something else", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn claim(state: Data<State>, request: HttpRequest, body: Payload) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let claim: ClaimRequest = service::read_json(body).await?;
    check(&claim)?;
    claims::fetch(&state, &state.term()?, &request, &claim).await
}

/// Reports that the tasks of an attempt are done; with `claim`, fetches the next tasks.
#[utoipa::path(
    post,
    path = "/v1/worker/tasks/{attempt}/complete",
    operation_id = "complete_tasks",
    tag = "workers",
    params(("attempt" = Uuid, Path, description = "The claim's attempt")),
    request_body = Completion,
    responses(
        (status = 200, description = "The outcome is accepted, as with 204; the next tasks", body = Claimed),
        (status = 204, description = "The outcome is accepted. It counts unless its job is canceled, or its coordinator dies, in the same moment: the tasks of an outcome that was not committed are leased again"),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The attempt holds no lease any more: its outcome does not count", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`lease` names other tasks than the attempt holds, such as some that were handed back. The attempt keeps its lease", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn complete(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let attempt = attempt_id(&path)?;
    let (body, permit) = read_report(&state, &request, body, attempt).await?;
    let completion: Completion = with_body(body, parse_json).await?;
    let Completion { results, value, compute_us, lease, claim } = completion;
    // Checked before the outcome counts: an error must not come after that.
    claim.as_ref().map_or(Ok(()), check)?;
    let term = state.term()?;
    let held_for = hold(&state, &term, attempt, lease.as_ref())?;
    end_at_named(&state, &term, attempt, lease.as_ref());
    demand_objects(&term, attempt, &results).await?;
    // A lease that was taken up again has lasted longer than this coordinator knows.
    let is_whole = !held_for.is_zero() && term.driver.view(|engine| engine.has_made(attempt));
    let busy = computed(compute_us, held_for, is_whole);
    let report = Report { value, results };
    let (traced, named) = (traced_lease(&term.driver, attempt), lease.as_ref().map(to_named));
    let completed = term.driver.input(|engine, now| {
        engine.is_about(attempt, named.as_ref()).then(|| engine.complete(attempt, report, busy, now))
    });
    let completed = completed.ok_or_else(other_tasks)?;
    term.driver.hold_until_durable(permit);
    let end = match &completed {
        Ok(()) => Some(LeaseEnd::Completed),
        Err(CompleteError::Stale(_)) => Some(LeaseEnd::Refused),
        // A worker that pulls keeps its lease and may report again.
        Err(CompleteError::Invalid(_)) if term.driver.view(|engine| engine.is_leased(attempt)) => None,
        Err(CompleteError::Invalid(_)) => Some(LeaseEnd::Failed),
    };
    if let Some(end) = end {
        state.lease_log.ended(attempt, if completed.is_ok() { End::Done } else { End::Failed }, Instant::now());
        lease_ended(traced, attempt, end);
    }
    completed.map_err(from_complete)?;
    match claim {
        // A failed claim of the next tasks does not take back the outcome.
        Some(claim) => Ok(claims::fetch(&state, &term, &request, &claim).await.unwrap_or_else(|_| nothing())),
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
        (status = 204, description = "The failure is noted"),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
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
    state.identity.demand(&request).await?;
    let attempt = attempt_id(&path)?;
    let TaskFailure { error, lease } = service::read_json_leniently(body).await?;
    let term = state.term()?;
    hold(&state, &term, attempt, lease.as_ref())?;
    // Tasks that were handed back have not failed.
    end_at_named(&state, &term, attempt, lease.as_ref());
    let failure = LeaseFailure::TaskFailed(error.chars().take(MAX_ERROR_CHARS).collect());
    let traced = traced_lease(&term.driver, attempt);
    term.driver.input(|engine, now| engine.fail(attempt, failure, now)).map_err(|_| stale())?;
    lease_ended(traced, attempt, LeaseEnd::Failed);
    state.lease_log.ended(attempt, End::Failed, Instant::now());
    Ok(HttpResponse::NoContent().finish())
}

/// Renews a lease that would expire.
#[utoipa::path(
    post,
    path = "/v1/worker/tasks/{attempt}/renew",
    operation_id = "renew_tasks",
    tag = "workers",
    params(("attempt" = Uuid, Path, description = "The claim's attempt")),
    request_body(content = Option<RenewRequest>, description = "May be empty"),
    responses(
        (status = 200, description = "The new expiry of the lease", body = Renewed),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The attempt holds no lease any more", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn renew(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<Json<Renewed>, ApiError> {
    state.identity.demand(&request).await?;
    let attempt = attempt_id(&path)?;
    let RenewRequest { lease } = service::read_json_or_default(body).await?;
    let term = state.term()?;
    hold(&state, &term, attempt, lease.as_ref())?;
    let expires_at = term.driver.input(|engine, now| engine.renew(attempt, now)).map_err(|_| stale())?;
    Ok(Json(Renewed { expires_at: to_timestamp(expires_at) }))
}

/// Hands the tasks of an attempt back, or those from `beyond` on.
///
/// They are leased again, to another worker if one can run them; no attempt is counted.
#[utoipa::path(
    post,
    path = "/v1/worker/tasks/{attempt}/release",
    operation_id = "release_tasks",
    tag = "workers",
    params(("attempt" = Uuid, Path, description = "The claim's attempt")),
    request_body(content = Option<ReleaseRequest>, description = "May be empty"),
    responses(
        (status = 204, description = "The tasks are back"),
        (status = 401, description = "The worker token is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The attempt holds no lease any more", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The lease cannot be divided at `beyond`, and keeps all its tasks", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn release(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let attempt = attempt_id(&path)?;
    let ReleaseRequest { lease, beyond } = service::read_json_or_default(body).await?;
    let term = state.term()?;
    let lease = lease.map(|lease| without_rest(lease, beyond));
    hold(&state, &term, attempt, lease.as_ref())?;
    if let Some(beyond) = beyond {
        return release_rest(&state, &term, attempt, beyond);
    }
    let traced = traced_lease(&term.driver, attempt);
    if request.headers().contains_key(UNDELIVERED) {
        give_back(&term, attempt)?;
    } else {
        term.driver.input(|engine, now| engine.release(attempt, now)).map_err(|_| stale())?;
    }
    lease_ended(traced, attempt, LeaseEnd::Returned);
    state.lease_log.ended(attempt, End::Stopped, Instant::now());
    Ok(HttpResponse::NoContent().finish())
}

/// Takes the tasks from `beyond` on back; the lease goes on with those before.
fn release_rest(state: &State, term: &Term, attempt: AttemptId, beyond: u64) -> Result<HttpResponse, ApiError> {
    let is_shorter = term.driver.input(|engine, now| engine.release_rest(attempt, beyond, now)).map_err(|_| stale())?;
    if is_shorter {
        state.lease_log.shortened(attempt, beyond);
        return Ok(nothing());
    }
    Err(ApiError::Mismatch(format!(
        "the lease keeps all its tasks: none is left before task {beyond}, or another attempt has or had the same ones"
    )))
}

/// Reads the report of an outcome once there is room for it, or makes room for it once it is read: the budget of bodies counts only
/// long ones.
///
/// # Errors
/// The attempt has ended: nothing is read, and no memory reserved. Or the body cannot be read.
async fn read_report(
    state: &State,
    request: &HttpRequest,
    body: Payload,
    attempt: AttemptId,
) -> Result<(Body, OutcomePermit), ApiError> {
    let tasks_with_results = |engine: &Engine| {
        let (job, tasks, _) = engine.lease(attempt, now())?;
        let has_results = engine.kind(job).is_some_and(|kind| kind == JobKind::TASKS || is_program(kind));
        has_results.then_some(tasks.end - tasks.start)
    };
    let looked_at = |engine: &Engine| (!engine.has_ended(attempt)).then(|| tasks_with_results(engine).unwrap_or(0));
    let tasks = state.term()?.driver.view(looked_at).ok_or_else(stale)?;
    // The term is not held while the outcome waits, which may be as long as the term lasts.
    let prolong = || {
        if let Ok(term) = state.term() {
            term.driver.outcome_waits(attempt);
        }
    };
    let reserve = |bytes| state.outcomes.reserve(OutcomeSize { bytes, tasks }, prolong);
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let early = match length.filter(|length| *length <= REPORT_OVERHEAD_BYTES) {
        Some(length) => Some(reserve(length).await),
        None => None,
    };
    let most = state.max_result_bytes.saturating_add(REPORT_OVERHEAD_BYTES);
    let body = read_body(request, body, most, BODY_TIMEOUT, &state.bodies).await?;
    let permit = match early {
        Some(permit) => permit,
        None => reserve(body.len()).await,
    };
    Ok((body, permit))
}

/// The time that a worker has computed, as it reports, but no longer than its lease has lasted: a clock that was set back gives
/// impossible times, whose sums would overflow the store. `is_whole` tells whether the lease began with `held_for`.
fn computed(compute_us: Option<u64>, held_for: Duration, is_whole: bool) -> Duration {
    let most = if is_whole { held_for } else { LONGEST_COMPUTATION };
    compute_us.map_or(held_for, |us| Duration::from_micros(us).min(most))
}

/// Refuses an outcome that refers to outputs which were not uploaded: its attempt has failed.
async fn demand_objects(term: &Term, attempt: AttemptId, results: &[Box<RawValue>]) -> Result<(), ApiError> {
    let leased = term.driver.view(|engine| {
        let (job, tasks, _) = engine.lease(attempt, now())?;
        Some((job, engine.kind(job)?, tasks.start))
    });
    let Some((job, kind, first)) = leased else { return Ok(()) };
    let reported = Reported { job, kind, attempt, first, results };
    reported.demand_objects(&term.store).await.map_err(|error| match error {
        UncountedError::Absent(cause) => {
            let failure = LeaseFailure::WorkerFailed(AttemptFailure::Refused(cause.clone()));
            // The failure of an attempt without a lease changes nothing.
            let _ = term.driver.input(|engine, now| engine.fail(attempt, failure, now));
            ApiError::InvalidField { field: "results", message: cause }
        }
        UncountedError::Read(error) => from_read(error),
    })
}

fn from_complete(error: CompleteError) -> ApiError {
    match error {
        CompleteError::Stale(_) => stale(),
        CompleteError::Invalid(invalid) => ApiError::InvalidField { field: "results", message: invalid.to_string() },
    }
}

fn nothing() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

fn check(claim: &ClaimRequest) -> Result<(), ApiError> {
    let invalid = |field, message: String| ApiError::InvalidField { field, message };
    if !(0.0..=MAX_WAIT_SECONDS).contains(&claim.wait_seconds) {
        return Err(invalid(
            "wait_seconds",
            format!("must be from 0 to {MAX_WAIT_SECONDS}, but is {}", claim.wait_seconds),
        ));
    }
    check_abilities(claim).map_err(from_invalid)
}

/// Gives tasks back that never reached the worker: they were not tried, and any worker may have them. An error means that the
/// attempt holds no lease any more.
fn give_back(term: &Term, attempt: AttemptId) -> Result<(), ApiError> {
    let undeliverable = LeaseFailure::Undeliverable;
    term.driver.input(|engine, now| engine.fail(attempt, undeliverable, now)).map_err(|_| stale())
}

fn stopping(state: &State) -> ApiError {
    state.members.why_stopping()
}

fn attempt_id(text: &str) -> Result<AttemptId, ApiError> {
    Uuid::try_parse(text).map(AttemptId).map_err(|_| stale())
}

fn other_tasks() -> ApiError {
    ApiError::Mismatch("the report names other tasks than the attempt holds".to_owned())
}

fn stale() -> ApiError {
    ApiError::Conflict("the attempt holds no lease: it ended, expired or never was".to_owned())
}

/// The calendar time of an instant.
fn to_timestamp(instant: Instant) -> Timestamp {
    let now = now();
    now.at.saturating_add(instant.saturating_duration_since(now.instant)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computation_that_began_at_an_earlier_coordinator_counts_whole() {
        let (held_for, hour) = (Duration::from_millis(50), Duration::from_hours(1));
        assert_eq!(computed(Some(3_600_000_000), held_for, true), held_for);
        assert_eq!(computed(Some(3_600_000_000), held_for, false), hour);
        assert_eq!(computed(Some(u64::MAX), held_for, false), LONGEST_COMPUTATION);
        assert_eq!(computed(None, held_for, false), held_for);
    }
}
