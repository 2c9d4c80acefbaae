//! `/v1/programs`: programs that clients have uploaded.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, CONTENT_LENGTH};
use actix_web::web::{Data, Json, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{ParsedJob, Problem, Program, ProgramNames, ProgramPage};
use futures_util::StreamExt;
use model::{JobKind, ProgramHash, ProgramKind};
use serde::Deserialize;
use service::{ApiError, Caller, Query, Right, body_error};
use sha2::{Digest, Sha256};
use store::{ProgramRecord, ProgramUpload, Store, UploadError};
use utoipa::IntoParams;

use super::State;
use super::dashboard::FormFile;
use super::errors::{from_read, from_write};
use super::query::{page_limit, page_token};
use crate::clock::now;

/// Longest time that a program may take to arrive.
pub(crate) const UPLOAD_TIMEOUT: Duration = Duration::from_mins(10);

/// Longest time that the next bytes of a program may take: few uploads run at a time, and a client that is gone must not hold
/// its place.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// Query of a list of programs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which are read one by one")]
pub(super) struct ProgramPageQuery {
    /// The `next_page_token` of the page before.
    page_token: Option<String>,
    /// The most to list, 1 to 1000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Stores a program under the SHA-256 of its bytes, which are the body. Idempotent.
#[utoipa::path(
    put,
    path = "/v1/programs/{sha256}",
    operation_id = "put_program",
    tag = "programs",
    params(("sha256" = String, Path, description = "The SHA-256 of the body", pattern = "^[0-9a-fA-F]{64}$")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A WebAssembly module or component, or an executable"),
    responses(
        (status = 201, description = "The program is stored", body = Program),
        (status = 200, description = "The program was stored before", body = Program),
        (status = 400, description = "The body is no program", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token lacks the right, or there are no tokens", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The body has another SHA-256", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    caller: Caller,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    demand_programs(&caller)?;
    let (hash, max_bytes) = (program_hash(&path)?, state.programs.max_bytes);
    let too_large = || ApiError::BodyTooLarge(usize::try_from(max_bytes).unwrap_or(usize::MAX));
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let _permit = state.programs.uploads.try_acquire();
    let _permit = _permit.map_err(|_| {
        ApiError::TooManyRequests("as many programs as allowed are being uploaded; try again later".to_owned())
    })?;
    let store = Arc::clone(&state.term()?.store);
    let mut upload = store.upload_program(hash).await;
    let received = tokio::time::timeout(UPLOAD_TIMEOUT, receive(&mut upload, body, max_bytes, too_large)).await;
    let kind = match received.unwrap_or(Err(ApiError::BodyTimeout(UPLOAD_TIMEOUT))) {
        Ok(kind) => kind,
        Err(error) => {
            upload.abort().await;
            return Err(error);
        }
    };
    let is_new = keep(&store, upload, hash, kind, &caller).await?;
    let record = store.program(hash).await.map_err(from_read)?.ok_or_else(|| no_program(hash))?;
    let mut response = if is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.insert_header((header::LOCATION, format!("/v1/programs/{hash}"))).json(view(record)))
}

/// Makes an upload durable. Returns whether the program is new.
async fn keep(
    store: &Store,
    upload: ProgramUpload,
    hash: ProgramHash,
    kind: ProgramKind,
    caller: &Caller,
) -> Result<bool, ApiError> {
    let uploaded_by = caller.name().map(|name| name.to_string());
    let record = ProgramRecord { hash, bytes: upload.bytes(), kind, uploaded_at: now().at, uploaded_by };
    store.put_program(upload, record).await.map_err(from_upload)
}

/// Stores a program. `open` reads it from its beginning: once for its hash, which names it in the store, and once for its bytes.
pub(super) async fn put_whole(
    state: &State,
    open: impl AsyncFn() -> Result<FormFile, ApiError>,
    caller: &Caller,
) -> Result<ProgramHash, ApiError> {
    demand_programs(caller)?;
    let (mut digest, mut bytes, mut start) = (Sha256::new(), 0, Vec::new());
    let mut file = open().await?;
    while let Some(piece) = file.next().await? {
        digest.update(&piece);
        bytes += piece.len() as u64;
        start.extend(piece.iter().take(ProgramKind::MAGIC_BYTES - start.len()));
    }
    if bytes > state.programs.max_bytes {
        return Err(ApiError::BodyTooLarge(usize::try_from(state.programs.max_bytes).unwrap_or(usize::MAX)));
    }
    let kind = ProgramKind::of(&start).ok_or_else(no_kind)?;
    let hash = ProgramHash(digest.finalize().into());
    let store = Arc::clone(&state.term()?.store);
    let mut upload = store.upload_program(hash).await;
    let mut file = open().await?;
    while let Some(piece) = file.next().await? {
        if let Err(error) = upload.push(&piece).await {
            upload.abort().await;
            return Err(from_write(error));
        }
    }
    keep(&store, upload, hash, kind, caller).await?;
    Ok(hash)
}

fn no_kind() -> ApiError {
    let message = "it is neither WebAssembly nor an executable (ELF, or a script with #!)".to_owned();
    ApiError::InvalidBody { field: None, message }
}

/// Receives the body of an upload and detects the kind of the program.
async fn receive(
    upload: &mut ProgramUpload,
    mut body: Payload,
    max_bytes: u64,
    too_large: impl Fn() -> ApiError,
) -> Result<ProgramKind, ApiError> {
    let mut start = Vec::new();
    let late = |_| ApiError::BodyTimeout(PIECE_TIMEOUT);
    while let Some(part) = tokio::time::timeout(PIECE_TIMEOUT, body.next()).await.map_err(late)? {
        let part = part.map_err(body_error)?;
        if upload.bytes() + part.len() as u64 > max_bytes {
            return Err(too_large());
        }
        start.extend(part.iter().take(ProgramKind::MAGIC_BYTES - start.len()));
        upload.push(&part).await.map_err(from_write)?;
    }
    ProgramKind::of(&start).ok_or_else(no_kind)
}

/// Lists the stored programs by their hashes.
#[utoipa::path(
    get,
    path = "/v1/programs",
    operation_id = "list_programs",
    tag = "programs",
    params(ProgramPageQuery),
    responses(
        (status = 200, description = "A page of programs", body = ProgramPage),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(state: Data<State>, request: HttpRequest) -> Result<Json<ProgramPage>, ApiError> {
    let query = Query::parse(request.query_string())?;
    let (after, limit) = (page_token(&query)?, page_limit(&query)?);
    let mut programs = state.programs.store().programs(after, limit + 1).await.map_err(from_read)?;
    let has_more = programs.len() > limit;
    programs.truncate(limit);
    let next_page_token = programs.last().filter(|_| has_more).map(|last| last.hash.to_string());
    Ok(Json(ProgramPage { programs: programs.into_iter().map(view).collect(), next_page_token }))
}

/// A stored program.
#[utoipa::path(
    get,
    path = "/v1/programs/{sha256}",
    operation_id = "show_program",
    tag = "programs",
    params(("sha256" = String, Path, description = "The SHA-256 of the program")),
    responses(
        (status = 200, description = "The program", body = Program),
        (status = 404, description = "There is no such program", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(state: Data<State>, path: Path<String>) -> Result<Json<Program>, ApiError> {
    let hash = program_hash(&path)?;
    let program = state.programs.store().program(hash).await.map_err(from_read)?;
    program.map(view).map(Json).ok_or_else(|| no_program(hash))
}

/// Deletes a program that no open job needs.
#[utoipa::path(
    delete,
    path = "/v1/programs/{sha256}",
    operation_id = "delete_program",
    tag = "programs",
    params(("sha256" = String, Path, description = "The SHA-256 of the program")),
    responses(
        (status = 204, description = "The program is deleted"),
        (status = 403, description = "The token lacks the right, or there are no tokens", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such program", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "An open job needs the program", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(state: Data<State>, path: Path<String>, caller: Caller) -> Result<HttpResponse, ApiError> {
    demand_programs(&caller)?;
    let hash = program_hash(&path)?;
    match state.term()?.store.delete_program(hash).await.map_err(from_write)? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(no_program(hash)),
    }
}

/// The programs of the present workers: those that they bring, and whether they run uploaded ones.
#[utoipa::path(
    get,
    path = "/v1/programs/names",
    operation_id = "list_program_names",
    tag = "programs",
    responses(
        (status = 200, description = "The programs by name", body = ProgramNames),
        (status = "default", description = "Any error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn names(state: Data<State>) -> Json<ProgramNames> {
    Json(state.programs.names())
}

fn view(record: ProgramRecord) -> Program {
    let ProgramRecord { hash, bytes, kind, uploaded_at, uploaded_by } = record;
    Program { sha256: hash, bytes, kind, uploaded_at, uploaded_by }
}

/// Demands the right to programs. Arbitrary code is never open by default: without tokens nobody has the right.
pub(super) fn demand_programs(caller: &Caller) -> Result<(), ApiError> {
    if caller.has(Right::Programs) {
        return Ok(());
    }
    Err(ApiError::Forbidden(if caller.name().is_some() {
        "the token lacks the right \"programs\"".to_owned()
    } else {
        "programs need a token with the right \"programs\", and this coordinator has no tokens: make one with \
         `divvy token new NAME --rights read,submit,programs --file FILE` and start the coordinator with \
         DIVVY_API_TOKENS_FILE=FILE"
            .to_owned()
    }))
}

/// Lets the code that a job of the kind `tasks` carries run, if its client has the right to programs. Without tokens, a client
/// of a loopback listener is a user of the machine.
pub(super) fn admit_carried_code(
    state: &State,
    caller: &Caller,
    job: &mut ParsedJob,
    carries_code: bool,
) -> Result<(), ApiError> {
    if job.kind == JobKind::TASKS {
        let is_local = state.is_loopback && caller.may(Right::Programs);
        job.options.is_admitted = is_local || caller.has(Right::Programs);
    }
    if !carries_code || job.options.is_admitted {
        return Ok(());
    }
    Err(ApiError::Forbidden(if caller.name().is_some() {
        "the payloads carry code, and the token lacks the right \"programs\"".to_owned()
    } else {
        "the payloads carry code, which needs a token with the right \"programs\", and this coordinator has no tokens: \
         make one with `divvy token new NAME --rights read,submit,programs --file FILE` and start the coordinator with \
         DIVVY_API_TOKENS_FILE=FILE, or let it listen on a loopback address alone (DIVVY_PUBLIC_ADDR)"
            .to_owned()
    }))
}

pub(super) fn program_hash(text: &str) -> Result<ProgramHash, ApiError> {
    text.parse().map_err(super::errors::from_invalid)
}

fn no_program(hash: ProgramHash) -> ApiError {
    ApiError::Unknown(store::missing(hash))
}

fn from_upload(error: UploadError) -> ApiError {
    match error {
        UploadError::Mismatch { .. } => ApiError::Mismatch(error.to_string()),
        UploadError::Write(error) => from_write(error),
    }
}
