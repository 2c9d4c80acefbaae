//! `/grid/workers`: the present workers. `/workers` is the API's.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{drain_question_page, workers_page};
use service::ApiError;

use super::super::State;
use super::super::workers::drain_by_name;
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html, see_other};

pub(super) async fn list(state: Data<State>, request: HttpRequest, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    let snapshot = dashboard.snapshot(&state).await?;
    let viewer = visit.viewer(&dashboard.version(&snapshot));
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    let after = fields.iter().find(|(name, _)| name == "after").map(|(_, after)| after.as_str());
    Ok(html(StatusCode::OK, &workers_page(&viewer, &snapshot.workers, after)))
}

/// The confirmation page before a worker is drained.
pub(super) async fn ask(state: Data<State>, path: Path<String>, visit: Visit) -> Result<HttpResponse, PageError> {
    let snapshot = dashboard_of(&state)?.snapshot(&state).await?;
    let worker = snapshot.workers.iter().find(|worker| worker.id.as_str() == *path);
    let worker = worker.ok_or_else(|| of_workers(ApiError::Unknown(format!("there is no worker {:?}", *path))))?;
    Ok(html(StatusCode::OK, &drain_question_page(&visit.viewer(""), worker)))
}

fn of_workers(error: ApiError) -> PageError {
    PageError::with_way(error, "/grid/workers", "To the workers")
}

pub(super) async fn drain(state: Data<State>, path: Path<String>) -> Result<HttpResponse, PageError> {
    drain_by_name(&state, &path).await.map_err(of_workers)?;
    Ok(see_other("/grid/workers"))
}
