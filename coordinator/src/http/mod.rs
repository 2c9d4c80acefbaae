//! The coordinator's HTTP interface, one file per resource: the public listener and the internal one.

mod coordinators;
mod dashboard;
mod docs;
mod errors;
mod events;
mod following;
mod job_pages;
mod jobs;
mod logs;
mod outputs;
mod program_inputs;
mod programs;
mod pull;
mod query;
mod registration;
mod results;
mod skipping;
mod statistics;
mod stats;
mod sum_of_primes;
mod tasks;
mod waiting;
mod workers;

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig};
use api::Job;
use model::{JobState, Requirements};
use service::{ApiError, BodyBudget, Health, Right, Route, resource};
use store::{JobRecord, Store, Submission, SubmitError, WriteError};
use tokio::sync::Semaphore;

use crate::accepting::{AcceptError, Accepting, Proposal, Ready, submit_to};
use crate::disk::Disk;
use crate::event_hub::EventHub;
use crate::identity::WorkerIdentity;
use crate::job_view;
use crate::kafka::Kafka;
use crate::lease_log::LeaseLog;
use crate::members::Members;
use crate::metrics::CoordinatorMetrics;
use crate::outcomes::OutcomeBudget;
use crate::programs::Programs;
use crate::role::Role;
use crate::term::Term;
use crate::workers::Workers;

pub(crate) use dashboard::{Dashboard, FORM_EXPANSION, UPLOAD_OVERHEAD_BYTES, public_routes, run as run_dashboard};
use errors::from_accept;
pub(crate) use errors::from_invalid;
pub(crate) use following::Notices;
pub(crate) use programs::UPLOAD_TIMEOUT;
pub(crate) use pull::REPORT_OVERHEAD_BYTES;
pub(crate) use registration::HEARTBEAT_MEMORY;

/// The state that all handlers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) role: Arc<Role>,
    pub(crate) members: Arc<Members>,
    /// The store, for reading.
    pub(crate) store: Arc<Store>,
    pub(crate) programs: Programs,
    pub(crate) events: Arc<EventHub>,
    pub(crate) workers: Arc<Workers>,
    /// Requests to the leader, under way, about jobs that were accepted here.
    pub(crate) notices: Notices,
    pub(crate) lease_log: Arc<LeaseLog>,
    pub(crate) metrics: CoordinatorMetrics,
    /// Checks the credentials of workers at the internal port.
    pub(crate) identity: WorkerIdentity,
    pub(crate) health: Health,
    pub(crate) kafka: Option<Arc<Kafka>>,
    pub(crate) disk: Arc<Disk>,
    /// The most attempts at a task of a request that waits for its answer.
    pub(crate) max_attempts: NonZeroU32,
    /// The longest body of a job, in bytes.
    pub(crate) max_job_bytes: usize,
    /// The memory budget of all bodies but those of heartbeats.
    pub(crate) bodies: BodyBudget,
    /// The memory budget of long answers at the public port: clients that read slowly keep nobody from submitting.
    pub(crate) answers: BodyBudget,
    /// The memory budget of heartbeats.
    pub(crate) heartbeats: BodyBudget,
    /// The longest results of one lease, in bytes.
    pub(crate) max_result_bytes: usize,
    /// The memory budget of large outcomes.
    pub(crate) outcomes: OutcomeBudget,
    /// Numbers from a task's first to its last.
    pub(crate) chunk_size: NonZeroU64,
    /// A permit for each request in flight.
    pub(crate) inflight: Semaphore,
    /// The state of the dashboard; `None` where it is off.
    pub(crate) dashboard: Option<Dashboard>,
    /// Whether the public listener accepts TLS alone.
    pub(crate) has_tls: bool,
    /// Whether the public listener is on loopback.
    pub(crate) is_loopback: bool,
}

