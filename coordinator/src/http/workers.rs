//! `GET /workers`: the present workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Path};
use api::{Delivery, Problem, WorkerState, WorkerSummary, WorkerSuspension};
use engine::{Standing, Suspension, WorkerView};
use model::WorkerId;
use service::ApiError;
use store::WriteError;

use super::State;
use super::errors::from_write;
use crate::drains;
use crate::pull_workers::PullWorker;
use crate::term::Term;
use crate::workers::Registration;

/// The present workers: those that registered, and those that pull.
#[utoipa::path(
    get,
    path = "/workers",
    operation_id = "list_workers",
    tag = "workers",
    responses(
        (status = 200, description = "The workers by name", body = Vec<WorkerSummary>),
        (status = "default", description = "Any error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(state: Data<State>) -> Json<Vec<WorkerSummary>> {
    Json(summaries(&state))
}

/// The present workers, by name.
pub(super) fn summaries(state: &State) -> Vec<WorkerSummary> {
    let (now, term) = (Instant::now(), state.role.term());
    let pushed = state.workers.snapshot();
    let pushed = pushed.into_iter().map(|(id, worker)| of_pushed(term.as_deref(), id, worker, now));
    let pulled = term.iter().flat_map(|term| {
        let known = term.pull_workers.snapshot();
        known.into_iter().map(|(id, worker)| of_pulled(term, id, worker, now))
    });
    let mut workers: Vec<_> = pushed.chain(pulled).collect();
    workers.sort_by(|one, other| one.id.cmp(&other.id));
    workers
}

/// Drains a worker: it ends its leases and gets no new ones until its process is started again; a pulling worker, until no
/// process has asked under its name for 90 s. Idempotent.
#[utoipa::path(
    post,
    path = "/workers/{id}/drain",
    operation_id = "drain_worker",
    tag = "workers",
    params(("id" = String, Path, description = "The worker's name")),
    responses(
        (status = 204, description = "The worker gets no new leases"),
        (status = 404, description = "There is no worker of this name", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn drain(state: Data<State>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    drain_by_name(&state, &path).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn drain_by_name(state: &State, name: &str) -> Result<(), ApiError> {
    let term = state.term()?;
    let unknown = || ApiError::Unknown(format!("there is no worker {name:?}"));
    let worker: WorkerId = name.parse().map_err(|_| unknown())?;
    let (own, workers) = (Arc::clone(&term), Arc::clone(&state.workers));
    // A client that leaves must not leave a drain that is stored and has not begun.
    let draining = term.supervisor.spawn_whole(async move { drains::drain(&own, &workers, &worker).await });
    if !draining.await.unwrap_or(Err(WriteError::Closed)).map_err(from_write)? {
        return Err(unknown());
    }
    if let Some(dashboard) = &state.dashboard {
        dashboard.outdate();
    }
    Ok(())
}

fn of_pushed(term: Option<&Term>, id: WorkerId, registration: Registration, now: Instant) -> WorkerSummary {
    let Registration { key, address, heartbeat, last_seen_at, .. } = registration;
    let view = term.zip(key).and_then(|(term, key)| term.driver.view(|engine| engine.worker(key)));
    let is_unknown = view.is_none();
    let mut kinds = heartbeat.kinds;
    if let Some(view) = &view {
        kinds.retain(|kind| !view.lacks.contains(kind));
    }
    let mut summary = WorkerSummary {
        delivery: Delivery::Pushed,
        boot_id: Some(heartbeat.boot_id),
        address: Some(address),
        slots: heartbeat.slots,
        running: heartbeat.running,
        cpu_load: heartbeat.cpu_load,
        free_memory_bytes: heartbeat.free_memory_bytes,
        labels: heartbeat.labels,
        resources: heartbeat.resources,
        kinds,
        version: heartbeat.version,
        ..summary(view, id, now.saturating_duration_since(last_seen_at))
    };
    // A standby knows from heartbeats that a worker drains.
    if is_unknown && heartbeat.is_draining {
        summary.state = WorkerState::Draining;
    }
    summary
}

fn of_pulled(term: &Term, id: WorkerId, worker: PullWorker, now: Instant) -> WorkerSummary {
    let view = term.driver.view(|engine| engine.worker(worker.key));
    let summary = summary(view, id, now.saturating_duration_since(worker.last_seen_at));
    let PullWorker { labels, resources, kinds, .. } = worker;
    WorkerSummary { running: summary.busy, labels, resources, kinds, ..summary }
}

/// A worker's summary from the engine's view of it.
fn summary(view: Option<WorkerView>, id: WorkerId, silent: Duration) -> WorkerSummary {
    let standing = view.as_ref().map(|view| view.standing);
    let speed = view.as_ref().and_then(|view| view.numbers_per_second);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people, never negative")]
    let speed_numbers_per_s = speed.map(|speed| speed as u64);
    WorkerSummary {
        id,
        delivery: Delivery::Pulled,
        boot_id: None,
        address: None,
        slots: 1,
        busy: view.as_ref().map_or(0, |view| u32::try_from(view.leases).unwrap_or(u32::MAX)),
        running: 0,
        last_seen_ms_ago: milliseconds(silent),
        state: match standing {
            Some(Standing::Suspended) => WorkerState::Suspended,
            Some(Standing::Draining) => WorkerState::Draining,
            Some(Standing::Ready) | None => WorkerState::Ready,
        },
        suspension: view.as_ref().and_then(|view| view.suspension).map(of_suspension),
        completed_tasks: view.map_or(0, |WorkerView { completed_tasks, .. }| completed_tasks),
        speed_numbers_per_s,
        cpu_load: 0.0,
        free_memory_bytes: 0,
        labels: model::Labels::new(),
        resources: model::Resources::default(),
        kinds: Vec::new(),
        version: String::new(),
    }
}

fn of_suspension(Suspension { reason, until }: Suspension) -> WorkerSuspension {
    let ends_in_ms = until.map(|until| milliseconds(until.saturating_duration_since(Instant::now())));
    WorkerSuspension { reason: reason.to_string(), ends_in_ms }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
