//! Answers of the public API.

use std::net::SocketAddr;

use model::{Algorithm, BootId, JobKind, Labels, Resources, WorkerId, decimal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// Answer to `GET /sum-of-primes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SumOfPrimes {
    /// First number of the range.
    pub a: u64,
    /// Last number of the range.
    pub b: u64,
    /// Sum of all primes from `a` to `b`.
    #[serde(with = "decimal")]
    #[schema(value_type = String, pattern = "^[0-9]+$")]
    pub sum: u128,
    /// The algorithm that computed it.
    #[serde(default = "first_algorithm")]
    #[schema(value_type = String, pattern = "^(sieve|combinatorial)$")]
    pub algorithm: Algorithm,
    /// Whether the other algorithm has computed the same.
    #[serde(default)]
    pub verified: bool,
    /// Tasks that the range was divided into.
    pub tasks: u64,
    /// From the request's arrival to its answer.
    pub elapsed_ms: u64,
}

/// The algorithm of services of the first release.
fn first_algorithm() -> Algorithm {
    Algorithm::Sieve
}

/// One element of the answer to `GET /workers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerSummary {
    /// The worker's name.
    #[schema(value_type = String)]
    pub id: WorkerId,
    /// The way in which the worker gets its leases.
    pub delivery: Delivery,
    /// This run of its process; absent for pulling workers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<uuid::Uuid>)]
    pub boot_id: Option<BootId>,
    /// The address where the worker takes leases; absent for pulling workers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Leases it computes at the same time.
    pub slots: u32,
    /// Leases it holds now, computing or waiting for a slot.
    pub busy: u32,
    /// Slots that computed at its last heartbeat.
    pub running: u32,
    /// Time since its last heartbeat.
    pub last_seen_ms_ago: u64,
    /// The state of the worker.
    pub state: WorkerState,
    /// Its suspension, while its state is `suspended`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspension: Option<WorkerSuspension>,
    /// Tasks it has completed since it registered.
    pub completed_tasks: u64,
    /// Its speed at its last leases, in numbers of a range per second and slot; absent until its first outcome.
    pub speed_numbers_per_s: Option<u64>,
    /// Share of all its cores in use, 0 to 1.
    pub cpu_load: f32,
    /// Memory it could still take.
    pub free_memory_bytes: u64,
    /// Its labels.
    #[schema(value_type = schema::Labels)]
    pub labels: Labels,
    /// All cores and memory of the worker.
    #[schema(value_type = schema::Resources)]
    pub resources: Resources,
    /// The kinds of job that it runs.
    #[schema(value_type = Vec<schema::JobKind>)]
    pub kinds: Vec<JobKind>,
    /// Its version.
    pub version: String,
}

/// The reason for which a worker gets no leases, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerSuspension {
    /// The reason, in words.
    pub reason: String,
    /// Time until its next heartbeat ends the suspension, or its next claim if it claims its leases; 0 once that is so. Absent
    /// where the worker gets no leases until its process is started again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ends_in_ms: Option<u64>,
}

/// The way in which a worker gets its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// The coordinator sends them.
    Pushed,
    /// The worker claims them.
    Pulled,
}

/// The state of a registered worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It gets leases.
    Ready,
    /// It failed a lease, could not be reached or had a wrong outcome: it gets none for a while.
    Suspended,
    /// It is about to leave: it finishes its leases and gets no new ones.
    Draining,
}
