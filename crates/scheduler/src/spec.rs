//! The descriptions of jobs and workers that the caller gives.

use std::ops::Range;
use std::time::{Duration, Instant};

use model::{Affinity, JobKind, Labels, Priority, Requirements, Resources, WorkerId};
pub use model::{OnExhausted, Order};

/// Settings of the scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Computing time that a lease should carry.
    pub lease_target: Duration,
    /// Longest time that a lease may take beyond the time that follows from its worker's speed.
    pub lease_timeout: Duration,
    /// A job that waits this long for its next lease counts as one priority higher, and so on up to the highest.
    pub aging_interval: Duration,
}

/// The description of a job.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Number of tasks; the tasks are `0..tasks`.
    pub tasks: u64,
    /// The kind, which a worker must run.
    pub kind: JobKind,
    /// Urgency of the job's tasks.
    pub priority: Priority,
    /// Requirements on the workers that get the job's tasks.
    pub requires: Requirements,
    /// Preferences among the workers that can run the job.
    pub affinity: Affinity,
    /// The order in which the tasks are leased.
    pub order: Order,
    /// The effect of a task without attempts left.
    pub on_exhausted: OnExhausted,
    /// Failed attempts after which a task has failed; at least 1.
    pub max_attempts: u32,
    /// The most tasks in a lease; at least 1.
    pub max_lease_tasks: u64,
    /// Tasks that begin a section, ascending: no lease has tasks of two sections.
    pub sections: Vec<u64>,
    /// Expected time that a lease takes before its first task, unless it continues where another ended.
    pub setup: Duration,
    /// Estimate of the time of one task before any task is done. Better too long than too short.
    pub task_estimate: Option<Duration>,
    /// Time of the last task minus that of the first, as a share of the average task's, 0 to 1. The times between rise evenly.
    pub rise: f64,
    /// Longest time that an attempt at one task may take.
    pub task_timeout: Option<Duration>,
    /// Time that a lease may take beyond its tasks' time limits.
    pub lease_slack: Duration,
    /// Whether the last task is given out only when all others are done.
    pub last_task_waits: bool,
    /// Instant at which the job must be over.
    pub deadline: Option<Instant>,
    /// Longest time that the job may take after a retry, counted from the retry, whatever its deadline was.
    pub retry_timeout: Option<Duration>,
    /// Time for which the job waits while no worker can run it; for ever if none. Jobs of the same kind and requirements should
    /// have the same: the cost of a timeout grows with the number of different ones.
    pub worker_wait: Option<Duration>,
    /// Whether workers join and leave with the job, so that it has no use for other slots.
    pub brings_workers: bool,
}

impl JobSpec {
    /// A job of `tasks` tasks with defaults for all other fields.
    #[must_use]
    pub fn new(kind: JobKind, tasks: u64) -> Self {
        Self {
            tasks,
            kind,
            priority: Priority::default(),
            requires: Requirements::default(),
            affinity: Affinity::default(),
            order: Order::FirstInFirstOut,
            on_exhausted: OnExhausted::FailJob,
            max_attempts: model::DEFAULT_MAX_ATTEMPTS.get(),
            max_lease_tasks: u64::MAX,
            sections: Vec::new(),
            setup: Duration::ZERO,
            task_estimate: None,
            rise: 0.0,
            task_timeout: None,
            lease_slack: Duration::ZERO,
            last_task_waits: false,
            deadline: None,
            retry_timeout: None,
            worker_wait: None,
            brings_workers: false,
        }
    }
}

/// The state in which a job is submitted: new, unless it was stored before.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Tasks that are done or have no attempts left, as disjoint runs.
    pub over: Vec<Range<u64>>,
    /// Tasks of `over` that have no attempts left.
    pub failed: Vec<Range<u64>>,
    /// Tasks that failed and have attempts left, with the attempts that failed.
    pub retries: Vec<(Range<u64>, u32)>,
    /// Sum of the parts of the tasks that are done, modulo 2^128.
    pub total: u128,
    /// Whether a task of the job was ever leased.
    pub has_started: bool,
    /// Whether the job is paused.
    pub is_paused: bool,
    /// Whether the job's open tasks wait for the workers that hold them already: the tasks can be adopted but not claimed until
    /// [`crate::Scheduler::release_hold`].
    pub is_held: bool,
}

/// The description of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Its name, which it keeps when it registers again.
    pub id: WorkerId,
    /// Leases that it runs at the same time.
    pub slots: u32,
    /// The kinds of job that it runs.
    pub kinds: Vec<JobKind>,
    /// Its labels.
    pub labels: Labels,
    /// Its cores and memory.
    pub resources: Resources,
    /// Whether the worker serves only jobs that require all its labels.
    pub is_reserved: bool,
}

/// Whether `labels` holds all of `wanted`.
pub(crate) fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
