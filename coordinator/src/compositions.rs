//! Composes the results of jobs from the results of their tasks, when the engine asks for it.

use std::num::NonZeroU64;
use std::sync::Arc;

use async_channel::Receiver;
use engine::ComposeFailure;
use model::JobId;
use store::{ComposeError, ReadError, ResultBody, Store, WriteError};
use tracing::{error, warn};

use crate::driver::Driver;
use crate::supervisor::Supervisor;

/// Runs as long as the driver does. The engine bounds how many compositions run at the same time.
pub(crate) async fn run(jobs: Receiver<JobId>, store: Arc<Store>, driver: Arc<Driver>, supervisor: Supervisor) {
    while let Ok(job) = jobs.recv().await {
        let (store, driver) = (Arc::clone(&store), Arc::clone(&driver));
        supervisor.spawn(async move {
            let outcome = compose(&store, job).await.map_err(|error| failure(job, error));
            driver.input(|engine, now| engine.composed(job, outcome, now));
        });
    }
}

async fn compose(store: &Store, job: JobId) -> Result<ResultBody, ComposeError> {
    let record = store.job(job).await?.ok_or(ReadError::NoSuchTasks { job, first: 0, beyond: 0 })?;
    // The job was restored from the same parameters.
    let chunk_size = record.options.chunk_size.unwrap_or(NonZeroU64::MIN);
    let restored = workloads::kind(record.kind).and_then(|kind| kind.restore(&record.params, chunk_size));
    let composition = restored.map_err(|error| ComposeError::Combine(error.to_string()))?.composition();
    store.combine_results(job, composition).await
}

fn failure(job_id: JobId, error: ComposeError) -> ComposeFailure {
    match error {
        ComposeError::Write(WriteError::Refused(_)) => {
            error!(%job_id, %error, "cannot store a result");
            ComposeFailure::Permanent(error.to_string())
        }
        ComposeError::Combine(error) => ComposeFailure::Permanent(error),
        // While the disk is full or away the composition waits: no part of the result is lost.
        ComposeError::Write(_) | ComposeError::Read(_) => {
            warn!(%job_id, %error, "cannot store a result yet");
            ComposeFailure::Unavailable(error.to_string())
        }
    }
}
