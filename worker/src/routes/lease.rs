//! `POST /lease`: computes one attempt. The lease lasts as long as the request: a closed connection stops the work.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Payload};
use api::{LeaseOutcome, LeaseRequest};
use service::{ApiError, read_json};

use super::State;
use crate::executor::ComputeError;
use crate::metrics::LeaseEnd;

pub(super) async fn run(
    state: Data<State>,
    request: HttpRequest,
    body: Payload,
) -> Result<Json<LeaseOutcome>, ApiError> {
    state.token.demand(&request)?;
    let lease: LeaseRequest = read_json(body).await?;
    let observation = state.metrics.lease();
    let outcome = compute(&state, &lease).await;
    observation.end(match &outcome {
        Ok(_) => LeaseEnd::Completed,
        Err(ApiError::Failed(_) | ApiError::Mismatch(_)) => LeaseEnd::Failed,
        Err(_) => LeaseEnd::Returned,
    });
    outcome.map(Json)
}

async fn compute(state: &State, lease: &LeaseRequest) -> Result<LeaseOutcome, ApiError> {
    if lease.boot_id != state.boot_id {
        return Err(ApiError::Conflict(format!("this worker runs as {}, not as {}", state.boot_id, lease.boot_id)));
    }
    let _permit = state.intake.enter_lease()?;
    let result = tokio::select! {
        result = state.executor.submit_to(lease.slot, lease.work).finish() => result,
        stopping = state.intake.must_hand_back() => return Err(stopping),
    };
    let computed = result.map_err(|error| match error {
        // The task's own doing: nothing is wrong with this worker.
        ComputeError::Simulated => ApiError::Mismatch(error.to_string()),
        ComputeError::Stopped | ComputeError::Panicked(_) => ApiError::Failed(error.to_string()),
    })?;
    state.metrics.computed(computed.busy);
    let compute_us = u64::try_from(computed.busy.as_micros()).unwrap_or(u64::MAX);
    Ok(LeaseOutcome { attempt: lease.attempt, value: computed.value, compute_us })
}
