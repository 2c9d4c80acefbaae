//! What a coordinator asks of a worker, one HTTP request a lease: the lease lasts as long as the request does.

use serde::{Deserialize, Serialize};

use crate::{AttemptId, BootId, JobId, NumberRange, decimal};

/// Body of `POST /lease`: the right to run one attempt. The worker gives it up when the connection closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The job it is part of.
    pub job: JobId,
    /// The attempt, to be named in the outcome.
    pub attempt: AttemptId,
    /// The run of the worker process that it is meant for.
    pub boot_id: BootId,
    /// What to compute.
    pub work: Work,
}

/// What there is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// The sum of all primes in a range.
    SumOfPrimes(NumberRange),
}

/// Answer to `POST /lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOutcome {
    /// The attempt that this is the outcome of.
    pub attempt: AttemptId,
    /// The sum.
    #[serde(with = "decimal")]
    pub value: u128,
    /// Time the computation took, waiting not included.
    pub compute_us: u64,
}
