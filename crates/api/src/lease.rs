//! What a coordinator asks of a worker, one HTTP request a lease: the lease lasts as long as the request does.

use model::{AttemptId, BootId, JobId, decimal};
use serde::{Deserialize, Serialize};

/// Body of `POST /lease`: the right to run one attempt. The worker gives it up when the connection closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The job it is part of.
    pub job: JobId,
    /// The attempt, to be named in the outcome.
    pub attempt: AttemptId,
    /// The run of the worker process that it is meant for.
    pub boot_id: BootId,
    /// The slot that computes it, from 0: leases of one slot run one after the other.
    pub slot: u32,
    /// What to compute.
    pub work: Work,
}

/// What there is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// The sum of all primes in a range.
    SumOfPrimes(Stretch),
    /// How many primes a range holds.
    CountPrimes(Stretch),
    /// Nothing, for a while.
    Sleep(Nap),
}

/// A range that is part of a longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first number.
    pub a: u64,
    /// The last number.
    pub b: u64,
    /// The number up to which the slot's next leases will probably go on, `b` at least: what makes it worth to keep
    /// what was computed for this one.
    pub horizon: u64,
}

/// Simulated work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nap {
    /// How long each task takes.
    pub seconds: f64,
    /// Share of the attempts that fail.
    pub fail_rate: f64,
    /// Tasks, one after the other.
    pub tasks: u64,
}

/// Answer to `POST /lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOutcome {
    /// The attempt that this is the outcome of.
    pub attempt: AttemptId,
    /// What the tasks add to the job's total: a sum, a count, 0 where there is nothing to add.
    #[serde(with = "decimal")]
    pub value: u128,
    /// Time the computation took, waiting not included.
    pub compute_us: u64,
}
