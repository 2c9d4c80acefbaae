//! `/`: what the grid does.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use api::{WorkerState, WorkerSummary};
use dashboard::{Overview, overview_page};
use service::ApiError;

use super::super::State;
use super::page::{PageError, Visit, html};
use super::snapshot::{Dashboard, Snapshot};

pub(super) async fn show(state: Data<State>, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    let snapshot = dashboard.snapshot(&state).await?;
    let Snapshot { stats, workers, running, stuck, failed, .. } = &*snapshot;
    let suspended = workers.iter().filter(|worker| worker.state == WorkerState::Suspended);
    let suspended: Vec<String> = suspended.map(|worker| worker.id.to_string()).collect();
    let slots = slots(workers);
    let history = dashboard.history();
    let stats = stats.as_ref();
    let overview = Overview { stats, history: &history, running, stuck, failed, slots, suspended: &suspended };
    Ok(html(StatusCode::OK, &overview_page(&visit.viewer(&dashboard.version(&snapshot)), &overview)))
}

/// The slots that compute, and all. Those of simulated workers are not among them.
fn slots(workers: &[WorkerSummary]) -> (u64, u64) {
    let busy = workers.iter().map(|worker| u64::from(worker.running.max(worker.busy.min(worker.slots))));
    (busy.sum(), workers.iter().map(|worker| u64::from(worker.slots)).sum())
}

/// The routes are there only with it.
pub(super) fn dashboard_of(state: &State) -> Result<&Dashboard, ApiError> {
    state.dashboard.as_ref().ok_or_else(|| ApiError::Unavailable("the dashboard is off".to_owned()))
}
