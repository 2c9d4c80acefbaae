//! `/`: the overview of the grid.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use api::WorkerState;
use dashboard::{Overview, overview_page};
use service::ApiError;

use super::super::State;
use super::page::{PageError, Visit, html};
use super::snapshot::{Dashboard, Snapshot};

pub(super) async fn show(state: Data<State>, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    let snapshot = dashboard.snapshot(&state).await?;
    let Snapshot { stats, workers, slots, running, stuck, failed, .. } = &*snapshot;
    let suspended: Vec<_> = workers.iter().filter(|worker| worker.state == WorkerState::Suspended).collect();
    let history = dashboard.history();
    let stats = stats.as_ref();
    let overview = Overview { stats, history: &history, running, stuck, failed, slots: *slots, suspended: &suspended };
    Ok(html(StatusCode::OK, &overview_page(&visit.viewer(&dashboard.version(&snapshot)), &overview)))
}

/// The dashboard's state; its routes exist only with it.
pub(super) fn dashboard_of(state: &State) -> Result<&Dashboard, ApiError> {
    state.dashboard.as_ref().ok_or_else(|| ApiError::Unavailable("the dashboard is off".to_owned()))
}
