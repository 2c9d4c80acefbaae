//! `GET /sum-of-primes?a&b`: answers alone, without a coordinator, on one slot. Where there is a token it is demanded: a
//! stranger could keep the slots from the coordinator.

use std::num::NonZeroU64;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use api::SumOfPrimes;
use model::{JobKind, NumberRange};
use serde_json::value::to_raw_value;
use service::{ApiError, range_from_query};

use super::State;
use crate::executor::Work;

/// The whole range is one task.
const CHUNK_SIZE: NonZeroU64 = NonZeroU64::MAX;

pub(super) async fn answer(state: Data<State>, request: HttpRequest) -> Result<Json<SumOfPrimes>, ApiError> {
    let started_at = Instant::now();
    state.token.demand(&request)?;
    let range = range_from_query(request.query_string())?;
    let _permit = state.intake.enter_direct()?;
    let work = work_on(range).map_err(|error| ApiError::Failed(error.to_string()))?;
    let result = tokio::select! {
        result = state.executor.compute(work).finish() => result,
        stopping = state.intake.must_hand_back() => return Err(stopping),
    };
    let computed = result.map_err(|error| ApiError::Failed(error.to_string()))?;
    let elapsed_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let sum = computed.report.value.unwrap_or(0);
    Ok(Json(SumOfPrimes { a: range.a(), b: range.b(), sum, tasks: 1, elapsed_ms }))
}

fn work_on(range: NumberRange) -> anyhow::Result<Work> {
    let kind = JobKind::SUM_OF_PRIMES;
    let workload = workloads::kind(kind)?.parse(&to_raw_value(&range)?, CHUNK_SIZE)?.workload;
    let tasks = 0..workload.tasks();
    Ok(Work { lease: None, kind, work: workload.lease(&tasks, tasks.end), tasks })
}
