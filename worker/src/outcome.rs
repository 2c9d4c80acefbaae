//! The outcome of a lease of a stored job, as the worker keeps it.

use std::sync::Arc;

use actix_web::HttpResponse;
use api::LeaseOutcome;
use model::AttemptId;
use service::ApiError;
use workloads::ExecuteError;

use crate::executor::{Answer, ComputeError, Computed};

/// Bytes that a kept outcome takes beside its results and its error: its entries in the table and in heartbeats.
const OVERHEAD_BYTES: u64 = 512;

/// The longest error that is kept, in characters: a coordinator keeps no more of it.
const MAX_ERROR_CHARS: usize = 1_000;

/// An outcome that is shared by the table, connections and deliveries.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done(Arc<LeaseOutcome>),
    /// The tasks failed by themselves.
    TaskFailed(Arc<str>),
    /// The worker could not do its part, or the computation failed in a way that no task should.
    Broken(Arc<str>),
    /// This worker can never run these tasks.
    Unsupported(Arc<str>),
}

impl Outcome {
    pub(crate) fn new(attempt: AttemptId, answer: Answer) -> Self {
        match answer {
            Ok(computed) => Self::Done(Arc::new(report(attempt, computed))),
            Err(ComputeError::Execute(ExecuteError::Failed(error))) => Self::TaskFailed(shortened(&error)),
            Err(ComputeError::Execute(ExecuteError::Unsupported(error))) => Self::Unsupported(shortened(&error)),
            Err(ComputeError::Execute(ExecuteError::Broken(error))) => Self::Broken(shortened(&error)),
            Err(error @ (ComputeError::Execute(ExecuteError::Stopped) | ComputeError::Panicked(_))) => {
                Self::Broken(shortened(&error.to_string()))
            }
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }

    /// Memory of the kept outcome, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let content = match self {
            Self::Done(outcome) => outcome.results.iter().map(|result| result.get().len() as u64).sum(),
            Self::TaskFailed(error) | Self::Broken(error) | Self::Unsupported(error) => error.len() as u64,
        };
        content + OVERHEAD_BYTES
    }

    /// The answer to `POST /lease`.
    ///
    /// # Errors
    /// The lease has no result.
    pub(crate) fn answer(&self) -> Result<HttpResponse, ApiError> {
        Ok(HttpResponse::Ok().json(self.report()?))
    }

    /// The result of the lease.
    ///
    /// # Errors
    /// The lease has no result.
    pub(crate) fn report(&self) -> Result<&LeaseOutcome, ApiError> {
        match self {
            Self::Done(outcome) => Ok(outcome),
            // The task is at fault, not this worker.
            Self::TaskFailed(error) => Err(ApiError::Mismatch(error.to_string())),
            Self::Broken(error) => Err(ApiError::Failed(error.to_string())),
            Self::Unsupported(error) => Err(ApiError::NotImplemented(error.to_string())),
        }
    }
}

fn report(attempt: AttemptId, Computed { report, busy }: Computed) -> LeaseOutcome {
    let compute_us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
    LeaseOutcome { attempt, value: report.value.unwrap_or(0), results: report.results, compute_us }
}

fn shortened(error: &str) -> Arc<str> {
    match error.char_indices().nth(MAX_ERROR_CHARS) {
        Some((end, _)) => error[..end].into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::ResponseError;
    use serde_json::value::RawValue;
    use uuid::Uuid;
    use workloads::Report;

    use super::*;

    #[test]
    fn each_end_of_a_lease_has_its_own_status() {
        let status = |error| match Outcome::new(AttemptId(Uuid::nil()), Err(error)).answer() {
            Ok(response) => response.status().as_u16(),
            Err(error) => error.status_code().as_u16(),
        };
        assert_eq!(status(ExecuteError::Failed("no".to_owned()).into()), 422);
        assert_eq!(status(ExecuteError::Unsupported("no".to_owned()).into()), 501);
        assert_eq!(status(ExecuteError::Broken("no".to_owned()).into()), 500);
        assert_eq!(status(ComputeError::Panicked("no".to_owned())), 500);
    }

    #[test]
    fn an_outcome_counts_what_its_results_take_and_its_error_is_bounded() {
        let attempt = AttemptId(Uuid::nil());
        let result = RawValue::from_string(format!("\"{}\"", "x".repeat(98))).expect("JSON");
        let report = Report { value: None, results: vec![result] };
        let done = Outcome::new(attempt, Ok(Computed { report, busy: Duration::ZERO }));
        assert_eq!(done.bytes(), 100 + OVERHEAD_BYTES);
        let failed = Outcome::new(attempt, Err(ExecuteError::Failed("ü".repeat(5_000)).into()));
        assert_eq!(failed.bytes(), 2_000 + OVERHEAD_BYTES);
    }
}
