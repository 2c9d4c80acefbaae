//! How a worker announces itself.

use model::{BootId, JobKind, Labels, Resources};
use serde::{Deserialize, Serialize};

/// No worker may claim more slots than this.
pub const MAX_SLOTS_PER_WORKER: u32 = 1024;

/// Body of `PUT /worker/register/{worker_id}`, sent once a second. The worker's address is not in it: it is the TCP
/// peer's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Port on which the worker takes leases.
    pub port: u16,
    /// This run of the worker process.
    pub boot_id: BootId,
    /// Leases it computes at the same time, 1 to [`MAX_SLOTS_PER_WORKER`].
    pub slots: u32,
    /// Slots computing now.
    pub running: u32,
    /// Share of all its cores in use, 0 to 1.
    pub cpu_load: f32,
    /// Memory it could still take, its cgroup's limit included.
    pub free_memory_bytes: u64,
    /// Its labels: what jobs can require or wish for.
    #[serde(default)]
    pub labels: Labels,
    /// What it has in all.
    #[serde(default)]
    pub resources: Resources,
    /// The kinds of job that it runs.
    #[serde(default = "least_kinds")]
    pub kinds: Vec<JobKind>,
    /// The worker's version.
    pub version: String,
    /// Whether it is about to stop: it finishes what it holds and takes nothing new.
    #[serde(default)]
    pub is_draining: bool,
}

/// What every worker runs.
fn least_kinds() -> Vec<JobKind> {
    vec![JobKind::SUM_OF_PRIMES]
}

/// Query of `DELETE /worker/register/{worker_id}`: the worker is going and takes nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregistration {
    /// The run that goes; another one under the same name stays.
    pub boot_id: BootId,
}
