//! Heartbeats: registrations that workers repeat.

use model::{AttemptId, BootId, JobId, JobKind, Labels, Resources};
use serde::{Deserialize, Serialize};

use crate::ProgramAbilities;

/// No worker may claim more slots than this.
pub const MAX_SLOTS_PER_WORKER: u32 = 1024;

/// The most leases that a heartbeat lists: a worker that holds so many refuses further leases of stored jobs with 503.
pub const MAX_HELD_LEASES: usize = 8192;

/// The longest heartbeat: labels, resources, kinds and names of programs, and 256 bytes for each lease that it lists.
pub const MAX_HEARTBEAT_BYTES: usize = 256 * 1024 + 256 * MAX_HELD_LEASES;

/// The longest answer to a heartbeat: some 100,000 attempts.
pub const MAX_HEARTBEAT_ANSWER_BYTES: usize = 4 * 1024 * 1024;

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
    /// Its labels, which jobs can require or prefer.
    #[serde(default)]
    pub labels: Labels,
    /// Resources of the worker.
    #[serde(default)]
    pub resources: Resources,
    /// The kinds of job that it runs.
    #[serde(default = "least_kinds")]
    pub kinds: Vec<JobKind>,
    /// Abilities of the executors beyond those of the first release, as labels that jobs require by themselves.
    #[serde(default)]
    pub abilities: Labels,
    /// The worker's version.
    pub version: String,
    /// Whether the worker is about to stop: it finishes its leases and takes no new ones.
    #[serde(default)]
    pub is_draining: bool,
    /// The programs that it runs.
    #[serde(default)]
    pub programs: ProgramAbilities,
    /// Every lease of a stored job that the worker holds, those included whose outcome it keeps until it is told that the
    /// outcome is durable.
    #[serde(default)]
    pub held: Vec<HeldLease>,
    /// The highest epoch that the worker had seen when it made the list: nothing of a lower one is added to it any more.
    #[serde(default)]
    pub epoch: u64,
}

/// A lease of a stored job, as the worker that holds it names it: enough for a coordinator that does not know the attempt
/// to adopt it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLease {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job it is part of.
    pub job: JobId,
    /// The first of its tasks.
    pub first: u64,
    /// The task after its last one.
    pub beyond: u64,
    /// The epoch of the coordinator that gave the lease.
    pub epoch: u64,
    /// The slot that computes it, from 0.
    pub slot: u32,
    /// Time since the worker began to compute it; 0 while it waits for its slot.
    pub elapsed_ms: u64,
    /// The state of the lease at the worker.
    pub state: HeldState,
}

/// The state of a lease at the worker that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldState {
    /// The lease computes or waits for its slot.
    Running,
    /// The worker keeps the outcome.
    Finished,
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatAnswer {
    /// The coordinator's epoch: grows with each owner of the store. A worker refuses leases of an epoch lower than the
    /// highest that it has seen.
    pub epoch: u64,
    /// Attempts whose outcome is durable or void: the worker stops them if they still run, and forgets them.
    pub settled: Vec<AttemptId>,
    /// Finished attempts whose outcome the coordinator asks for, because it did not receive it.
    pub deliver: Vec<AttemptId>,
    /// Whether this coordinator does not lead: it registers the worker and says nothing of the worker's leases.
    pub is_standby: bool,
}

/// The kinds that every worker runs.
fn least_kinds() -> Vec<JobKind> {
    vec![JobKind::SUM_OF_PRIMES]
}

/// Query of `DELETE /worker/register/{worker_id}`: the worker is going and takes nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregistration {
    /// The run that goes; another one under the same name stays.
    pub boot_id: BootId,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_heartbeat_and_its_answer_may_leave_out_what_they_do_not_have() {
        let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
        let heartbeat = json!({"port": 1, "boot_id": id, "slots": 1, "running": 0, "cpu_load": 0, "free_memory_bytes": 0,
            "version": "1"});
        assert_eq!(serde_json::from_value::<Heartbeat>(heartbeat).expect("valid").held, []);
        assert_eq!(serde_json::from_value::<HeartbeatAnswer>(json!({})).expect("valid"), HeartbeatAnswer::default());
    }

    /// An upgrade replaces coordinators and workers side by side.
    #[test]
    fn what_a_later_release_adds_to_a_heartbeat_and_its_answer_is_skipped() {
        let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
        let held = json!({"attempt": id, "job": id, "first": 3, "beyond": 5, "epoch": 2, "slot": 0, "elapsed_ms": 9,
            "state": "running", "later": {}});
        let heartbeat = json!({"port": 1, "boot_id": id, "slots": 1, "running": 0, "cpu_load": 0, "free_memory_bytes": 0,
            "version": "2", "later": [1], "resources": {"cpus": 4, "later": 1}, "kinds": ["sleep", "later"],
            "programs": {"wasm": true, "later": 1}, "held": [held]});
        let heartbeat: Heartbeat = serde_json::from_value(heartbeat).expect("valid");
        assert_eq!((heartbeat.resources.cpus, heartbeat.programs.wasm, heartbeat.held[0].beyond), (4, true, 5));
        assert_eq!(heartbeat.kinds[0], JobKind::SLEEP);
        let answer: HeartbeatAnswer = serde_json::from_value(json!({"epoch": 7, "later": 1})).expect("valid");
        assert_eq!(answer, HeartbeatAnswer { epoch: 7, ..HeartbeatAnswer::default() });
    }

    #[test]
    fn a_held_lease_names_its_tasks_and_its_state() {
        let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
        let held = json!({"attempt": id, "job": id, "first": 3, "beyond": 5, "epoch": 2, "slot": 0, "elapsed_ms": 9,
            "state": "finished"});
        let parsed: HeldLease = serde_json::from_value(held.clone()).expect("valid");
        assert_eq!((parsed.first, parsed.beyond, parsed.state), (3, 5, HeldState::Finished));
        assert_eq!(serde_json::to_value(&parsed).expect("JSON"), held);
    }

    #[test]
    fn the_longest_heartbeat_has_room_for_every_lease_that_it_may_list() {
        let (attempt, job) = (AttemptId(uuid::Uuid::max()), JobId(uuid::Uuid::max()));
        let (first, beyond, epoch, elapsed_ms) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        let slot = MAX_SLOTS_PER_WORKER;
        let held = HeldLease { attempt, job, first, beyond, epoch, slot, elapsed_ms, state: HeldState::Finished };
        let bytes = serde_json::to_string(&held).expect("JSON").len() + ",".len();
        assert!(bytes * MAX_HELD_LEASES + 256 * 1024 <= MAX_HEARTBEAT_BYTES, "{bytes} bytes a lease");
    }
}
