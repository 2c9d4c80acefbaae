//! `GET /sum-of-primes?a&b`: computes without a coordinator, on one slot. Requires the worker token where one is set: a
//! stranger could keep the slots from the coordinator.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use api::SumOfPrimes;
use model::{Algorithm, InvalidJob, JobKind, NumberRange};
use serde_json::json;
use serde_json::value::to_raw_value;
use service::{ApiError, Query, range_from_query, trace};
use workloads::Workload;

use super::State;
use crate::executor::Work;

/// A sieve of the whole range is one task.
const CHUNK_SIZE: NonZeroU64 = NonZeroU64::MAX;

pub(super) async fn answer(state: Data<State>, request: HttpRequest) -> Result<Json<SumOfPrimes>, ApiError> {
    let started_at = Instant::now();
    state.token.demand(&request)?;
    let range = range_from_query(request.query_string())?;
    let algorithm = Query::parse(request.query_string())?.one("algorithm")?.map(str::parse).transpose();
    let algorithm = algorithm.map_err(|error: InvalidJob| invalid(error))?.unwrap_or_default();
    let _permit = state.intake.enter_direct()?;
    let work = work_on(range, algorithm).map_err(|error| ApiError::Failed(error.to_string()))?;
    let sum = tokio::select! {
        sum = compute(&state, &*work) => sum?,
        stopping = state.intake.must_hand_back() => return Err(stopping),
    };
    let elapsed_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (tasks, algorithm) = (work.tasks(), work.algorithm().unwrap_or(Algorithm::Sieve));
    Ok(Json(SumOfPrimes { a: range.a(), b: range.b(), sum, algorithm, verified: false, tasks, elapsed_ms }))
}

fn invalid(InvalidJob { field, message }: InvalidJob) -> ApiError {
    ApiError::InvalidField { field, message }
}

fn work_on(range: NumberRange, algorithm: Algorithm) -> anyhow::Result<Arc<dyn Workload>> {
    let params = json!({"a": range.a(), "b": range.b(), "algorithm": algorithm});
    Ok(workloads::kind(JobKind::SUM_OF_PRIMES)?.parse(&to_raw_value(&params)?, CHUNK_SIZE)?.workload)
}

/// Computes one section after the other and adds them up.
async fn compute(state: &State, work: &dyn Workload) -> Result<u128, ApiError> {
    let failed = |error: String| ApiError::Failed(error);
    let (mut total, mut start) = (0_u128, 0);
    for end in work.sections().into_iter().chain([work.tasks()]) {
        let tasks = start..end;
        let lease = Work {
            lease: None,
            kind: JobKind::SUM_OF_PRIMES,
            work: work.lease(&tasks, end),
            tasks: tasks.clone(),
            trace: trace::current(),
        };
        let computed = state.executor.compute(lease).finish().await.map_err(|error| failed(error.to_string()))?;
        let accepted = work.accept(&tasks, computed.report).map_err(|error| failed(error.to_string()))?;
        total = total.wrapping_add(accepted.value);
        start = end;
    }
    work.judge(total, 0).map_err(|error| failed(error.to_string()))?;
    Ok(total)
}
