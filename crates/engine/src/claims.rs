//! Claims of pulling workers, answered immediately or when there are tasks.

use std::collections::BTreeMap;

use scheduler::{IdMap, Lane, Lease, LeaseSize, WorkerKey};

use crate::effect::{Effect, PulledLease};
use crate::engine::Engine;
use crate::time::Now;

/// A claim that may wait. Ids are the caller's and are used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub u64);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    id: ClaimId,
    max_tasks: u64,
}

/// The claims that wait, each at a lane of its worker.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    lanes: BTreeMap<Lane, Waiting>,
    ids: IdMap<ClaimId, Lane>,
    /// The next lane of each worker with waiting claims.
    next_slot: IdMap<WorkerKey, u32>,
}

impl Claims {
    pub(crate) fn waiting_at(&self, lane: Lane) -> Option<Waiting> {
        self.lanes.get(&lane).copied()
    }

    fn add(&mut self, worker: WorkerKey, waiting: Waiting) -> Lane {
        let slot = self.next_slot.entry(worker).or_default();
        *slot = slot.wrapping_add(1);
        let lane = Lane { worker, slot: *slot };
        self.lanes.insert(lane, waiting);
        self.ids.insert(waiting.id, lane);
        lane
    }

    fn remove(&mut self, id: ClaimId) -> Option<Lane> {
        let lane = self.ids.remove(&id)?;
        self.lanes.remove(&lane);
        Some(lane)
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.lanes.len(), self.ids.len(), "each waiting claim has one lane");
        self.lanes.len()
    }

    fn of_worker(&self, worker: WorkerKey) -> impl Iterator<Item = ClaimId> {
        let lanes = Lane { worker, slot: 0 }..=Lane { worker, slot: u32::MAX };
        self.lanes.range(lanes).map(|(_, waiting)| waiting.id)
    }

    pub(crate) fn forget_worker(&mut self, worker: WorkerKey) {
        self.next_slot.remove(&worker);
        let waiting: Vec<_> = self.of_worker(worker).collect();
        for id in waiting {
            self.remove(id);
        }
    }
}

impl Engine {
    /// Claims at most `max_tasks` tasks for a pulling worker. Returns `None` if no tasks wait for it.
    pub fn claim(&mut self, worker: WorkerKey, max_tasks: u64, now: Now) -> Option<PulledLease> {
        self.claim_at(Lane { worker, slot: 0 }, max_tasks, now)
    }

    /// Answers a claim with [`Effect::Deliver`] as soon as there are tasks, until [`Self::forget_claim`].
    pub fn wait_for_tasks(&mut self, id: ClaimId, worker: WorkerKey, max_tasks: u64, now: Now) {
        if self.workers.contains_key(&worker) {
            let lane = self.claims.add(worker, Waiting { id, max_tasks });
            self.scheduler.slot_idle(lane);
            self.dispatch(now);
        }
    }

    /// Whether a claim of the worker waits.
    #[must_use]
    pub fn has_waiting_claim(&self, worker: WorkerKey) -> bool {
        self.claims.of_worker(worker).next().is_some()
    }

    /// Forgets a claim that no longer waits. Without effect on a claim that was answered.
    pub fn forget_claim(&mut self, id: ClaimId) {
        if let Some(lane) = self.claims.remove(id) {
            self.scheduler.slot_gone(lane);
        }
    }

    pub(crate) fn lease_to_claim(&mut self, lane: Lane, now: Now) -> bool {
        let Some(Waiting { id, max_tasks }) = self.claims.waiting_at(lane) else { return false };
        let Some(lease) = self.claim_at(lane, max_tasks, now) else { return false };
        self.claims.remove(id);
        self.effects.push(Effect::Deliver { claim: id, lease });
        true
    }

    fn claim_at(&mut self, lane: Lane, max_tasks: u64, now: Now) -> Option<PulledLease> {
        if self.is_held_back() {
            return None;
        }
        let attempt = self.attempts.next();
        let claimed = self.scheduler.claim(lane, LeaseSize::AtMost(max_tasks), attempt, now.instant);
        let Lease { attempt, job, tasks, expires_at, .. } = claimed.ok().flatten()?;
        self.settle(now);
        let live = &self.jobs[&job];
        let payloads = tasks.clone().map(|task| live.work.payload(task)).collect();
        let (kind, is_admitted, trace) = (live.kind, live.is_admitted, live.trace.clone());
        Some(PulledLease { job, attempt, kind, is_admitted, tasks, payloads, expires_at, trace })
    }
}
