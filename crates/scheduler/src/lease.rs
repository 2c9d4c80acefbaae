//! Leases: who may run which tasks, and what comes of it.

use std::ops::Range;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId};

/// One registration of a worker. A worker that was lost and comes back, restarted or not, gets a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey(pub u64);

/// One slot of a worker: leases of one lane run one after the other, in the order in which they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The worker.
    pub worker: WorkerKey,
    /// The slot, from 0.
    pub slot: u32,
}

/// How many tasks a claim asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseSize {
    /// About as many as make a good lease for this worker.
    Fitting,
    /// At most so many; at least 1.
    AtMost(u64),
}

/// The right of one worker to run some consecutive tasks once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Fences the outcome: it counts once, and only while this attempt holds the lease.
    pub attempt: AttemptId,
    /// Whose tasks they are.
    pub job: JobId,
    /// The tasks.
    pub tasks: Range<u64>,
    /// The end of the run that the lane will probably walk through after this lease.
    pub horizon: u64,
    /// When the lease ends by itself.
    pub expires_at: Instant,
}

/// What a completed lease brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The tasks' part of the job's total. The caller has checked that the parts of a job stay below 2^128.
    pub value: u128,
    /// Computing time.
    pub busy: Duration,
}

/// What an outcome was counted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The job.
    pub job: JobId,
    /// The tasks, which are done now.
    pub tasks: Range<u64>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The worker fell silent, was replaced or cut the connection.
    #[error("its worker was lost")]
    WorkerLost,
    /// The lease ended before there was an outcome.
    #[error("its lease expired")]
    Expired,
    /// The worker answered, but not with an outcome.
    #[error("{0}")]
    Refused(String),
}

/// The attempt holds no lease: it ended, expired, was taken back or never was. Its outcome does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the attempt holds no lease")]
pub struct StaleAttempt;

/// The worker is not in the pool, or takes nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker is not in the pool, or takes nothing now")]
pub struct UnknownWorker;

/// The job is not here: it is over, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job is over or unknown")]
pub struct UnknownJob;
