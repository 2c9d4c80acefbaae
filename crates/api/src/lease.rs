//! Leases as a coordinator gives them to a worker: each by one HTTP request, or many over one stream.

use model::{AttemptId, BootId, JobId, JobKind, WorkerId, decimal};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{Problem, schema};

/// The longest message of a lease stream, in bytes. A longer lease goes by `POST /lease`.
pub const MAX_STREAMED_BYTES: usize = 64 * 1024;

/// The longest body of `POST /lease`: its work, and the attempts that it settles.
pub const MAX_LEASE_BYTES: usize = 1024 * 1024;

/// Body of `POST /lease`: the right to run one attempt. The worker gives it up when the connection closes,
/// unless it outlives the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The job it is part of.
    pub job: JobId,
    /// The attempt, to be named in the outcome.
    pub attempt: AttemptId,
    /// The run of the worker process that it is meant for.
    pub boot_id: BootId,
    /// The slot that computes it, from 0: leases of one slot run one after the other.
    pub slot: u32,
    /// The job's kind.
    pub kind: JobKind,
    /// The work, in the form of the kind.
    pub work: Box<RawValue>,
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
/// it. A worker echoes it as it got it, but for the `beyond` of a lease whose last tasks it has handed back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseName {
    /// The worker.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// The job.
    #[schema(value_type = schema::JobId)]
    pub job: JobId,
    /// The first of its tasks.
    pub first: u64,
    /// The task after its last one.
    pub beyond: u64,
}

/// Answer to `POST /lease`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseOutcome {
    /// The attempt that this is the outcome of.
    pub attempt: AttemptId,
    /// Contribution of the tasks to the job's total: a sum, a count, or 0 for a kind without a total.
    #[serde(with = "decimal")]
    pub value: u128,
    /// A result for each task, for kinds that have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Box<RawValue>>,
    /// Time the computation took, waiting not included.
    pub compute_us: u64,
}

/// A message from a coordinator to a worker over `GET /leases`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamedOrder {
    /// A lease, as in `POST /lease`.
    Lease(LeaseRequest),
    /// The end of a lease that does not outlive its connection. There is no answer to the lease.
    Revoke(AttemptId),
}

/// A message from a worker to a coordinator over `GET /leases`: the answer to a lease.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamedAnswer {
    /// The outcome, as in the answer to `POST /lease`.
    Outcome(LeaseOutcome),
    /// The reason for which there is none, with the status that `POST /lease` would have had.
    Refusal {
        /// The attempt that has no outcome.
        attempt: AttemptId,
        /// The reason.
        problem: Problem,
    },
}

impl StreamedAnswer {
    /// The attempt that is answered.
    #[must_use]
    pub fn attempt(&self) -> AttemptId {
        match self {
            Self::Outcome(outcome) => outcome.attempt,
            Self::Refusal { attempt, .. } => *attempt,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_ends_with_its_connection_unless_it_says_otherwise() {
        let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
        let lease =
            json!({"job": id, "attempt": id, "boot_id": id, "slot": 0, "kind": "sleep", "work": {}}).to_string();
        let lease: LeaseRequest = serde_json::from_str(&lease).expect("valid");
        assert!(!lease.outlives_connection);
        assert_eq!((lease.epoch, lease.first, lease.beyond, lease.settled.len()), (0, 0, 0, 0));
    }

    /// An upgrade replaces coordinators and workers side by side.
    #[test]
    fn what_a_later_release_adds_to_a_lease_and_its_outcome_is_skipped() {
        let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
        let lease =
            json!({"job": id, "attempt": id, "boot_id": id, "slot": 0, "kind": "sleep", "work": {}, "later": {}});
        let lease: LeaseRequest = serde_json::from_str(&lease.to_string()).expect("valid");
        assert_eq!(lease.kind, JobKind::SLEEP);
        let outcome = json!({"attempt": id, "value": "5", "compute_us": 9, "later": true}).to_string();
        let outcome: LeaseOutcome = serde_json::from_str(&outcome).expect("valid");
        assert_eq!((outcome.value, outcome.compute_us), (5, 9));
    }
}