impl State {
    /// The term of the leader; an error while this coordinator does not lead.
    fn term(&self) -> Result<Arc<Term>, ApiError> {
        self.role.term().ok_or(ApiError::NotLeading)
    }

    /// A stored job as clients see it, with the engine's knowledge of it where this coordinator leads.
    fn view(&self, record: JobRecord) -> Job {
        match self.role.term() {
            Some(term) => term.jobs.view(record),
            None => job_view::stored(record, self.chunk_size),
        }
    }

    /// Notes a job's start in its record: see [`job_view::note_start`].
    fn note_start(&self, record: &mut JobRecord) {
        if let Some(term) = self.role.term() {
            term.driver.view(|engine| job_view::note_start(record, engine));
        }
    }

    /// Stored jobs as clients see them, those that are in one of `states`, or all if there are none: a job may have started since
    /// it was read.
    fn views(&self, records: Vec<JobRecord>, states: &[JobState]) -> Vec<Job> {
        let views = records.into_iter().map(|record| self.view(record));
        views.filter(|job| states.is_empty() || states.contains(&job.state)).collect()
    }

    /// Makes a list of jobs in these states agree with the jobs that clients were shown: see [`crate::jobs::Jobs::catch_up_with_views`].
    async fn catch_up_with_views(&self, states: &[JobState]) {
        if let Some(term) = self.role.term() {
            term.jobs.catch_up_with_views(states).await;
        }
    }

    /// Accepts a job: it is committed when this resolves. A coordinator that does not lead, or no longer leads, stores the job,
    /// and the leader reads its event.
    async fn accept(&self, proposal: Proposal) -> Result<Accepted, ApiError> {
        let Some(term) = self.role.term() else {
            let accepting = proposal.into_new(Ready::Heartbeats(&self.workers)).map_err(from_invalid)?;
            return self.store_for_leader(accepting).await.map_err(from_accept);
        };
        let accepting = term.jobs.prepare(proposal).map_err(from_invalid)?;
        let ended = match term.jobs.accept_new(accepting.clone()).await {
            Ok((job, submission)) => return Ok(Accepted { job, submission, requires: accepting.requires }),
            Err(error) if error.is_of_term_that_is_over() => error,
            Err(error) => return Err(from_accept(error)),
        };
        drop(term);
        let (id, may_be_stored) = (accepting.new.id, ended.is_in_doubt());
        match self.store_for_leader(accepting).await {
            // Accepted by this coordinator while it led.
            Ok(accepted) if may_be_stored && accepted.submission == Submission::Existing(id) => {
                Ok(Accepted { submission: Submission::New, ..accepted })
            }
            Err(_) if may_be_stored => Err(from_accept(ended)),
            accepted => accepted.map_err(from_accept),
        }
    }

    /// Stores a job as a following coordinator does.
    async fn store_for_leader(&self, accepting: Accepting) -> Result<Accepted, AcceptError> {
        let (store, requires) = (Arc::clone(&self.store), accepting.requires.clone());
        // The store's queue keeps the job even if its client has left.
        let submitting = tokio::spawn(async move { submit_to(&store, &accepting.new, &accepting.earlier).await });
        let submitted = submitting.await.unwrap_or(Err(SubmitError::Write(WriteError::Closed).into()));
        submitted.map(|(record, submission)| Accepted { job: self.view(record), submission, requires })
    }
}

/// A job that was accepted, now or before.
struct Accepted {
    job: Job,
    submission: Submission,
    /// The requirements of a new job.
    requires: Requirements,
}

