//! `POST /lease`: computes one attempt. A lease of a stored job goes on when its connection closes; any other one lasts as
//! long as the request. `DELETE /lease/{attempt}` ends a lease of a stored job.

use std::time::Duration;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{LeaseRequest, MAX_LEASE_BYTES};
use model::AttemptId;
use service::{ApiError, Query, parse_json, read_body, trace};

use super::State;
use crate::executor::Work;
use crate::metrics::LeaseEnd;
use crate::outcome::Outcome;

/// Longest time that a lease may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(state: Data<State>, request: HttpRequest, body: Payload) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    let lease: LeaseRequest =
        parse_json(&read_body(&request, body, MAX_LEASE_BYTES, BODY_TIMEOUT, &state.bodies).await?)?;
    outcome(&state, lease).await?.answer()
}

/// Takes a lease and waits for its outcome.
pub(super) async fn outcome(state: &State, lease: LeaseRequest) -> Result<Outcome, ApiError> {
    check(state, &lease).inspect_err(|_| state.metrics.lease().end(LeaseEnd::Returned))?;
    state.held.forget(&lease.settled);
    if lease.outlives_connection { run_held(state, lease).await } else { run_bound(state, lease).await }
}

pub(super) async fn revoke(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    let message = || "must be the id of an attempt".to_owned();
    let attempt = path.parse().map_err(|_| ApiError::InvalidField { field: "attempt", message: message() })?;
    // A coordinator of an earlier release sends no epoch.
    if let Some(epoch) = Query::parse(request.query_string())?.parsed::<u64>("epoch")? {
        state.see(epoch)?;
    }
    state.held.forget(&[AttemptId(attempt)]);
    Ok(HttpResponse::NoContent().finish())
}

fn check(state: &State, lease: &LeaseRequest) -> Result<(), ApiError> {
    if lease.boot_id != state.boot_id {
        return Err(ApiError::Conflict(format!("this worker runs as {}, not as {}", state.boot_id, lease.boot_id)));
    }
    if lease.beyond < lease.first {
        return Err(ApiError::InvalidField { field: "beyond", message: "must not be below first".to_owned() });
    }
    state.see(lease.epoch)
}

/// Waits for the outcome of a lease that goes on without the caller.
async fn run_held(state: &State, lease: LeaseRequest) -> Result<Outcome, ApiError> {
    let pending = state.held.take(lease, &state.executor, || state.intake.enter_lease());
    let pending = pending.inspect_err(|_| state.metrics.lease().end(LeaseEnd::Returned))?;
    match pending.await {
        Ok(outcome) => Ok(outcome),
        Err(_) if state.intake.is_handing_back() => Err(crate::intake::stopping()),
        Err(_) => Err(ApiError::Conflict("the attempt was revoked or settled".to_owned())),
    }
}

/// Computes a lease for as long as the caller waits.
async fn run_bound(state: &State, lease: LeaseRequest) -> Result<Outcome, ApiError> {
    let observation = state.metrics.lease();
    let outcome = compute(state, lease).await;
    observation.end(match &outcome {
        Ok(Outcome::Done(_)) => LeaseEnd::Completed,
        Ok(Outcome::TaskFailed(_) | Outcome::Broken(_) | Outcome::Unsupported(_)) => LeaseEnd::Failed,
        Err(_) => LeaseEnd::Returned,
    });
    outcome
}

async fn compute(state: &State, lease: LeaseRequest) -> Result<Outcome, ApiError> {
    let _permit = state.intake.enter_lease()?;
    let LeaseRequest { job, attempt, slot, kind, work, first, beyond, .. } = lease;
    let work = Work { lease: Some((job, attempt)), kind, work, tasks: first..beyond, trace: trace::current() };
    let answer = tokio::select! {
        answer = state.executor.compute_on(slot, work).finish() => answer,
        stopping = state.intake.must_hand_back() => return Err(stopping),
    };
    if let Ok(computed) = &answer {
        state.metrics.computed(computed.busy);
    }
    Ok(Outcome::new(attempt, answer))
}
