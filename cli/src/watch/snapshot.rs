//! A snapshot of a grid for the screen.

use api::client::{Client, Query};
use api::{Job, Stats, WorkerSummary};
use model::JobState;

use crate::failure::Failure;

/// The most jobs in a state that are shown: more than a screen has lines.
const MAX_JOBS: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) stats: Stats,
    pub(super) workers: Vec<WorkerSummary>,
    /// Jobs under way first, then jobs that wait, then jobs that are over.
    pub(super) jobs: Vec<Job>,
}

impl Snapshot {
    pub(super) async fn take(grid: &Client) -> Result<Self, Failure> {
        let jobs = async |states: &[JobState]| {
            let states = states.iter().map(|state| ("state", state.as_str().to_owned()));
            let query: Query = states.chain([("limit", MAX_JOBS.to_string())]).collect();
            grid.job_page(&query).await
        };
        let (stats, workers, running, waiting, over) = tokio::try_join!(
            grid.stats(),
            grid.workers(),
            jobs(&[JobState::Running]),
            jobs(&[JobState::Queued, JobState::Paused]),
            jobs(&[JobState::Succeeded, JobState::Failed, JobState::Canceled]),
        )?;
        let jobs = [running, waiting, over].into_iter().flat_map(|page| page.jobs).collect();
        Ok(Self { stats, workers, jobs })
    }
}
