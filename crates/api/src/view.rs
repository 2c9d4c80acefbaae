//! Jobs as a client sees them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use model::{
    Affinity, Algorithm, JobId, JobKind, JobState, Labels, Priority, Requirements, Share, TaskCounts, Timeout, WorkerId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{KafkaStats, schema};

/// The progress of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// Share of the work that is done, 0 to 1: tasks may differ in their work.
    pub fraction: f64,
    /// Numbers of the range searched, for kinds with a range.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<f64>)]
    pub numbers_done: Option<u128>,
    /// Tasks done a second, lately; absent until it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tasks_per_second: Option<f64>,
    /// Seconds until the job's end at that rate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds_left: Option<f64>,
}

/// The verification of a job: two workers compute a share of its leases, and the outcomes are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobVerification {
    /// The share of its leases.
    #[schema(value_type = f64)]
    pub share: Share,
    /// Leases that two workers have computed with the same outcome.
    #[serde(default)]
    pub compared_leases: u64,
    /// Leases whose outcomes wait for another worker's.
    #[serde(default)]
    pub waiting_leases: u64,
    /// Leases of which some outcome was wrong.
    #[serde(default)]
    pub mismatches: u64,
    /// Tasks that are computed anew.
    #[serde(default)]
    pub recomputed_tasks: u64,
    /// Workers that were set aside for a wrong outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub workers_set_aside: Vec<WorkerId>,
}

/// A job as `GET /v1/jobs/{id}` shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// The job's id, a UUIDv7 unless the client chose one.
    #[schema(value_type = schema::JobId)]
    pub id: JobId,
    /// The job's kind.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// The kind's parameters; `{"count": n}` for `tasks`.
    #[schema(value_type = serde_json::Value)]
    pub params: Box<RawValue>,
    /// The algorithm that computes the job, for kinds that have several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, pattern = "^(sieve|combinatorial)$")]
    pub algorithm: Option<Algorithm>,
    /// The job's state.
    #[schema(value_type = schema::JobState)]
    pub state: JobState,
    /// The job's priority: 1 to 9, larger sooner.
    #[schema(value_type = schema::Priority)]
    pub priority: Priority,
    /// The client's own labels, to find the job by.
    #[schema(value_type = schema::Labels)]
    pub tags: Labels,
    /// Workers on which the job should rather run.
    #[schema(value_type = schema::Affinity)]
    pub affinity: Affinity,
    /// Conditions that a worker must meet to run the job.
    #[schema(value_type = schema::Requirements)]
    pub requires: Requirements,
    /// Attempts at a task before the task has failed.
    #[schema(value_type = u32)]
    pub max_attempts: NonZeroU32,
    /// Time limits of an attempt at a task and of the job.
    #[schema(value_type = schema::Timeout)]
    pub timeout: Timeout,
    /// The name under which the job's result is stored.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
    /// The verification of the job, where the client asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verification: Option<JobVerification>,
    /// The name of the access token with which the job was submitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub submitted_by: Option<String>,
    /// The job's tasks by state.
    #[schema(value_type = schema::TaskCounts)]
    pub tasks: TaskCounts,
    /// The job's progress.
    pub progress: JobProgress,
    /// Leases of the job that completed or failed, and those under way: each worker's lease of those that several workers
    /// compute to be compared. A lease that never reached its worker, was handed back or was taken back is none.
    pub attempts: u64,
    /// Time at which the job was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Timestamp,
    /// Time at which the job's first task was given out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// Time at which the job was over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Error of the failed job.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The reason why the job cannot run now, such as no worker that meets its conditions; or the last thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notice: Option<String>,
}

/// Answer to `GET /v1/jobs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    /// Jobs, the newest first.
    pub jobs: Vec<Job>,
    /// The value of `?page_token=` for the next page, while there are more jobs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// Answer to `POST /v1/simulate`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SimulationStarted {
    /// One job for each priority, the highest first; followed like any other.
    pub jobs: Vec<Job>,
}

