//! The internal port's routes for programs: workers fetch the bytes of programs and the inputs of tasks, and report stderr.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{LogReport, MAX_LOG_BYTES};
use futures_util::stream;
use model::{AttemptId, JobId};
use service::{ApiError, Query, parse_json_leniently, read_body};
use store::{ComposeError, ReadError, WriteError};
use uuid::Uuid;

use super::State;
use super::errors::{from_read, from_write};
use super::jobs::{job_id, unknown};
use super::programs::program_hash;
use super::pull::claims::SERVED_BYTES;
use crate::task_logs::TaskAttempt;

/// The longest report, in bytes: JSON may take six bytes for each byte of a log.
const MAX_REPORT_BYTES: usize = 6 * MAX_LOG_BYTES + 4096;
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of stderr before a report's text: every reader of JSON has numbers up to this one exactly, and the store holds
/// them.
const MAX_LOG_OFFSET: u64 = 1 << 53;

/// The most bytes of inputs in one answer, unless a single input is longer.
const INPUT_BYTES: usize = 4 << 20;
const MAX_INPUTS: u64 = 1_000;

/// `GET /worker/programs/{sha256}`: the bytes of a program.
pub(super) async fn program(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let hash = program_hash(&path)?;
    let bytes = state.programs.store().program_bytes(hash).await.map_err(from_read)?;
    let bytes = bytes.ok_or_else(|| ApiError::Unknown(store::missing(hash)))?;
    let length = bytes.bytes();
    let pieces = stream::try_unfold(bytes, |mut bytes| async move {
        Ok::<_, ReadError>(bytes.next().await?.map(|piece| (piece, bytes)))
    });
    Ok(HttpResponse::Ok().content_type("application/octet-stream").no_chunking(length).streaming(Box::pin(pieces)))
}

/// `GET /worker/jobs/{id}/inputs?first&beyond`: the inputs of a job's tasks, as a list from `first` on. The list may be shorter
/// than requested, and has at least one input.
pub(super) async fn inputs(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let (id, query) = (job_id(&path)?, Query::parse(request.query_string())?);
    let (first, beyond): (u64, u64) = (query.demanded("first")?, query.demanded("beyond")?);
    if first >= beyond {
        return Err(ApiError::InvalidField { field: "beyond", message: "must be above first".to_owned() });
    }
    demand_job(&state, id).await?;
    let tasks = first..beyond.min(first.saturating_add(MAX_INPUTS));
    // The leader's store keeps blocks of payloads in memory.
    let term = state.role.term();
    let store = term.as_ref().map_or_else(|| state.programs.store(), |term| &*term.store);
    let inputs = store.first_payloads(id, tasks, INPUT_BYTES).await.map_err(from_read)?;
    drop(term);
    let bytes: usize = inputs.iter().map(|input| input.get().len()).sum();
    if bytes <= SERVED_BYTES {
        return Ok(HttpResponse::Ok().json(inputs));
    }
    // Made on another thread: heartbeats use this listener's threads.
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&inputs));
    let written = written.await.map_err(|error| ApiError::Internal(error.to_string()))?;
    let json = written.map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(json))
}

/// `GET /worker/jobs/{id}/outputs`: the outputs of a job's tasks, one per line, in the order of the tasks.
pub(super) async fn outputs(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let id = job_id(&path)?;
    demand_job(&state, id).await?;
    let store = &state.term()?.store;
    // The last outputs may be waiting to be committed.
    store.flush().await.map_err(from_write)?;
    let lines = stream::try_unfold(store.output_lines(id), |mut lines| async move {
        Ok::<_, ComposeError>(lines.next().await?.map(|piece| (piece, lines)))
    });
    Ok(HttpResponse::Ok().content_type("application/octet-stream").streaming(Box::pin(lines)))
}

/// `PUT /worker/logs/{job}/{task}/{attempt}`: reports the stderr of an attempt so far.
pub(super) async fn report_log(
    state: Data<State>,
    path: Path<(String, u64, Uuid)>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let (job, task, attempt) = path.into_inner();
    let body = read_body(&request, body, MAX_REPORT_BYTES, REPORT_TIMEOUT, &state.bodies).await?;
    let report: LogReport = parse_json_leniently(&body)?;
    if report.offset > MAX_LOG_OFFSET {
        let message = format!("offset must be at most {MAX_LOG_OFFSET}, but is {}", report.offset);
        return Err(ApiError::InvalidBody { field: Some("offset".to_owned()), message });
    }
    let attempt = TaskAttempt { job: job_id(&job)?, task, id: AttemptId(attempt) };
    let term = state.term()?;
    let (logs, store) = (Arc::clone(&state.programs.logs), Arc::clone(&term.store));
    // A worker that leaves must not keep followers from hearing of a stored log.
    let reporting = term.supervisor.spawn_whole(async move { logs.report(attempt, report, &store).await });
    drop(term);
    reporting.await.unwrap_or(Err(WriteError::Closed)).map_err(from_write)?;
    Ok(HttpResponse::NoContent().finish())
}

/// Refuses a job that is gone: a worker must not take it for one without inputs, or for a temporary error.
async fn demand_job(state: &State, id: JobId) -> Result<(), ApiError> {
    let record = state.programs.store().job(id).await.map_err(from_read)?;
    record.map(drop).ok_or_else(|| unknown(id))
}
