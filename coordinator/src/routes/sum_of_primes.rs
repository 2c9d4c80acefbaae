//! `GET /sum-of-primes?a&b`: a job that lives as long as its client waits.

use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use protocol::{JobOptions, JobWork, SumOfPrimes};
use scheduler::JobError;
use service::{ApiError, range_from_query};

use super::State;
use crate::grid::JobFailure;

pub(super) async fn answer(state: Data<State>, request: HttpRequest) -> Result<Json<SumOfPrimes>, ApiError> {
    let started_at = Instant::now();
    let range = range_from_query(request.query_string())?;
    let full = |_| ApiError::Unavailable("as many requests as allowed are in flight".to_owned());
    let _permit = state.inflight.try_acquire().map_err(full)?;
    let options = JobOptions { max_attempts: state.max_attempts, ..JobOptions::default() };
    let job = state.grid.submit(JobWork::SumOfPrimes(range), &options);
    let tasks = job.tasks;
    let sum = job.sum().await.map_err(explain)?;
    let elapsed_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(SumOfPrimes { a: range.a(), b: range.b(), sum, tasks, elapsed_ms }))
}

fn explain(failure: JobFailure) -> ApiError {
    match failure {
        JobFailure::Scheduler(error @ (JobError::NoWorker { .. } | JobError::TimedOut)) => {
            ApiError::Unavailable(error.to_string())
        }
        JobFailure::Scheduler(error @ (JobError::AttemptsExhausted { .. } | JobError::TasksFailed { .. })) => {
            ApiError::WorkersFailed(error.to_string())
        }
        JobFailure::Stopping => ApiError::Unavailable(failure.to_string()),
    }
}
