//! Puts results together from the results of single tasks, as the engine asks for it.

use std::sync::Arc;

use async_channel::Receiver;
use engine::ComposeFailure;
use model::JobId;
use store::{ComposeError, Store, WriteError};
use tracing::{error, warn};

use crate::driver::Driver;
use crate::supervisor::Supervisor;

/// Runs as long as the driver does. The engine bounds how many compositions run at the same time.
pub(crate) async fn run(jobs: Receiver<JobId>, store: Arc<Store>, driver: Arc<Driver>, supervisor: Supervisor) {
    while let Ok(job) = jobs.recv().await {
        let (store, driver) = (Arc::clone(&store), Arc::clone(&driver));
        supervisor.spawn(async move {
            let outcome = store.compose_result(job).await.map_err(|error| failure(job, error));
            driver.input(|engine, now| engine.composed(job, outcome, now));
        });
    }
}

fn failure(job_id: JobId, error: ComposeError) -> ComposeFailure {
    match error {
        ComposeError::Write(WriteError::Refused(_)) => {
            error!(%job_id, %error, "cannot store a result");
            ComposeFailure::Permanent(error.to_string())
        }
        // While the disk is full or away a result can wait: nothing of it is lost.
        ComposeError::Write(_) | ComposeError::Read(_) => {
            warn!(%job_id, %error, "cannot store a result yet");
            ComposeFailure::Unavailable(error.to_string())
        }
    }
}