/// Answer to a change of many jobs at once, such as `POST /v1/jobs/all/cancel?tag=…`.
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
    #[schema(value_type = schema::JobState)]
    pub state: JobState,
    /// The reasons why its tasks wait, or that they do not; the most important reason first.
    pub reasons: Vec<String>,
}

/// Answer to `GET /v1/stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Jobs that are not over, by state.
    pub jobs: BTreeMap<String, u64>,
    /// Tasks of those jobs by state.
    #[schema(value_type = schema::TaskCounts)]
    pub tasks: TaskCounts,
    /// Tasks that wait for a slot of a worker that could run them, by priority.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub queue_depth_by_priority: BTreeMap<u8, u64>,
    /// Tasks that are not done, by kind and by the reason why they wait.
    pub demand: BTreeMap<String, KindDemand>,
    /// Slots that pending and running work could use now: the target of an autoscaler.
    pub wanted_slots: u64,
    /// Workers and their slots.
    pub workers: WorkerStats,
    /// Tasks done a second, over the last ten seconds.
    pub tasks_per_second: f64,
    /// Numbers searched a second, over the last ten seconds.
    pub numbers_per_second: f64,
    /// Changes that wait to be committed.
    pub store_backlog: u64,
    /// Stored jobs that this version cannot read, because they are damaged or of a later one. They are left alone.
    #[serde(default)]
    pub unreadable_jobs: u64,
    /// The reason why nothing can be stored at the moment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store_error: Option<String>,
    /// The file system of the data directory; absent where jobs are kept in a database.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk: Option<DiskStats>,
    /// Kafka, where it is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kafka: Option<KafkaStats>,
}

/// Space of the file system of the coordinator's data directory, at most ten seconds old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskStats {
    /// Bytes that the coordinator can still write.
    pub free_bytes: u64,
    /// Size of the file system in bytes.
    pub total_bytes: u64,
}

impl DiskStats {
    /// Less free space than this is low on a large file system.
    const LOW_BYTES: u64 = 5 << 30;
    /// Share of a small file system below which free space is low: new jobs are never refused above it.
    const LOW_PART: u64 = 8;

    /// Whether less than an eighth of the file system is free, and less than 5 GiB.
    #[must_use]
    pub fn is_low(self) -> bool {
        self.free_bytes < Self::LOW_BYTES.min(self.total_bytes / Self::LOW_PART)
    }
}

impl Stats {
    /// The demand of all kinds together.
    #[must_use]
    pub fn demand_of_all(&self) -> KindDemand {
        let sum = |of: fn(&KindDemand) -> u64| self.demand.values().map(of).fold(0_u64, u64::saturating_add);
        KindDemand {
            runnable: sum(|kind| kind.runnable),
            paused: sum(|kind| kind.paused),
            unservable: sum(|kind| kind.unservable),
            running: sum(|kind| kind.running),
            wanted_slots: sum(|kind| kind.wanted_slots),
        }
    }
}

/// Tasks of one kind that are not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KindDemand {
    /// Tasks that wait for a slot of a worker that could run them.
    pub runnable: u64,
    /// Tasks of paused jobs.
    pub paused: u64,
    /// Tasks that no registered worker could run.
    pub unservable: u64,
    /// Tasks that workers hold.
    pub running: u64,
    /// Slots that these tasks could use now.
    pub wanted_slots: u64,
}

/// Workers and their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStats {
    /// Workers that get leases.
    pub ready: u64,
    /// Workers that are set aside after a failure.
    pub suspended: u64,
    /// Workers that finish their leases and get no new ones.
    pub draining: u64,
    /// Workers that pull.
    pub pulling: u64,
    /// Slots of the workers that get leases.
    pub slots: u64,
    /// Simulated workers, of one slot each. The other counts are without them, save for the leases.
    #[serde(default)]
    pub simulated: u64,
    /// Leases that all of them hold.
    pub leases: u64,
}
