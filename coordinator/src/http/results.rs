//! `/v1/jobs/{id}/result` and `/v1/results/{name}`: results of jobs.

use std::time::{Duration, Instant};

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use api::Problem;
use futures_util::{StreamExt, stream};
use service::{ApiError, Query};
use store::{ReadError, ResultStream};

use super::State;
use super::errors::from_read;
use super::jobs::job_id;
use super::query::seconds;
use super::waiting::until_over;

/// The longest wait for a result.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The result of a job that has succeeded, also long after.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/result",
    operation_id = "job_result",
    tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "The job's id"),
        ("wait" = Option<String>, Query, description = "How long to wait for the result, up to 60s: `30s` or `30`"),
    ),
    responses(
        (status = 200, description = "The result: `{\"sum\": …}`, `{\"count\": …}` or `{\"tasks\": …}`", body = serde_json::Value),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has no result yet, or will have none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The coordinator stops during the wait", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_job(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let id = job_id(&path)?;
    let query = Query::parse(request.query_string())?;
    let wait = query.one("wait")?.map(|text| seconds("wait", text, MAX_WAIT)).transpose()?.unwrap_or_default();
    let until = Instant::now() + wait;
    let mut record = until_over(&state, id, wait).await?;
    if let Some(result) = state.store.result_stream(id).await.map_err(from_read)? {
        return stream(result).await;
    }
    // A conflict would say that the job has not ended within the time.
    if !record.state.is_over() && state.health.is_draining() && Instant::now() < until {
        return Err(ApiError::Unavailable("the coordinator is stopping".to_owned()));
    }
    state.note_start(&mut record);
    Err(ApiError::Conflict(match record.error {
        Some(error) => format!("there is no result: the job is {} ({error})", record.state),
        None => format!("there is no result: the job is {}", record.state),
    }))
}

/// The newest result that a job stored under its `output` name.
#[utoipa::path(
    get,
    path = "/v1/results/{name}",
    operation_id = "named_result",
    tag = "jobs",
    params(("name" = String, Path, description = "The `output` of a job")),
    responses(
        (status = 200, description = "The result", body = serde_json::Value),
        (status = 404, description = "No job that has succeeded has this name", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn by_name(state: Data<State>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let result = state.store.result_stream_by_name(&path).await.map_err(from_read)?;
    let result =
        result.ok_or_else(|| ApiError::Unknown(format!("there is no result under the name {:?}", path.as_str())))?;
    stream(result).await
}

/// Streams a result with bounded memory, however large the result is.
pub(super) async fn stream(mut result: ResultStream) -> Result<HttpResponse, ApiError> {
    let bytes = result.bytes();
    // Read before the status is sent: a small result is then checked as a whole.
    let first = result.next().await.map_err(from_read)?.unwrap_or_default();
    let rest = stream::try_unfold(result, |mut result| async move {
        Ok::<_, ReadError>(result.next().await?.map(|piece| (piece, result)))
    });
    let pieces = stream::once(async move { Ok(first) }).chain(rest);
    Ok(HttpResponse::Ok().content_type("application/json").no_chunking(bytes).streaming(Box::pin(pieces)))
}
