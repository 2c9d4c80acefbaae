//! What the core is told of jobs and workers.

use std::ops::Range;
use std::time::{Duration, Instant};

use model::{Affinity, JobKind, Labels, Priority, Requirements, Resources};

/// Settings of the core.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Work that a lease should carry.
    pub lease_target: Duration,
    /// How long a lease may take beyond what its worker has shown.
    pub lease_timeout: Duration,
    /// A job that waits this long for its next lease counts as one priority higher, and so on up to the highest.
    pub aging_interval: Duration,
}

/// In what order a job's tasks are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their numbers.
    FirstInFirstOut,
    /// Each slot goes on where its last lease ended; one without a place to go on takes the far half of the longest
    /// run that is left. For work that is cheaper where it is contiguous.
    Stripes,
}

/// What a task without attempts left means for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// There can be no result without it: the job fails at once.
    FailJob,
    /// The other tasks go on; the job fails when they are over.
    SkipTask,
}

/// What there is to know of a job.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// It has the tasks `0..tasks`.
    pub tasks: u64,
    /// Workers that run this kind get it.
    pub kind: JobKind,
    /// How soon.
    pub priority: Priority,
    /// What a worker must have.
    pub requires: Requirements,
    /// What a worker had better have.
    pub affinity: Affinity,
    /// In what order its tasks go out.
    pub order: Order,
    /// What a task without attempts left means.
    pub on_exhausted: OnExhausted,
    /// Attempts at a task that may fail before it has; at least 1.
    pub max_attempts: u32,
    /// The most tasks in a lease; at least 1.
    pub max_lease_tasks: u64,
    /// What a lease pays before its first task unless it goes on where another ended, about.
    pub setup: Duration,
    /// What a task takes, as far as it can be told before the first one is done. Better too long than too short.
    pub task_estimate: Option<Duration>,
    /// How long an attempt at one task may take at most.
    pub task_timeout: Option<Duration>,
    /// When the job must be over.
    pub deadline: Option<Instant>,
    /// How long the job waits for a first worker of an empty pool; for ever if none.
    pub worker_wait: Option<Duration>,
}

impl JobSpec {
    /// A job of `tasks` tasks with the defaults of everything else.
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
            setup: Duration::ZERO,
            task_estimate: None,
            task_timeout: None,
            deadline: None,
            worker_wait: None,
        }
    }
}

/// What a job has behind it when the core gets it: nothing, unless it was stored before.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Tasks that are done or have no attempts left, disjoint.
    pub over: Vec<Range<u64>>,
    /// Those of them that have no attempts left.
    pub failed: Vec<Range<u64>>,
    /// Tasks that failed and have attempts left, with the attempts that failed.
    pub retries: Vec<(Range<u64>, u32)>,
    /// Sum of the parts of the tasks that are done.
    pub total: u128,
    /// Whether a lease of it was ever given out.
    pub has_started: bool,
    /// Whether it waits to be resumed.
    pub is_paused: bool,
}

/// What there is to know of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Leases it computes at the same time.
    pub slots: u32,
    /// The kinds of job that it runs.
    pub kinds: Vec<JobKind>,
    /// Its labels.
    pub labels: Labels,
    /// What it has.
    pub resources: Resources,
    /// Whether it is there only for jobs that require all its labels.
    pub is_reserved: bool,
}

impl WorkerSpec {
    /// Whether it runs tasks of a kind with such requirements.
    pub(crate) fn matches(&self, kind: JobKind, requires: &Requirements) -> bool {
        let Requirements { labels, cpus, memory_bytes } = requires;
        self.kinds.contains(&kind)
            && has_all(&self.labels, labels)
            && (!self.is_reserved || has_all(labels, &self.labels))
            && cpus.is_none_or(|cpus| cpus <= self.resources.cpus)
            && memory_bytes.is_none_or(|bytes| bytes <= self.resources.memory_bytes)
    }
}

/// Whether `labels` holds all of `wanted`.
pub(crate) fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
