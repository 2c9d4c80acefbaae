//! `/grid/workers`: the workers that are there now. `/workers` is the API's.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use dashboard::workers_page;

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

pub(super) async fn drain(state: Data<State>, path: Path<String>) -> Result<HttpResponse, PageError> {
    drain_by_name(&state, &path).await?;
    Ok(see_other("/grid/workers"))
}