/// The routes of the public port.
pub(crate) const PUBLIC: &[Route] = &[
    Route::new("GET", "/sum-of-primes", Right::Read).query(&["a", "b", "priority", "algorithm", "verify"]).by_leader(),
    Route::new("GET", "/workers", Right::Read).by_leader_if_any(),
    Route::new("POST", "/workers/{id}/drain", Right::Admin).by_leader().repeatable(),
    Route::new("GET", "/v1/jobs", Right::Read)
        .query(&["state", "kind", "tag", "page_token", "limit"])
        .by_leader_if_any(),
    Route::new("POST", "/v1/jobs", Right::Submit),
    Route::new("POST", "/v1/jobs/all/{action}", Right::Submit)
        .query(&["state", "kind", "tag"])
        .by_leader()
        .repeatable(),
    Route::new("GET", "/v1/jobs/{id}", Right::Read).by_leader_if_any(),
    Route::new("PUT", "/v1/jobs/{id}", Right::Submit),
    Route::new("GET", "/v1/jobs/{id}/tasks", Right::Read).query(&["state", "page_token", "limit"]).by_leader_if_any(),
    Route::new("POST", "/v1/jobs/{id}/tasks/skip", Right::Submit).by_leader().repeatable(),
    Route::new("GET", "/v1/jobs/{id}/tasks/{task}/result", Right::Read),
    Route::new("GET", "/v1/jobs/{id}/result", Right::Read).query(&["wait"]),
    Route::new("GET", "/v1/jobs/{id}/events", Right::Read).query(&["after", "follow"]),
    Route::new("GET", "/v1/jobs/{id}/explain", Right::Read).by_leader().briefly(),
    Route::new("GET", "/v1/jobs/{id}/logs", Right::Read)
        .query(&["task", "page_token", "after", "wait"])
        .by_leader()
        .briefly(),
    Route::new("POST", "/v1/jobs/{id}/{action}", Right::Submit).by_leader().repeatable(),
    Route::new("GET", "/v1/programs", Right::Read).query(&["page_token", "limit"]),
    Route::new("GET", "/v1/programs/names", Right::Read),
    Route::new("GET", "/v1/programs/{sha256}", Right::Read),
    Route::new("PUT", "/v1/programs/{sha256}", Right::Programs).file().by_leader().repeatable(),
    // A standby does not repeat this request: the second answer would be 404.
    Route::new("DELETE", "/v1/programs/{sha256}", Right::Programs).by_leader(),
    Route::new("GET", "/v1/results/{name}", Right::Read),
    Route::new("GET", "/v1/events", Right::Read).query(&["after", "follow"]),
    Route::new("GET", "/v1/coordinators", Right::Read),
    Route::new("GET", "/v1/statistics", Right::Read).query(statistics::PERIOD_PARAMETERS),
    Route::new("GET", "/v1/statistics/tasks", Right::Read).query(statistics::PARAMETERS),
    Route::new("GET", "/v1/stats", Right::Read).by_leader().briefly(),
    Route::new("POST", "/v1/simulate", Right::Submit).by_leader(),
    Route::new("GET", "/docs", Right::Read),
    Route::new("GET", "/docs/{_:.*}", Right::Read).any_query(),
    Route::new("GET", "/openapi.json", Right::Read),
];

/// The routes of the internal port; each requires the worker token. Requests that workers repeat begin no trace.
pub(crate) const INTERNAL: &[Route] = &[
    Route::new("PUT", "/worker/register/{worker_id}", Right::Admin).begins_no_trace(),
    Route::new("DELETE", "/worker/register/{worker_id}", Right::Admin).query(&["boot_id"]).begins_no_trace(),
    Route::new("GET", "/worker/programs/{sha256}", Right::Admin).begins_no_trace(),
    Route::new("GET", "/worker/jobs/{id}/inputs", Right::Admin).query(&["first", "beyond"]).begins_no_trace(),
    Route::new("GET", "/worker/jobs/{id}/outputs", Right::Admin).by_leader().begins_no_trace(),
    // Not passed on: a worker uploads an output to the coordinator whose lease it has.
    Route::new("PUT", "/worker/outputs/{job}/{attempt}/{task}", Right::Admin)
        .query(&["bytes", "sha256", "text"])
        .any_body()
        .begins_no_trace(),
    Route::new("PUT", "/worker/logs/{job}/{task}/{attempt}", Right::Admin).by_leader().begins_no_trace(),
    Route::new("POST", "/v1/worker/claim", Right::Admin).by_leader().repeatable().begins_no_trace(),
    Route::new("POST", "/v1/worker/tasks/{attempt}/complete", Right::Admin).by_leader().begins_no_trace(),
    Route::new("POST", "/v1/worker/tasks/{attempt}/fail", Right::Admin).by_leader().begins_no_trace(),
    Route::new("POST", "/v1/worker/tasks/{attempt}/renew", Right::Admin).by_leader().repeatable().begins_no_trace(),
    Route::new("POST", "/v1/worker/tasks/{attempt}/release", Right::Admin).by_leader().begins_no_trace(),
];

