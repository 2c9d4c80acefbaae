//! The worker's HTTP face, one file a resource.

mod announce;
mod lease;
mod lease_stream;
mod sum_of_primes;

use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig};
use model::BootId;
use service::{ApiError, BodyBudget, Right, Route, WorkerToken, resource};
use tokio::sync::watch;

use crate::epoch::EpochFence;
use crate::executor::Executor;
use crate::held::HeldLeases;
use crate::intake::Intake;
use crate::metrics::WorkerMetrics;

/// The state that all handlers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) boot_id: BootId,
    pub(crate) token: WorkerToken,
    pub(crate) executor: Arc<Executor>,
    pub(crate) intake: Intake,
    pub(crate) held: Arc<HeldLeases>,
    pub(crate) epoch: Arc<EpochFence>,
    /// Makes the announcer send heartbeats now.
    pub(crate) asked: watch::Sender<()>,
    pub(crate) metrics: WorkerMetrics,
    /// The memory budget of arriving leases.
    pub(crate) bodies: BodyBudget,
}

impl State {
    /// Notes the epoch of a request's coordinator.
    fn see(&self, epoch: u64) -> Result<(), ApiError> {
        self.epoch.see(epoch).map_err(|error| {
            self.metrics.epoch_refused();
            ApiError::Conflict(error.to_string())
        })
    }
}

/// The worker's routes, whose rights are the worker token's.
pub(crate) const ROUTES: &[Route] = &[
    Route::new("POST", "/lease", Right::Admin).begins_no_trace(),
    Route::new("GET", "/leases", Right::Admin).begins_no_trace(),
    Route::new("DELETE", "/lease/{attempt}", Right::Admin).query(&["epoch"]).begins_no_trace(),
    Route::new("POST", "/announce", Right::Admin).query(&["epoch"]).begins_no_trace(),
    Route::new("GET", "/sum-of-primes", Right::Admin).query(&["a", "b", "algorithm"]),
];

pub(crate) fn configure(config: &mut ServiceConfig, state: &Data<State>) {
    config
        .app_data(state.clone())
        .service(resource("/lease", "POST").post(lease::run))
        .service(resource("/leases", "GET").get(lease_stream::open))
        .service(resource("/lease/{attempt}", "DELETE").delete(lease::revoke))
        .service(resource("/announce", "POST").post(announce::announce))
        .service(resource("/sum-of-primes", "GET").get(sum_of_primes::answer));
}
