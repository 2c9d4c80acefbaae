//! `GET /v1/stats` and `POST /v1/simulate`: the grid as a whole.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Payload};
use api::{ParsedJob, Problem, Simulation, SimulationStarted, Stats, WorkerState, WorkerStats};
use jiff::Timestamp;
use model::{JobId, JobOptions, JobWork, Priority, Requirements, SleepParams};
use serde_json::value::RawValue;
use service::ApiError;
use sha2::{Digest, Sha256};
use store::NewJob;
use uuid::Uuid;

use super::State;
use super::errors::from_accept;
use crate::jobs::Action;
use crate::simulation::Simulated;

/// What an autoscaler or a person wants to know.
#[utoipa::path(
    get,
    path = "/v1/stats",
    operation_id = "stats",
    tag = "grid",
    responses(
        (status = 200, description = "Jobs and tasks by state, workers, throughput", body = Stats),
        (status = "default", description = "Any error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(state: Data<State>) -> Json<Stats> {
    let mut workers = WorkerStats { pulling: state.pullers.len() as u64, ..WorkerStats::default() };
    for (_, registration) in state.registry.snapshot() {
        match registration.state() {
            WorkerState::Ready => {
                workers.ready += 1;
                workers.slots += u64::from(registration.heartbeat.slots);
            }
            WorkerState::Suspended => workers.suspended += 1,
            WorkerState::Draining => workers.draining += 1,
        }
    }
    let (jobs, leases) = state.grid.jobs_and_leases();
    workers.leases = leases;
    let (tasks_per_second, numbers_per_second) = state.grid.throughput();
    let pending = (1..).zip(state.grid.pending_by_priority());
    Json(Stats {
        jobs,
        tasks: state.grid.counts(),
        queue_depth_by_priority: pending.filter(|(_, pending)| *pending > 0).collect(),
        workers,
        tasks_per_second,
        numbers_per_second,
        store_backlog: state.jobs.store().backlog(),
        store_error: state.jobs.store().is_failing(),
    })
}

/// Starts simulated workers and tasks for them. The jobs are followed like any others.
#[utoipa::path(
    post,
    path = "/v1/simulate",
    operation_id = "simulate",
    tag = "grid",
    request_body = Simulation,
    responses(
        (status = 201, description = "Under way", body = SimulationStarted),
        (status = 400, description = "A field is not as it must be", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn simulate(state: Data<State>, body: Payload) -> Result<HttpResponse, ApiError> {
    let simulation: Simulation = service::read_json(body).await?;
    check(&simulation)?;
    let mut priorities = simulation.priorities.clone();
    if priorities.is_empty() {
        priorities.push(Priority::default());
    }
    priorities.sort_unstable_by(|one, other| other.cmp(one));
    priorities.dedup();
    // A client that leaves must not leave jobs without the workers that they are for.
    let starting = tokio::spawn(async move { start(&state, &simulation, priorities).await });
    let started = starting.await.unwrap_or_else(|error| Err(ApiError::Failed(error.to_string())))?;
    Ok(HttpResponse::Created().json(started))
}

async fn start(
    state: &State,
    simulation: &Simulation,
    priorities: Vec<Priority>,
) -> Result<SimulationStarted, ApiError> {
    let simulated = Simulated::new();
    let shares = shares(simulation.tasks, priorities.len() as u64);
    let mut jobs = Vec::new();
    for (priority, tasks) in priorities.into_iter().zip(shares).filter(|(_, tasks)| *tasks > 0) {
        match state.jobs.store_new(new_job(simulation, simulated, priority, tasks)).await {
            Ok((job, _)) => jobs.push(job),
            Err(error) => {
                for job in jobs {
                    // The first error is the one to tell.
                    let _ = state.jobs.act(job.id, Action::Cancel).await;
                }
                return Err(from_accept(error));
            }
        }
    }
    let (grid, ids) = (Arc::clone(&state.grid), jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    let of_simulation = Arc::clone(&grid);
    simulated.start(&grid, simulation.workers, move || ids.iter().all(|id| of_simulation.live(*id).is_none()));
    Ok(SimulationStarted { jobs })
}

fn check(simulation: &Simulation) -> Result<(), ApiError> {
    for (field, is_valid, allowed) in [
        ("tasks", (1..=1_000_000).contains(&simulation.tasks), "must be from 1 to 1000000"),
        ("seconds", (0.0..=3600.0).contains(&simulation.seconds), "must be from 0 to 3600"),
        ("workers", (1..=1_000).contains(&simulation.workers), "must be from 1 to 1000"),
    ] {
        if !is_valid {
            return Err(ApiError::InvalidField { field, message: allowed.to_owned() });
        }
    }
    Ok(())
}

/// `tasks` in `parts` parts that differ by one at most.
fn shares(tasks: u64, parts: u64) -> impl Iterator<Item = u64> {
    let parts = NonZeroU64::new(parts).unwrap_or(NonZeroU64::MIN);
    (0..parts.get()).map(move |part| tasks / parts + u64::from(part < tasks % parts))
}

fn new_job(simulation: &Simulation, simulated: Simulated, priority: Priority, tasks: u64) -> NewJob {
    let seconds = simulation.seconds;
    let params = format!(r#"{{"seconds":{seconds},"fail_rate":0.0,"tasks":{tasks}}}"#);
    let requires = Requirements { labels: simulated.labels(), ..Requirements::default() };
    let tags = BTreeMap::from([("simulation".to_owned(), "true".to_owned())]);
    let options = JobOptions { priority, requires, tags, ..JobOptions::default() };
    let work = JobWork::Sleep(SleepParams { seconds, fail_rate: 0.0, tasks });
    let id = JobId(Uuid::now_v7());
    NewJob {
        id,
        job: ParsedJob { work, payloads: Vec::new(), options },
        fingerprint: Sha256::digest(id.0.as_bytes()).into(),
        params: RawValue::from_string(params).expect("numbers in braces are JSON"),
        tasks,
        idempotency_key: None,
        submitted_at: Timestamp::now(),
    }
}
