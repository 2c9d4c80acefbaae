//! States of jobs and tasks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::InvalidJob;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Accepted; no task was leased yet.
    Queued,
    /// Under way.
    Running,
    /// No task runs until the job is resumed.
    Paused,
    /// Every task is done and the result is stored.
    Succeeded,
    /// The job is over, and some of its tasks have failed.
    Failed,
    /// The job was canceled.
    Canceled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Paused, Self::Succeeded, Self::Failed, Self::Canceled];

    /// Whether the job is over, unless it is retried.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for JobState {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidJob::new("state", "must be queued, running, paused, succeeded, failed or canceled");
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(invalid)
    }
}

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Waits for a worker.
    Pending,
    /// With a worker.
    Running,
    /// Done.
    Succeeded,
    /// Out of attempts.
    Failed,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for TaskState {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidJob::new("state", "must be pending, running, succeeded or failed");
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(invalid)
    }
}

/// Tasks of a job by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// All tasks.
    pub total: u64,
    /// Waiting for a worker.
    pub pending: u64,
    /// With a worker.
    pub running: u64,
    /// Done.
    pub succeeded: u64,
    /// Out of attempts.
    pub failed: u64,
}
