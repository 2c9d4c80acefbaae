//! `/v1/jobs/{id}/tasks/skip`: tasks that a client no longer wants while their job goes on.

use actix_web::web::{Data, Json, Path, Payload};
use api::{MAX_SKIPPED, Problem, SkipRequest, Skipped};
use service::ApiError;

use super::State;
use super::errors::from_change;
use super::jobs::job_id;

/// Ends tasks that have not begun: each has succeeded with the result `null`, and no worker runs it. A repeated request gets the
/// same answer.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/tasks/skip",
    operation_id = "skip_tasks",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id")),
    request_body = SkipRequest,
    responses(
        (status = 200, description = "The tasks that are skipped, by this request or an earlier one", body = Skipped),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job, or the job has no task of one of these numbers: nothing is skipped", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job is over and none of the tasks is skipped, or it is not of the kind `tasks`", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn skip(state: Data<State>, path: Path<String>, body: Payload) -> Result<Json<Skipped>, ApiError> {
    let id = job_id(&path)?;
    let SkipRequest { tasks } = service::read_json(body).await?;
    if !(1..=MAX_SKIPPED).contains(&tasks.len()) {
        return Err(ApiError::InvalidField { field: "tasks", message: format!("must name 1 to {MAX_SKIPPED} tasks") });
    }
    state.term()?.jobs.skip(id, tasks).await.map(|skipped| Json(Skipped { skipped })).map_err(from_change)
}
