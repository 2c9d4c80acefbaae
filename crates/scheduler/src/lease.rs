//! Leases: the right of a worker to run some tasks, and the ways in which it ends.

use std::ops::Range;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId};

/// A registration of a worker. A worker that was lost and comes back, restarted or not, gets a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey(pub u64);

/// A slot of a worker: leases of one lane run one after the other, in the order in which they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The worker.
    pub worker: WorkerKey,
    /// The slot, from 0.
    pub slot: u32,
}

/// The number of tasks that a claim asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseSize {
    /// The tasks of a good lease for this worker: for leases that are pushed to a slot.
    Fitting,
    /// At most this many tasks, at least 1: for workers that pull. An even share of the unclaimed tasks among the workers that
    /// wait for tasks bounds the lease as well.
    AtMost(u64),
}

/// The right of one worker to run some consecutive tasks once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Fences the outcome: it counts once, and only while this attempt holds the lease.
    pub attempt: AttemptId,
    /// The job of the tasks.
    pub job: JobId,
    /// The tasks.
    pub tasks: Range<u64>,
    /// The end of the run that the lane will probably walk through after this lease.
    pub horizon: u64,
    /// Instant at which the lease expires.
    pub expires_at: Instant,
}

/// The record of a lease that is held now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveLease {
    /// The attempt that holds it.
    pub attempt: AttemptId,
    /// The job of the tasks.
    pub job: JobId,
    /// The tasks.
    pub tasks: Range<u64>,
    /// The slot that runs them.
    pub lane: Lane,
    /// Instant of the claim; for an adopted lease, of its first claim.
    pub claimed_at: Instant,
    /// Whether the lease was given to a slot that had another one, and its time limit has not begun anew since.
    pub has_waited: bool,
    /// Instant at which the lease expires.
    pub expires_at: Instant,
}

/// The value of a completed lease and its computing time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputedValue {
    /// Contribution of the tasks to the job's total, modulo 2^128.
    pub value: u128,
    /// Computing time.
    pub busy: Duration,
}

/// The tasks that an outcome was counted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The job.
    pub job: JobId,
    /// The tasks, which are done now.
    pub tasks: Range<u64>,
}

/// The reason why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptFailure {
    /// The worker fell silent, was replaced or cut the connection.
    #[error("its worker was lost")]
    WorkerLost,
    /// The lease ended before there was an outcome, and not by a time limit of its tasks.
    #[error("its lease expired")]
    Expired,
    /// The tasks reached their own time limit, [`crate::JobSpec::task_timeout`].
    #[error("it took longer than its time limit of {limit:?}")]
    TimedOut {
        /// The limit for one task.
        limit: Duration,
    },
    /// The worker answered, but not with an outcome.
    #[error("{0}")]
    Refused(String),
}

/// The reason why an attempt lost its lease while its worker is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The job succeeded, failed or was canceled.
    JobOver,
    /// The job was paused.
    Paused,
    /// The lease expired without a sign of its worker.
    Expired,
    /// The tasks reached their own time limit.
    TimedOut,
    /// The other attempt at the same tasks completed first.
    OutrunBySecondAttempt,
    /// Its worker was set aside.
    SetAside,
}

/// The reason why an attempt cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The job is over or unknown.
    #[error("the job is over or unknown")]
    UnknownJob,
    /// The job is paused.
    #[error("the job is paused")]
    JobPaused,
    /// Some of the tasks are leased, done or out of attempts, or do not exist.
    #[error("the tasks are not open")]
    TasksNotOpen,
    /// An attempt of this id holds a lease.
    #[error("the attempt holds a lease already")]
    AttemptInUse,
    /// The worker is not known.
    #[error("the worker is not known")]
    UnknownWorker,
}

/// The attempt holds no lease: it ended, expired, was revoked or never existed. Its outcome does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the attempt holds no lease")]
pub struct StaleAttempt;

/// The worker is not known, or is suspended or retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker is not known, or takes no leases now")]
pub struct UnknownWorker;

/// The job is over or never existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job is over or unknown")]
pub struct UnknownJob;
