//! Answers claims: with tasks and their payloads, whose bytes are bounded, or with nothing after a wait.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse};
use api::{ClaimRequest, Claimed, ClaimedTask, LeaseName};
use engine::{LeaseFailure, PulledLease};
use model::{AttemptId, JobId, TraceContext};
use serde_json::value::RawValue;
use service::{ApiError, trace, when_answer_is_lost};
use store::ReadError;

use super::{give_back, nothing, stale, stopping, to_timestamp};
use crate::http::State;
use crate::http::errors::{from_claim, from_read};
use crate::lease_log::{Begun, End};
use crate::pull_workers::Claimant;
use crate::spans::lease_span;
use crate::term::Term;
use crate::undelivered::ATTEMPT;

/// Longer payloads, in bytes, are serialized on another thread: heartbeats use this listener's threads.
pub(crate) const SERVED_BYTES: usize = 64 * 1024;

/// The most bytes of payloads in the answer to a claim, which has at least one task.
const MAX_CLAIM_BYTES: usize = 8 << 20;

/// Seconds until a drained worker may ask again: it gets no tasks, but shows that it still lives.
const DRAINED_RETRY_AFTER_S: u32 = 30;

/// Fetches tasks for a worker; waits for them if the claim asks for that.
pub(super) async fn fetch(
    state: &State,
    term: &Arc<Term>,
    request: &HttpRequest,
    claim: &ClaimRequest,
) -> Result<HttpResponse, ApiError> {
    let Claimant { key: worker, is_draining } = term.pull_workers.see(claim, Instant::now()).map_err(from_claim)?;
    let max_tasks = u64::from(claim.max_tasks);
    if state.health.is_draining() {
        return Err(stopping(state));
    }
    let wait = Duration::from_secs_f64(claim.wait_seconds);
    if is_draining {
        return wait_for_nothing(state, term, wait).await;
    }
    if let Some(lease) = term.driver.input(|engine, now| engine.claim(worker, max_tasks, now)) {
        return to_claimed(state, term, request, claim, lease).await;
    }
    if claim.wait_seconds == 0.0 {
        return Ok(nothing());
    }
    let mut waiting = term.driver.wait_for_tasks(worker, max_tasks);
    tokio::select! {
        lease = waiting.lease() => match lease {
            Some(lease) => to_claimed(state, term, request, claim, lease).await,
            // The worker is gone, or this coordinator leads no longer.
            None if term.trust.holds() => Ok(nothing()),
            None => Err(ApiError::NotLeading),
        },
        () = tokio::time::sleep(wait) => Ok(nothing()),
        // With an empty answer the worker would ask again at once.
        () = state.health.drained() => Err(stopping(state)),
    }
}

/// Waits for the time that a drained worker asked for: with an immediate answer it would ask again at once.
async fn wait_for_nothing(state: &State, term: &Term, wait: Duration) -> Result<HttpResponse, ApiError> {
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(nothing_more()),
        () = state.role.term_over(term.epoch) => Err(ApiError::NotLeading),
        () = state.health.drained() => Err(stopping(state)),
    }
}