pub(crate) fn public(config: &mut ServiceConfig, state: &Data<State>) {
    config
        .app_data(state.clone())
        .service(resource("/sum-of-primes", "GET").get(sum_of_primes::answer))
        .service(resource("/workers", "GET").get(workers::list))
        .service(resource("/workers/{id}/drain", "POST").post(workers::drain))
        .service(resource("/v1/jobs", "GET, POST").get(jobs::list).post(jobs::submit))
        .service(resource("/v1/jobs/all/{action}", "POST").post(jobs::act_on_all))
        .service(resource("/v1/jobs/{id}", "GET, PUT").get(jobs::show).put(jobs::put))
        .service(resource("/v1/jobs/{id}/tasks", "GET").get(tasks::list))
        .service(resource("/v1/jobs/{id}/tasks/skip", "POST").post(skipping::skip))
        .service(resource("/v1/jobs/{id}/tasks/{task}/result", "GET").get(outputs::show))
        .service(resource("/v1/jobs/{id}/result", "GET").get(results::of_job))
        .service(resource("/v1/jobs/{id}/events", "GET").get(events::of_job))
        .service(resource("/v1/jobs/{id}/explain", "GET").get(jobs::explain))
        .service(resource("/v1/jobs/{id}/logs", "GET").get(logs::of_job))
        .service(resource("/v1/jobs/{id}/{action}", "POST").post(jobs::act))
        .service(resource("/v1/programs", "GET").get(programs::list))
        .service(resource("/v1/programs/names", "GET").get(programs::names))
        .service(
            resource("/v1/programs/{sha256}", "GET, PUT, DELETE")
                .get(programs::show)
                .put(programs::put)
                .delete(programs::delete),
        )
        .service(resource("/v1/results/{name}", "GET").get(results::by_name))
        .service(resource("/v1/events", "GET").get(events::of_all))
        .service(resource("/v1/coordinators", "GET").get(coordinators::list))
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
        // Routes are matched in order: the most frequent requests come first.
        .service(resource("/v1/worker/claim", "POST").post(pull::claim))
        .service(
            resource("/worker/register/{worker_id}", "PUT, DELETE")
                .put(registration::register)
                .delete(registration::deregister),
        )
        .service(resource("/v1/worker/tasks/{attempt}/complete", "POST").post(pull::complete))
        .service(resource("/v1/worker/tasks/{attempt}/fail", "POST").post(pull::fail))
        .service(resource("/v1/worker/tasks/{attempt}/renew", "POST").post(pull::renew))
        .service(resource("/v1/worker/tasks/{attempt}/release", "POST").post(pull::release))
        .service(resource("/worker/programs/{sha256}", "GET").get(program_inputs::program))
        .service(resource("/worker/jobs/{id}/inputs", "GET").get(program_inputs::inputs))
        .service(resource("/worker/jobs/{id}/outputs", "GET").get(program_inputs::outputs))
        .service(resource("/worker/outputs/{job}/{attempt}/{task}", "PUT").put(outputs::put))
        .service(resource("/worker/logs/{job}/{task}/{attempt}", "PUT").put(program_inputs::report_log));
}
