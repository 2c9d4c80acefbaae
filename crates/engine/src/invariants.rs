//! The invariants of the whole state, for tests and simulations.

use std::collections::{BTreeMap, BTreeSet};

use model::JobId;
use scheduler::Lane;

use crate::engine::Engine;
use crate::standing::WorkerStanding;
use crate::time::Now;
use crate::workers::Standing;

/// The entries that the engine keeps beside jobs, workers and leases: each entry belongs to a job, a worker or a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Jobs that are not over.
    pub jobs: usize,
    /// Leases.
    pub leases: usize,
    /// Compositions.
    pub compositions: usize,
    /// Claims that wait.
    pub claims: usize,
    /// Leases with a head start.
    pub head_starts: usize,
    /// Outcomes that are not committed.
    pub pending: usize,
    /// Outcomes that wait for another worker's.
    pub unsettled: usize,
}

impl Engine {
    /// Counts the entries.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            jobs: self.jobs.len(),
            leases: self.scheduler.leases(),
            compositions: self.composing.len(),
            claims: self.claims.len(),
            head_starts: self.head_starts.len(),
            pending: self.durability.pending_outcomes(),
            unsettled: self.unsettled.len(),
        }
    }

    /// Number of a job's open tasks that are held back from the worker that had them last.
    #[must_use]
    pub fn held_back_tasks(&self, job: JobId, now: Now) -> u64 {
        self.scheduler.held_back_tasks(job, now.instant)
    }

    /// Checks every invariant that the present state can show.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn check(&self) {
        self.scheduler.check();
        self.check_jobs();
        self.check_workers();
        self.composing.check();
        let counted = self.jobs.keys().filter(|id| self.scheduler.progress(**id).is_some()).count() as u64;
        let states = self.scheduler.state_counts();
        assert_eq!(counted, states.queued + states.running + states.paused, "a job of the scheduler's alone");
        let waiting = self.jobs.values().filter_map(|job| job.verification.as_ref());
        let waiting: BTreeSet<_> = waiting.flat_map(crate::verification::Verification::attempts).collect();
        assert_eq!(self.unsettled.keys().copied().collect::<BTreeSet<_>>(), waiting, "an outcome waits for nothing");
        assert!(self.agreed.is_empty(), "an outcome counts without a change");
        assert!(self.effects.is_empty(), "effects are taken after each input");
    }

    fn check_jobs(&self) {
        for (id, job) in &self.jobs {
            let (is_scheduled, is_composing) =
                (self.scheduler.progress(*id).is_some(), self.composing.state(*id).is_some());
            assert!(is_scheduled || (job.is_stored && is_composing), "job {id} waits for nothing");
            assert!(!(is_scheduled && is_composing), "job {id} is composed before it is done");
            assert!(self.explain(*id).is_some(), "job {id} waits without a reason");
        }
    }

    fn check_workers(&self) {
        let (mut head_starts, mut pauses, mut suspended) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (key, worker) in &self.workers {
            let mut by_slot = BTreeMap::<u32, usize>::new();
            let mut attempts = BTreeSet::new();
            for lease in self.scheduler.worker_leases(*key) {
                *by_slot.entry(lease.lane.slot).or_default() += 1;
                attempts.insert(lease.attempt);
            }
            for (number, slot) in (0_u32..).zip(&worker.slots) {
                let leases = by_slot.get(&number).copied().unwrap_or(0);
                assert_eq!(usize::from(slot.leases), leases, "slot {number} of {} miscounts its leases", worker.id);
                let lane = Lane { worker: *key, slot: number };
                assert!(
                    leases == 0 || !self.scheduler.is_idle(lane),
                    "slot {number} of {} waits, but is busy",
                    worker.id
                );
                head_starts.extend(slot.head_start_until().map(|until| (until, lane)));
            }
            let lost = worker.detached.keys().find(|attempt| !attempts.contains(*attempt));
            assert_eq!(lost, None, "a detached lease of {} is not there", worker.id);
            // The timer of a pause is gone once the pause has passed; the worker then waits for a heartbeat.
            if let WorkerStanding::Suspended { until, .. } = worker.standing {
                pauses.extend(self.pauses.get(&(until, *key)));
            }
            if worker.standing() == Standing::Suspended {
                suspended.insert((worker.id.clone(), *key));
            }
        }
        assert_eq!(self.head_starts, head_starts);
        assert_eq!(self.pauses, pauses);
        assert_eq!(self.suspended, suspended);
    }
}
