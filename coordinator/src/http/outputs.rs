//! Outputs of single tasks: workers upload long ones at the internal port, clients read all of them at the public one.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::Problem;
use futures_util::{StreamExt, stream};
use model::{AttemptId, JobId, JobKind, OutputObject, ProgramHash, ProgramOutput};
use serde_json::value::RawValue;
use service::{ApiError, Query, body_error};
use store::{AttemptEnd, ComposeError, JobRecord, OutputError, OutputUpload, ReadError};
use tokio::time::error::Elapsed;
use uuid::Uuid;

use super::State;
use super::errors::{from_read, from_write};
use super::jobs::{job_id, unknown};
use crate::outputs::is_leased;
use crate::programs::is_program;
use crate::term::Term;

/// Longest time that the next bytes of an output may take to arrive.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for which an output waits for memory before its worker is told to come again: less than the time that either end keeps
/// a connection whose body is not read.
const ROOM_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes between two checks that the attempt still holds its lease.
const LOOKED_AT_BYTES: u64 = 8 << 20;

/// The attempt that uploads an output, and the task of the output.
#[derive(Clone, Copy, Debug)]
struct Handed {
    job: JobId,
    attempt: AttemptId,
    task: u64,
}

/// `PUT /worker/outputs/{job}/{attempt}/{task}?bytes&sha256&text`: uploads a long output of an attempt that holds its lease,
/// before the outcome that refers to it. Idempotent.
pub(super) async fn put(
    state: Data<State>,
    path: Path<(String, Uuid, u64)>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    state.identity.demand(&request).await?;
    let (job, attempt, task) = path.into_inner();
    let handed = Handed { job: job_id(&job)?, attempt: AttemptId(attempt), task };
    let announced = Query::parse(request.query_string())?;
    let (bytes, text): (u64, bool) = (announced.demanded("bytes")?, announced.demanded("text")?);
    let sha256: ProgramHash = announced.demanded("sha256")?;
    if bytes > state.programs.max_output_bytes {
        let most = usize::try_from(state.programs.max_output_bytes).unwrap_or(usize::MAX);
        return Err(ApiError::BodyTooLarge(most));
    }
    let term = state.term()?;
    handed.demand_lease(&term)?;
    // The tasks are computed: the remaining time depends on this coordinator alone.
    handed.restart_limit(&term);
    if let Some(error) = term.store.is_failing() {
        return Err(ApiError::Storage(error));
    }
    let object = OutputObject { attempt: handed.attempt, bytes, sha256, text };
    // The answer to a complete upload may have been lost: a complete object is the announced one.
    if term.store.keeps_output(handed.job, task, &object).await.map_err(from_read)? {
        return Ok(HttpResponse::NoContent().finish());
    }
    let _room = tokio::time::timeout(ROOM_TIMEOUT, state.outcomes.reserve_upload(bytes)).await.map_err(no_room)?;
    let mut upload = term.store.upload_output(handed.job, task, object).map_err(from_output)?;
    let received = receive(&mut upload, body, handed, &term).await;
    if let Err(error) = received.and_then(|()| handed.demand_lease(&term)) {
        upload.abort().await;
        return Err(error);
    }
    upload.finish().await.map_err(from_output)?;
    state.metrics.output_handed_in(bytes);
    Ok(HttpResponse::NoContent().finish())
}

async fn receive(upload: &mut OutputUpload, mut body: Payload, handed: Handed, term: &Term) -> Result<(), ApiError> {
    let mut looked_at = 0;
    let late = |_| ApiError::BodyTimeout(PIECE_TIMEOUT);
    while let Some(piece) = tokio::time::timeout(PIECE_TIMEOUT, body.next()).await.map_err(late)? {
        let piece = piece.map_err(body_error)?;
        upload.push(&piece).await.map_err(from_output)?;
        if upload.bytes() >= looked_at + LOOKED_AT_BYTES {
            handed.demand_lease(term)?;
            handed.restart_limit(term);
            looked_at = upload.bytes();
        }
    }
    Ok(())
}

