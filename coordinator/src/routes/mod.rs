//! The coordinator's HTTP face, one file a resource: the public listener's and the internal one's.

mod registration;
mod sum_of_primes;
mod workers;

use std::num::NonZeroU32;
use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig};
use service::{WorkerToken, resource};
use tokio::sync::Semaphore;

use crate::grid::Grid;
use crate::metrics::GridMetrics;
use crate::registry::Registry;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) grid: Arc<Grid>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: GridMetrics,
    pub(crate) token: WorkerToken,
    /// Attempts at a task of a request that waits for its answer.
    pub(crate) max_attempts: NonZeroU32,
    /// One permit for each request that may be in flight.
    pub(crate) inflight: Semaphore,
}

pub(crate) fn public(config: &mut ServiceConfig, state: &Data<State>) {
    config
        .app_data(state.clone())
        .service(resource("/sum-of-primes", "GET").get(sum_of_primes::answer))
        .service(resource("/workers", "GET").get(workers::list));
}

pub(crate) fn internal(config: &mut ServiceConfig, state: &Data<State>) {
    config.app_data(state.clone()).service(
        resource("/worker/register/{worker_id}", "PUT, DELETE")
            .put(registration::register)
            .delete(registration::deregister),
    );
}
