//! `GET /workers`: the workers that are registered now.

use std::time::Instant;

use actix_web::web::{Data, Json};
use api::{Problem, WorkerSummary};
use model::WorkerId;

use super::State;
use crate::registry::Registration;

/// The workers that are registered now.
#[utoipa::path(
    get,
    path = "/workers",
    operation_id = "list_workers",
    tag = "workers",
    responses(
        (status = 200, description = "By name", body = Vec<WorkerSummary>),
        (status = "default", description = "Any error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(state: Data<State>) -> Json<Vec<WorkerSummary>> {
    let now = Instant::now();
    let workers = state.registry.snapshot().into_iter();
    Json(workers.map(|(id, registration)| summarize(&state, id, &registration, now)).collect())
}

fn summarize(state: &State, id: WorkerId, registration: &Registration, now: Instant) -> WorkerSummary {
    let silent = now.saturating_duration_since(registration.last_seen_at);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people, never negative")]
    let speed_numbers_per_s = registration.speed.numbers_per_second().map(|speed| speed as u64);
    WorkerSummary {
        id,
        boot_id: registration.heartbeat.boot_id,
        address: registration.address,
        slots: registration.heartbeat.slots,
        busy: u32::try_from(state.grid.leases_of(registration.key)).unwrap_or(u32::MAX),
        running: registration.heartbeat.running,
        last_seen_ms_ago: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        state: registration.state(),
        completed_tasks: registration.completed_tasks,
        speed_numbers_per_s,
        cpu_load: registration.heartbeat.cpu_load,
        free_memory_bytes: registration.heartbeat.free_memory_bytes,
        labels: registration.heartbeat.labels.clone(),
        resources: registration.heartbeat.resources,
        kinds: registration.heartbeat.kinds.clone(),
        version: registration.heartbeat.version.clone(),
    }
}