impl Handed {
    fn demand_lease(self, term: &Term) -> Result<(), ApiError> {
        if is_leased(term, self.job, self.attempt, self.task) {
            return Ok(());
        }
        Err(ApiError::Conflict("the attempt holds no lease of the task: it ended, expired or never was".to_owned()))
    }

    fn restart_limit(self, term: &Term) {
        // The next check finds an attempt that has just lost its lease.
        let _ = term.driver.input(|engine, now| engine.hands_in(self.attempt, now));
    }
}

fn no_room(_: Elapsed) -> ApiError {
    let message = "the outputs on their way take up the memory that is set aside for them (DIVVY_MAX_OUTCOME_MEMORY)";
    ApiError::Unavailable(message.to_owned())
}

fn from_output(error: OutputError) -> ApiError {
    match error {
        OutputError::Different(_) => ApiError::Mismatch(error.to_string()),
        OutputError::Write(error) => from_write(error),
    }
}

/// The result of one task of a job: the stdout of its program, else JSON.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/tasks/{task}/result",
    operation_id = "task_result",
    tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "The job's id"),
        ("task" = u64, Path, description = "The task's index"),
    ),
    responses(
        (status = 200, description = "The result: JSON; of a program its stdout, as `text/plain` or `application/octet-stream`", content(
            (serde_json::Value = "application/json"), (String = "text/plain"), (Vec<u8> = "application/octet-stream"),
        )),
        (status = 404, description = "There is no such job or task", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The task has no result", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, ApiError> {
    let (id, task) = path.into_inner();
    let id = job_id(&id)?;
    let record = state.store.job(id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
    let found = task.parse().ok().filter(|task| *task < record.tasks);
    let task: u64 = found.ok_or_else(|| ApiError::Unknown(format!("job {id} has no task {task:?}")))?;
    let result = result_of(&state, &record, task).await.map_err(from_read)?;
    let result = result.ok_or_else(|| ApiError::Conflict(format!("task {task} of job {id} has no result")))?;
    if !is_program(record.kind) {
        return state.answers.answer(String::from(Box::<str>::from(result)));
    }
    let output = serde_json::from_str(result.get());
    let output = output.map_err(|_| ApiError::Conflict(format!("task {task} answered no output")))?;
    stream_output(&state, id, task, output).await
}

/// The stored result of a task that is done. A worker may leave the results of `tasks` out: each is `null`, as in the job's
/// result.
async fn result_of(state: &State, record: &JobRecord, task: u64) -> Result<Option<Box<RawValue>>, ReadError> {
    let attempts = state.store.outcomes(record.id, task, 1).await?;
    let completed = attempts.into_iter().find_map(|attempt| match attempt.end {
        AttemptEnd::Completed { results, .. } => Some((attempt.tasks, results)),
        AttemptEnd::Failed { .. } => None,
    });
    let Some((tasks, mut results)) = completed else { return Ok(None) };
    let place = usize::try_from(task - tasks.start).unwrap_or(usize::MAX);
    if place < results.len() {
        return Ok(Some(results.swap_remove(place)));
    }
    Ok((record.kind == JobKind::TASKS).then(|| RawValue::NULL.to_owned()))
}

/// Streams an output with bounded memory, however long the output is.
async fn stream_output(state: &State, id: JobId, task: u64, output: ProgramOutput) -> Result<HttpResponse, ApiError> {
    let is_text = match &output {
        ProgramOutput::Text(_) => true,
        ProgramOutput::Binary { .. } => false,
        ProgramOutput::Object { object } => object.text,
    };
    let bytes = state.store.output_bytes(id, task, output).await.map_err(|error| match error {
        ComposeError::Read(error) => from_read(error),
        ComposeError::Write(error) => from_write(error),
        ComposeError::Combine(error) => ApiError::Conflict(error),
    })?;
    let length = bytes.bytes();
    let pieces = stream::try_unfold(bytes, |mut bytes| async move {
        Ok::<_, ReadError>(bytes.next().await?.map(|piece| (piece, bytes)))
    });
    let content_type = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    Ok(HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .no_chunking(length)
        .streaming(Box::pin(pieces)))
}
