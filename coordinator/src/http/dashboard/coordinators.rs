//! `/grid/coordinators`: the live coordinators. Each coordinator answers for all, also while none leads.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use dashboard::coordinators_page;

use super::super::State;
use super::super::errors::from_read;
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html};

pub(super) async fn list(state: Data<State>, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    let coordinators = state.members.list().await.map_err(from_read)?;
    // The ticks come from the leader and tell nothing of a standby: there the page reloads with each tick.
    let version = match state.role.term() {
        Some(_) => dashboard.snapshot(&state).await.map(|snapshot| dashboard.version(&snapshot)).unwrap_or_default(),
        None => String::new(),
    };
    Ok(html(StatusCode::OK, &coordinators_page(&visit.viewer(&version), &coordinators)))
}
