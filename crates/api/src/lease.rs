//! What a coordinator asks of a worker, one HTTP request a lease.

use model::{AttemptId, BootId, JobId, decimal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// Body of `POST /lease`: the right to run one attempt. The worker gives it up when the connection closes,
/// unless it outlives the connection.
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
    /// The epoch of the coordinator that gives the lease.
    #[serde(default)]
    pub epoch: u64,
    /// The first of its tasks.
    #[serde(default)]
    pub first: u64,
    /// The task after its last one.
    #[serde(default)]
    pub beyond: u64,
    /// Whether the worker goes on when the connection closes and keeps the outcome until it is durable. Otherwise the
    /// worker gives the lease up then.
    #[serde(default)]
    pub outlives_connection: bool,
    /// Attempts whose outcome is durable or void, as in [`HeartbeatAnswer::settled`](crate::HeartbeatAnswer::settled).
    #[serde(default)]
    pub settled: Vec<AttemptId>,
}

/// A lease by the tasks that it covers: lets a coordinator that does not know the attempt, such as after a restart, adopt
/// it. A worker echoes it as it got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseName {
    /// The job.
    #[schema(value_type = schema::JobId)]
    pub job: JobId,
    /// The first of its tasks.
    pub first: u64,
    /// The task after its last one.
    pub beyond: u64,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_ends_with_its_connection_unless_it_says_otherwise() {
        let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
        let work = json!({"kind": "sleep", "seconds": 1.0, "fail_rate": 0.0, "tasks": 1});
        let lease = json!({"job": id, "attempt": id, "boot_id": id, "slot": 0, "work": work});
        let lease: LeaseRequest = serde_json::from_value(lease).expect("valid");
        assert!(!lease.outlives_connection);
        assert_eq!((lease.epoch, lease.first, lease.beyond, lease.settled.len()), (0, 0, 0, 0));
    }
}
