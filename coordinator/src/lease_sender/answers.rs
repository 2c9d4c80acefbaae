//! Judges the answers of workers to leases.

use std::time::Duration;

use api::client::{AnswerError, read_bounded_json};
use api::{LeaseOutcome, Problem, StreamedAnswer};
use engine::{LeaseFailure, LeaseOrder};
use reqwest::{Response, StatusCode};
use scheduler::AttemptFailure;
use workloads::Report;

use super::LeaseSender;
use crate::outcomes::{OutcomePermit, OutcomeSize};
use crate::outputs::{Reported, UncountedError};

/// The longest problem document that is read, in bytes.
const MAX_PROBLEM_BYTES: usize = 8 * 1024;

/// Bytes that an outcome's JSON adds to its results.
const OUTCOME_OVERHEAD_BYTES: usize = 4096;

/// The result of sending a lease.
pub(super) enum Sent {
    Completed(Report, Duration, OutcomePermit),
    Failed(LeaseFailure),
    /// The worker does not accept the coordinator's credentials, and has not read the lease.
    KeptOut(String),
    /// The connection broke after the lease had left.
    Broken,
}

impl LeaseSender {
    /// Judges the answer to a request.
    pub(super) async fn judge(&self, response: Response, order: &LeaseOrder) -> Sent {
        let status = response.status();
        if status == StatusCode::OK {
            return self.read_outcome(response, order).await.unwrap_or_else(|sent| sent);
        }
        if let Some(failure) = failure_of(status) {
            return Sent::Failed(failure);
        }
        let problem: Option<Problem> = read_bounded_json(response, MAX_PROBLEM_BYTES).await.ok();
        refused(status, problem.map(|problem| problem.detail))
    }

    /// Judges an answer of a stream, whose outcomes are numbers.
    pub(super) async fn judge_streamed(&self, answer: StreamedAnswer, order: &LeaseOrder) -> Sent {
        match answer {
            StreamedAnswer::Outcome(outcome) => {
                self.counted(outcome, order, OutcomePermit::none()).await.unwrap_or_else(|sent| sent)
            }
            StreamedAnswer::Refusal { problem, .. } => {
                let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                // The bound of a request.
                let detail = Some(problem.detail).filter(|detail| detail.len() <= MAX_PROBLEM_BYTES);
                failure_of(status).map_or_else(|| refused(status, detail), Sent::Failed)
            }
        }
    }

    async fn read_outcome(&self, response: Response, order: &LeaseOrder) -> Result<Sent, Sent> {
        let results = if order.has_results { self.max_result_bytes } else { 0 };
        let (attempt, most) = (order.attempt, results.saturating_add(OUTCOME_OVERHEAD_BYTES));
        let length = response.content_length().and_then(|length| usize::try_from(length).ok());
        if order.has_results && length.is_some_and(|length| length > most) {
            return Err(self.too_long());
        }
        let permit = if order.has_results {
            let size = OutcomeSize { bytes: length.unwrap_or(most), tasks: order.tasks.end - order.tasks.start };
            self.outcomes.reserve(size, || self.driver.outcome_waits(attempt)).await
        } else {
            // A few numbers, and often a client that waits for them.
            OutcomePermit::none()
        };
        let outcome: LeaseOutcome = match read_bounded_json(response, most).await {
            Ok(outcome) => outcome,
            // A worker keeps the outcome of a stored job, and delivers it on request.
            Err(AnswerError::Incomplete(_)) => return Err(Sent::Broken),
            Err(AnswerError::TooLong { .. }) if order.has_results => return Err(self.too_long()),
            Err(error @ (AnswerError::TooLong { .. } | AnswerError::Invalid(_))) => {
                return Err(worker_failed(format!("{:#}", anyhow::Error::from(error))));
            }
        };
        self.counted(outcome, order, permit).await
    }

    /// Checks that an outcome can count.
    async fn counted(&self, outcome: LeaseOutcome, order: &LeaseOrder, permit: OutcomePermit) -> Result<Sent, Sent> {
        let LeaseOrder { job, attempt, kind, .. } = *order;
        if outcome.attempt != attempt {
            return Err(worker_failed(format!("its worker answered for attempt {}", outcome.attempt)));
        }
        let reported = Reported { job, kind, attempt, first: order.tasks.start, results: &outcome.results };
        reported.demand_objects(&self.store).await.map_err(|error| match error {
            UncountedError::Absent(cause) => worker_failed(cause),
            // A worker keeps the outcome, and delivers it on request.
            UncountedError::Read(_) => Sent::Broken,
        })?;
        let report = Report { value: Some(outcome.value), results: outcome.results };
        Ok(Sent::Completed(report, Duration::from_micros(outcome.compute_us), permit))
    }

    /// The failure of a lease whose results are too long, which is no fault of its worker.
    fn too_long(&self) -> Sent {
        Sent::Failed(LeaseFailure::TaskFailed(format!(
            "its results are longer than {} bytes of JSON (DIVVY_MAX_RESULT_BYTES)",
            self.max_result_bytes
        )))
    }
}

/// The failure that a status alone says.
fn failure_of(status: StatusCode) -> Option<LeaseFailure> {
    match status {
        // The worker drains, or has no room.
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(LeaseFailure::HandedBack),
        // The worker's server gave the request up before it had read the head: a worker that was halted for some seconds finds
        // the time limit of the head over when it goes on. Or the address belongs to another process, or the worker follows a
        // coordinator of a later epoch.
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => Some(LeaseFailure::Undeliverable),
        // The worker is of another release, such as in the middle of an upgrade.
        StatusCode::NOT_IMPLEMENTED => Some(LeaseFailure::Unsupported),
        _ => None,
    }
}

fn refused(status: StatusCode, detail: Option<String>) -> Sent {
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        return Sent::Failed(LeaseFailure::TaskFailed(detail.unwrap_or_else(|| "the task failed".to_owned())));
    }
    let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
    let cause = format!("its worker answered {status}{detail}");
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        Sent::KeptOut(cause)
    } else {
        worker_failed(cause)
    }
}

fn worker_failed(cause: String) -> Sent {
    Sent::Failed(LeaseFailure::WorkerFailed(AttemptFailure::Refused(cause)))
}