async fn to_claimed(
    state: &State,
    term: &Arc<Term>,
    request: &HttpRequest,
    claim: &ClaimRequest,
    lease: PulledLease,
) -> Result<HttpResponse, ApiError> {
    let PulledLease { job, attempt, kind, is_admitted, mut tasks, payloads, expires_at, trace } = lease;
    release_if_lost(state, term, request, attempt);
    let payloads = match payloads {
        Some(payloads) => payloads,
        None => match stored_payloads(term, job, attempt, &mut tasks).await {
            Ok(payloads) => payloads,
            Err(error) => {
                fail_unread(term, attempt, &error);
                return Err(error.into());
            }
        },
    };
    let begun = Begun { attempt, worker: &claim.worker_id, slot: None, job, kind, tasks: &tasks };
    state.lease_log.began(begun, Instant::now());
    let lease = LeaseName { worker_id: claim.worker_id.clone(), job, first: tasks.start, beyond: tasks.end };
    let is_large = payloads.iter().map(|payload| payload.get().len()).sum::<usize>() > SERVED_BYTES;
    let tasks = tasks.zip(payloads).map(|(index, payload)| ClaimedTask { index, payload }).collect();
    let span = trace.filter(|_| trace::is_on()).map(|parent| lease_span(&parent, attempt));
    let traceparent = span.as_ref().map(TraceContext::traceparent);
    let tracestate = span.map(|span| span.state).filter(|state| !state.is_empty());
    let expires_at = to_timestamp(expires_at);
    let claimed = Claimed { attempt, job, kind, is_admitted, tasks, lease, expires_at, traceparent, tracestate };
    let mut response = HttpResponse::Ok();
    // Read by a coordinator that passes the answer on.
    response.insert_header((ATTEMPT, attempt.0.to_string()));
    if !is_large {
        return Ok(response.json(claimed));
    }
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&claimed));
    match written.await.map_err(|error| error.to_string()).and_then(|json| json.map_err(|error| error.to_string())) {
        Ok(json) => Ok(response.content_type("application/json").body(json)),
        Err(error) => {
            let _ = give_back(term, attempt);
            Err(ApiError::Internal(error))
        }
    }
}

/// Fails an attempt whose payloads could not be read. Tasks with damaged payloads count as failed: given back, they would come
/// to the same worker again and keep it from all others.
fn fail_unread(term: &Term, attempt: AttemptId, error: &UnreadPayloads) {
    let failure = match error {
        UnreadPayloads::Read(error @ (ReadError::Corrupt { .. } | ReadError::NoSuchTasks { .. })) => {
            LeaseFailure::TaskFailed(format!("its payload cannot be read: {error}"))
        }
        UnreadPayloads::Read(_) | UnreadPayloads::Stale => LeaseFailure::Undeliverable,
    };
    // The failure of an attempt without a lease changes nothing.
    let _ = term.driver.input(|engine, now| engine.fail(attempt, failure, now));
}

/// The reason why a claim gets no payloads.
enum UnreadPayloads {
    Read(ReadError),
    /// The attempt holds no lease any more.
    Stale,
}

impl From<UnreadPayloads> for ApiError {
    fn from(error: UnreadPayloads) -> Self {
        match error {
            UnreadPayloads::Read(error) => from_read(error),
            UnreadPayloads::Stale => stale(),
        }
    }
}

/// Gives tasks back that do not reach their worker's host: they were not tried.
fn release_if_lost(state: &State, term: &Arc<Term>, request: &HttpRequest, attempt: AttemptId) {
    let (term, lease_log) = (Arc::downgrade(term), Arc::clone(&state.lease_log));
    when_answer_is_lost(request, move || {
        let Some(term) = term.upgrade() else { return };
        // Without effect where the worker has reported over another connection.
        if give_back(&term, attempt).is_ok() {
            lease_log.ended(attempt, End::Stopped, Instant::now());
        }
    });
}

/// The payloads of a lease, which keeps only its first tasks where the payloads of all are too long for one answer.
async fn stored_payloads(
    term: &Term,
    job: JobId,
    attempt: AttemptId,
    tasks: &mut Range<u64>,
) -> Result<Vec<Box<RawValue>>, UnreadPayloads> {
    let read = UnreadPayloads::Read;
    let payloads = term.store.first_payloads(job, tasks.clone(), MAX_CLAIM_BYTES).await.map_err(read)?;
    let beyond = tasks.start + payloads.len() as u64;
    if beyond == tasks.end {
        return Ok(payloads);
    }
    if term.driver.input(|engine, now| engine.shorten(attempt, beyond, now)).map_err(|_| UnreadPayloads::Stale)? {
        tasks.end = beyond;
        return Ok(payloads);
    }
    // Another attempt holds the same tasks: the two attempts must stay equal.
    term.store.payloads(job, tasks.clone()).await.map_err(read)
}

fn nothing_more() -> HttpResponse {
    HttpResponse::NoContent().insert_header((RETRY_AFTER, DRAINED_RETRY_AFTER_S)).finish()
}
