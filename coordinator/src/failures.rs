//! The jobs that failed last, by the time of their failure: the store orders jobs by their submission.

use std::collections::VecDeque;

use model::{JobId, JobState};
use store::{Change, ChangeKind};

/// Jobs that are kept: more than a page shows, since some of them are retried or forgotten.
const MAX_KEPT: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Failures(VecDeque<JobId>);

impl Failures {
    /// Notes a recorded change if it is the failure of a job.
    pub(crate) fn note(&mut self, change: &Change) {
        if !matches!(change.kind, ChangeKind::Ended { state: JobState::Failed, .. }) {
            return;
        }
        self.0.retain(|job| *job != change.job);
        self.0.push_back(change.job);
        if self.0.len() > MAX_KEPT {
            self.0.pop_front();
        }
    }

    pub(crate) fn last_first(&self) -> Vec<JobId> {
        self.0.iter().rev().copied().collect()
    }
}
