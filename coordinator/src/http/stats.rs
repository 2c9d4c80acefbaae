//! `GET /v1/stats` and `POST /v1/simulate`: the grid as a whole.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Payload};
use api::{Job, KindDemand, ParsedJob, Problem, Simulation, SimulationStarted, Stats, WorkerStats};
use model::{InvalidJob, JobId, JobKind, JobOptions, Priority, Requirements};
use scheduler::Demand;
use serde_json::value::RawValue;
use service::{ApiError, Caller};
use store::Submission;
use uuid::Uuid;

use super::State;
use super::errors::{from_accept, from_invalid};
use crate::accepting::Proposal;
use crate::fingerprint::Fingerprints;
use crate::jobs::Action;
use crate::simulated_workers::{self, TooManyWorkers};

/// The figures of the grid, for autoscalers and people.
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
pub(super) async fn show(state: Data<State>) -> Result<Json<Stats>, ApiError> {
    stats(&state).map(Json)
}

/// The present figures of the grid; only the leader has them.
pub(super) fn stats(state: &State) -> Result<Stats, ApiError> {
    let workers = state.workers.states();
    let term = state.term()?;
    let (pulling, drained) = (term.pull_workers.asking(), term.pull_workers.draining());
    let simulated = term.simulated.count();
    let store_backlog = term.store.backlog();
    let (store_error, unreadable_jobs) = (term.store.is_failing(), term.store.unreadable().jobs());
    let kafka = state.kafka.as_ref().map(|kafka| kafka.stats(*state.store.latest_event().borrow()));
    Ok(term.driver.view(|engine| {
        let jobs = engine.job_counts();
        let (tasks_per_second, numbers_per_second) = engine.throughput();
        let runnable = (1..).zip(engine.runnable_by_priority());
        let demand = workloads::KINDS.iter().map(|kind| {
            let Demand { runnable, paused, unservable, running, wanted_slots } = engine.demand(kind.name());
            (kind.name().to_string(), KindDemand { runnable, paused, unservable, running, wanted_slots })
        });
        Stats {
            jobs: [("queued", jobs.queued), ("running", jobs.running), ("paused", jobs.paused)]
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(state, count)| (state.to_owned(), count))
                .collect(),
            tasks: engine.task_counts(),
            queue_depth_by_priority: runnable.filter(|(_, runnable)| *runnable > 0).collect(),
            demand: demand.collect(),
            wanted_slots: engine.wanted_slots(),
            workers: WorkerStats {
                ready: workers.ready,
                suspended: workers.suspended,
                draining: workers.draining + drained,
                pulling,
                slots: workers.slots,
                simulated,
                leases: engine.leases() as u64,
            },
            tasks_per_second,
            numbers_per_second,
            store_backlog,
            unreadable_jobs,
            disk: state.disk.space(),
            kafka,
            store_error: store_error.or_else(|| engine.composing_error().map(str::to_owned)),
        }
    }))
}

/// Starts simulated workers and tasks for them. The jobs are followed like any others.
#[utoipa::path(
    post,
    path = "/v1/simulate",
    operation_id = "simulate",
    tag = "grid",
    request_body = Simulation,
    responses(
        (status = 201, description = "The simulation is under way", body = SimulationStarted),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn simulate(state: Data<State>, caller: Caller, body: Payload) -> Result<HttpResponse, ApiError> {
    let simulation: Simulation = service::read_json(body).await?;
    Ok(HttpResponse::Created().json(simulate_checked(&state, simulation, caller, None).await?))
}

/// Starts a simulation if its fields are within their bounds. With an idempotency key a repeated request is the same
/// simulation.
pub(super) async fn simulate_checked(
    state: &Data<State>,
    simulation: Simulation,
    caller: Caller,
    key: Option<Uuid>,
) -> Result<SimulationStarted, ApiError> {
    check(&simulation)?;
    let mut priorities = simulation.priorities.clone();
    if priorities.is_empty() {
        priorities.push(Priority::default());
    }
    priorities.sort_unstable_by(|one, other| other.cmp(one));
    priorities.dedup();
    // A client that leaves must not leave jobs without their workers.
    let state = state.clone();
    let starting = tokio::spawn(async move { start(&state, &simulation, priorities, &caller, key).await });
    starting.await.unwrap_or_else(|error| Err(ApiError::Internal(error.to_string())))
}

async fn start(
    state: &State,
    simulation: &Simulation,
    priorities: Vec<Priority>,
    caller: &Caller,
    key: Option<Uuid>,
) -> Result<SimulationStarted, ApiError> {
    let id = key.unwrap_or_else(Uuid::now_v7);
    let full = |error: TooManyWorkers| ApiError::TooManyRequests(error.to_string());
    let term = state.term()?;
    let room = term.simulated.room(simulation.workers).map_err(full)?;
    let shares = shares(simulation.tasks, priorities.len() as u64);
    let (mut jobs, mut new): (Vec<Job>, Vec<JobId>) = (Vec::new(), Vec::new());
    for (priority, tasks) in priorities.into_iter().zip(shares).filter(|(_, tasks)| *tasks > 0) {
        let mut proposal = proposal(simulation, id, priority, tasks, state.chunk_size).map_err(from_invalid)?;
        proposal.job.options.submitted_by = caller.name().map(|name| name.to_string());
        proposal.idempotency_key = key.map(|key| format!("simulation-{key}-{priority}"));
        proposal.job.options.trace = service::trace::current();
        match term.jobs.accept(proposal).await {
            Ok((job, submission)) => {
                new.extend((submission == Submission::New).then_some(job.id));
                jobs.push(job);
            }
            Err(error) => {
                // Jobs that existed before belong to an earlier request.
                for id in new {
                    // The first error is the one to report.
                    let _ = term.jobs.act(id, Action::Cancel).await;
                }
                return Err(from_accept(error));
            }
        }
    }
    // The workers already exist where all jobs were accepted before.
    if !new.is_empty() {
        term.simulated.start(id, simulation.workers, jobs.iter().map(|job| job.id).collect(), room);
    }
    // The workers did not exist when the jobs were accepted.
    term.driver.view(|engine| {
        for job in &mut jobs {
            job.notice = engine.mismatch_of(job.id, &job.requires).map(|reason| reason.to_string());
        }
    });
    Ok(SimulationStarted { jobs })
}

fn check(simulation: &Simulation) -> Result<(), ApiError> {
    // A simulation of the dashboard's form does not pass the JSON reader, which has the same bounds.
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

fn proposal(
    simulation: &Simulation,
    id: Uuid,
    priority: Priority,
    tasks: u64,
    chunk_size: NonZeroU64,
) -> Result<Proposal, InvalidJob> {
    let kind = JobKind::SLEEP;
    let params = format!(r#"{{"seconds":{},"fail_rate":0.0,"tasks":{tasks},"tasks_per_lease":1}}"#, simulation.seconds);
    let params = RawValue::from_string(params).expect("numbers in braces are JSON");
    let requires = Requirements { labels: simulated_workers::labels(id), ..Requirements::default() };
    let tags = BTreeMap::from([("simulation".to_owned(), "true".to_owned())]);
    let options = JobOptions { priority, requires, tags, chunk_size: Some(chunk_size), ..JobOptions::default() };
    let job = ParsedJob { kind, work: workloads::kind(kind)?.parse(&params, chunk_size)?, options };
    let fingerprints = Fingerprints::of(&job);
    Ok(Proposal { id: None, idempotency_key: None, job, fingerprints, reservation: None })
}
