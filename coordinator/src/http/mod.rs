//! The coordinator's HTTP face, one file a resource: the public listener's and the internal one's.

mod dashboard;
mod docs;
mod errors;
mod events;
mod jobs;
mod pull;
mod query;
mod registration;
mod statistics;
mod stats;
mod sum_of_primes;
mod tasks;
mod waiting;
mod workers;

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::{Data, ServiceConfig};
use model::WorkerId;
use scheduler::WorkerKey;
use service::{BodyBudget, Health, Right, Route, WorkerToken, resource};
use tokio::sync::Semaphore;

use crate::driver::Driver;
use crate::event_hub::EventHub;
use crate::jobs::Jobs;
use crate::metrics::CoordinatorMetrics;
use crate::pull_workers::{PullWorkers, TooManyWorkers};
use crate::simulated_workers::SimulatedWorkers;
use crate::workers::Workers;

pub(crate) use dashboard::{Dashboard, public_routes, run as run_dashboard};
pub(crate) use pull::REPORT_OVERHEAD_BYTES;

/// The state that all handlers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) driver: Arc<Driver>,
    pub(crate) jobs: Jobs,
    pub(crate) events: Arc<EventHub>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) pull_workers: Arc<PullWorkers>,
    pub(crate) simulated: SimulatedWorkers,
    pub(crate) metrics: CoordinatorMetrics,
    pub(crate) token: WorkerToken,
    pub(crate) health: Health,
    /// Attempts at a task of a request that waits for its answer.
    pub(crate) max_attempts: NonZeroU32,
    /// The longest body of a job.
    pub(crate) max_job_bytes: usize,
    /// The memory of all bodies.
    pub(crate) bodies: BodyBudget,
    /// The longest results of one lease.
    pub(crate) max_result_bytes: usize,
    /// Numbers from a task's first to its last.
    pub(crate) chunk_size: NonZeroU64,
    /// One permit for each request that may be in flight.
    pub(crate) inflight: Semaphore,
    /// What the pages for people need; none where they are off.
    pub(crate) dashboard: Option<Dashboard>,
    /// Whether the public listener is reached by TLS alone.
    pub(crate) has_tls: bool,
}

impl State {
    /// The registration of a worker that reports on a lease.
    fn recall(&self, worker_id: &WorkerId) -> Result<WorkerKey, TooManyWorkers> {
        match self.workers.key(worker_id) {
            Some(key) => Ok(key),
            None => self.pull_workers.recall(worker_id, Instant::now()),
        }
    }
}

/// The routes of the public port.
pub(crate) const PUBLIC: &[Route] = &[
    Route::new("GET", "/sum-of-primes", Right::Read).query(&["a", "b", "priority"]),
    Route::new("GET", "/workers", Right::Read),
    Route::new("GET", "/v1/jobs", Right::Read).query(&["state", "kind", "tag", "page_token", "limit"]),
    Route::new("POST", "/v1/jobs", Right::Submit),
    Route::new("POST", "/v1/jobs/all/{action}", Right::Submit).query(&["state", "kind", "tag"]),
    Route::new("GET", "/v1/jobs/{id}", Right::Read),
    Route::new("PUT", "/v1/jobs/{id}", Right::Submit),
    Route::new("GET", "/v1/jobs/{id}/tasks", Right::Read).query(&["state", "page_token", "limit"]),
    Route::new("GET", "/v1/jobs/{id}/result", Right::Read).query(&["wait"]),
    Route::new("GET", "/v1/jobs/{id}/events", Right::Read).query(&["after", "follow"]),
    Route::new("GET", "/v1/jobs/{id}/explain", Right::Read),
    Route::new("POST", "/v1/jobs/{id}/{action}", Right::Submit),
    Route::new("GET", "/v1/results/{name}", Right::Read).query(&["wait"]),
    Route::new("GET", "/v1/events", Right::Read).query(&["after", "follow"]),
    Route::new("GET", "/v1/statistics", Right::Read).query(statistics::PARAMETERS),
    Route::new("GET", "/v1/statistics/tasks", Right::Read).query(statistics::PARAMETERS),
    Route::new("GET", "/v1/stats", Right::Read),
    Route::new("POST", "/v1/simulate", Right::Submit),
    Route::new("GET", "/docs", Right::Read),
    Route::new("GET", "/docs/{_:.*}", Right::Read).any_query(),
    Route::new("GET", "/openapi.json", Right::Read),
];

/// The routes of the internal port, whose rights are the worker token's.
pub(crate) const INTERNAL: &[Route] = &[
    Route::new("PUT", "/worker/register/{worker_id}", Right::Admin),
    Route::new("DELETE", "/worker/register/{worker_id}", Right::Admin).query(&["boot_id"]),
    Route::new("POST", "/v1/worker/claim", Right::Admin),
    Route::new("POST", "/v1/worker/tasks/{attempt}/complete", Right::Admin),
    Route::new("POST", "/v1/worker/tasks/{attempt}/fail", Right::Admin),
    Route::new("POST", "/v1/worker/tasks/{attempt}/renew", Right::Admin),
    Route::new("POST", "/v1/worker/tasks/{attempt}/release", Right::Admin),
];

pub(crate) fn public(config: &mut ServiceConfig, state: &Data<State>) {
    config
        .app_data(state.clone())
        .service(resource("/sum-of-primes", "GET").get(sum_of_primes::answer))
        .service(resource("/workers", "GET").get(workers::list))
        .service(resource("/v1/jobs", "GET, POST").get(jobs::list).post(jobs::submit))
        .service(resource("/v1/jobs/all/{action}", "POST").post(jobs::act_on_all))
        .service(resource("/v1/jobs/{id}", "GET, PUT").get(jobs::show).put(jobs::put))
        .service(resource("/v1/jobs/{id}/tasks", "GET").get(tasks::list))
        .service(resource("/v1/jobs/{id}/result", "GET").get(jobs::result))
        .service(resource("/v1/jobs/{id}/events", "GET").get(events::of_job))
        .service(resource("/v1/jobs/{id}/explain", "GET").get(jobs::explain))
        .service(resource("/v1/jobs/{id}/{action}", "POST").post(jobs::act))
        .service(resource("/v1/results/{name}", "GET").get(jobs::named_result))
        .service(resource("/v1/events", "GET").get(events::of_all))
        .service(resource("/v1/statistics", "GET").get(statistics::periods))
        .service(resource("/v1/statistics/tasks", "GET").get(statistics::tasks))
        .service(resource("/v1/stats", "GET").get(stats::show))
        .service(resource("/v1/simulate", "POST").post(stats::simulate));
    docs::configure(config);
    if state.dashboard.is_some() {
        dashboard::configure(config);
    }
}

pub(crate) fn internal(config: &mut ServiceConfig, state: &Data<State>) {
    config
        .app_data(state.clone())
        .service(
            resource("/worker/register/{worker_id}", "PUT, DELETE")
                .put(registration::register)
                .delete(registration::deregister),
        )
        .service(resource("/v1/worker/claim", "POST").post(pull::claim))
        .service(resource("/v1/worker/tasks/{attempt}/complete", "POST").post(pull::complete))
        .service(resource("/v1/worker/tasks/{attempt}/fail", "POST").post(pull::fail))
        .service(resource("/v1/worker/tasks/{attempt}/renew", "POST").post(pull::renew))
        .service(resource("/v1/worker/tasks/{attempt}/release", "POST").post(pull::release));
}
