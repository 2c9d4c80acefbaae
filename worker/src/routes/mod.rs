//! The worker's HTTP face, one file a resource.

mod lease;
mod sum_of_primes;

use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig};
use model::BootId;
use service::{WorkerToken, resource};

use crate::executor::Executor;
use crate::intake::Intake;
use crate::metrics::WorkerMetrics;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) boot_id: BootId,
    pub(crate) token: WorkerToken,
    pub(crate) executor: Arc<Executor>,
    pub(crate) intake: Intake,
    pub(crate) metrics: WorkerMetrics,
}

pub(crate) fn configure(config: &mut ServiceConfig, state: &Data<State>) {
    config
        .app_data(state.clone())
        .service(resource("/lease", "POST").post(lease::run))
        .service(resource("/sum-of-primes", "GET").get(sum_of_primes::answer));
}
