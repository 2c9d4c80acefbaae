//! `GET /v1/coordinators`: the coordinators of this grid.

use actix_web::web::{Data, Json};
use api::{CoordinatorList, Problem};
use service::ApiError;

use super::State;
use super::errors::from_read;

/// The coordinators of this grid, and which of them leads. Each coordinator answers for all.
#[utoipa::path(
    get,
    path = "/v1/coordinators",
    operation_id = "list_coordinators",
    tag = "grid",
    responses(
        (status = 200, description = "The coordinators in the order of their starts", body = CoordinatorList),
        (status = "default", description = "Any error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(state: Data<State>) -> Result<Json<CoordinatorList>, ApiError> {
    let coordinators = state.members.list().await.map_err(from_read)?;
    Ok(Json(CoordinatorList { coordinators }))
}
