//! `GET /sum-of-primes?a&b`: answers alone, without a coordinator, on one slot. Where there is a token it is demanded: a
//! stranger could keep the slots from the coordinator.

use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use api::{Stretch, SumOfPrimes, Work};
use service::{ApiError, range_from_query};

use super::State;

pub(super) async fn answer(state: Data<State>, request: HttpRequest) -> Result<Json<SumOfPrimes>, ApiError> {
    let started_at = Instant::now();
    state.token.demand(&request)?;
    let range = range_from_query(request.query_string())?;
    let _permit = state.intake.enter_direct()?;
    let work = Work::SumOfPrimes(Stretch { a: range.a(), b: range.b(), horizon: range.b() });
    let result = tokio::select! {
        result = state.executor.submit(work).finish() => result,
        stopping = state.intake.must_hand_back() => return Err(stopping),
    };
    let computed = result.map_err(|error| ApiError::Failed(error.to_string()))?;
    let elapsed_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(SumOfPrimes { a: range.a(), b: range.b(), sum: computed.value, tasks: 1, elapsed_ms }))
}
