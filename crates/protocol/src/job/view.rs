//! Jobs as a client sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::request::{Affinity, InvalidJob, JobKind, Labels, Priority, Requirements, Timeout};
use crate::JobId;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Accepted; no task of it has been given out.
    Queued,
    /// Under way.
    Running,
    /// Nothing of it runs until it is resumed.
    Paused,
    /// Every task is done and the result is stored.
    Succeeded,
    /// It is over, and tasks of it have failed.
    Failed,
    /// It was given up.
    Canceled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Paused, Self::Succeeded, Self::Failed, Self::Canceled];

    /// Whether nothing more happens to it, unless it is retried.
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

/// Tasks of a job by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// All of them.
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

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// Share of the tasks that are done, 0 to 1.
    pub fraction: f64,
    /// Numbers of the range searched, for kinds with a range.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<f64>)]
    pub numbers_done: Option<u128>,
    /// Tasks done a second, lately; absent until it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tasks_per_second: Option<f64>,
    /// Time until its end at that rate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds_left: Option<f64>,
}

/// A job as `GET /v1/jobs/{id}` shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its id, a UUIDv7 unless the client chose one.
    pub id: JobId,
    /// What it computes.
    pub kind: JobKind,
    /// The kind's parameters; `{"count": n}` for `tasks`.
    #[schema(value_type = serde_json::Value)]
    pub params: Box<RawValue>,
    /// Where it is in its life.
    pub state: JobState,
    /// How soon.
    pub priority: Priority,
    /// The client's own words about it.
    pub tags: Labels,
    /// Where it would rather run.
    pub affinity: Affinity,
    /// Where alone it can run.
    pub requires: Requirements,
    /// Attempts at a task before it has failed.
    #[schema(value_type = u32)]
    pub max_attempts: NonZeroU32,
    /// How long it may take.
    pub timeout: Timeout,
    /// The name under which its result is stored.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
    /// Tasks by where they are.
    pub tasks: TaskCounts,
    /// How far it is.
    pub progress: JobProgress,
    /// Leases given out for it since the coordinator's start.
    pub attempts: u64,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Timestamp,
    /// When its first task was given out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Why it cannot run as things are, such as no worker with what it requires.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notice: Option<String>,
}

/// Answer to `GET /v1/jobs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    /// The newest first.
    pub jobs: Vec<Job>,
    /// For `?page_token=`, while there are more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// Answer to `POST /v1/simulate`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SimulationStarted {
    /// One job for each priority, the highest first; followed like any other.
    pub jobs: Vec<Job>,
}

/// Answer to a change of many jobs at once, such as `POST /v1/jobs/cancel?tag=…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// Jobs that the filter found.
    pub matched: u64,
    /// Jobs that changed.
    pub changed: u64,
}

/// Answer to `GET /v1/jobs/{id}/explain`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The job's state.
    pub state: JobState,
    /// Why its tasks wait, or that they do not; the most important reason first.
    pub reasons: Vec<String>,
}

/// Answer to `GET /v1/stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Jobs that are not over, by state.
    pub jobs: BTreeMap<String, u64>,
    /// Tasks of those jobs by state.
    pub tasks: TaskCounts,
    /// Tasks that wait, by priority.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub queue_depth_by_priority: BTreeMap<u8, u64>,
    /// Workers and their slots.
    pub workers: WorkerStats,
    /// Tasks done a second, over the last ten seconds.
    pub tasks_per_second: f64,
    /// Numbers searched a second, over the last ten seconds.
    pub numbers_per_second: f64,
    /// Changes that wait to be committed.
    pub store_backlog: u64,
    /// Why nothing can be stored at the moment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store_error: Option<String>,
}

/// Workers and their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStats {
    /// Workers that get leases.
    pub ready: u64,
    /// Workers that are set aside after a failure.
    pub suspended: u64,
    /// Workers that finish what they hold.
    pub draining: u64,
    /// Workers that pull.
    pub pulling: u64,
    /// Slots of the workers that get leases.
    pub slots: u64,
    /// Leases they hold.
    pub leases: u64,
}
