//! The slots of pushed workers: one lease computes while the next one waits at the worker.

use std::time::{Duration, Instant};

use scheduler::{Lane, LeaseSize, WorkerKey};

use crate::engine::Engine;
use crate::time::Now;

/// The lead of a slot's first lease on its second: longer than a request takes to a worker nearby. Two requests that
/// leave together arrive in any order, and the second continues where the first one ends.
const HEAD_START: Duration = Duration::from_millis(1);

/// A slot of a worker.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Number of leases of the slot.
    pub(crate) leases: u8,
    /// Whether a lease of the slot has ended.
    has_ended: bool,
    /// End of the head start of the slot's lease.
    head_start_until: Option<Instant>,
}

#[cfg(any(test, feature = "invariants"))]
impl Slot {
    pub(crate) fn head_start_until(&self) -> Option<Instant> {
        self.head_start_until
    }
}

impl Engine {
    /// Fills a slot: with a lease if the slot is idle, with one lease ahead if it computes.
    pub(crate) fn fill_slot(&mut self, lane: Lane, now: Now) {
        let Some(worker) = self.workers.get(&lane.worker) else { return };
        let Some(slot) = worker.slots.get(lane.slot as usize) else { return };
        // A worker that may be broken is tried with one lease: two leases would cost two attempts.
        let may_fill = !worker.is_on_trial() && (slot.has_ended || worker.is_proven());
        let (leases, most, has_head_start) = (slot.leases, worker.leases_per_slot, slot.head_start_until.is_some());
        if leases == 0 {
            // The slot continues where its last lease ended.
            if !self.lease_to_slot(lane, now) {
                self.scheduler.slot_idle(lane);
            }
        } else if leases < most && may_fill && !has_head_start {
            self.lease_to_slot(lane, now);
        }
    }

    /// Sends the best lease for a slot, if there is one.
    pub(crate) fn lease_to_slot(&mut self, lane: Lane, now: Now) -> bool {
        if self.is_held_back() {
            return false;
        }
        let attempt = self.attempts.next();
        let claimed = self.scheduler.claim(lane, LeaseSize::Fitting, attempt, now.instant);
        let Some(lease) = claimed.ok().flatten() else { return false };
        self.settle(now);
        self.occupy(lane);
        self.start_head_start(lane, now);
        self.send(lane, lease);
        true
    }

    /// Counts one more lease at a slot.
    pub(crate) fn occupy(&mut self, lane: Lane) {
        if let Some(slot) = self.slot_mut(lane) {
            slot.leases = slot.leases.saturating_add(1);
        }
    }

    /// Notes that a lease of the slot has ended.
    pub(crate) fn vacate(&mut self, lane: Lane) {
        let Some(slot) = self.slot_mut(lane) else { return };
        slot.leases = slot.leases.saturating_sub(1);
        slot.has_ended = true;
        self.end_head_start(lane);
    }

    pub(crate) fn end_head_start(&mut self, lane: Lane) {
        if let Some(until) = self.slot_mut(lane).and_then(|slot| slot.head_start_until.take()) {
            self.head_starts.remove(&(until, lane));
        }
    }

    pub(crate) fn end_head_starts_of(&mut self, worker: WorkerKey) {
        let slots = self.workers.get(&worker).map_or(0, |worker| worker.slots.len());
        for slot in 0..u32::try_from(slots).unwrap_or(u32::MAX) {
            self.end_head_start(Lane { worker, slot });
        }
    }

    fn start_head_start(&mut self, lane: Lane, now: Now) {
        let until = now.instant + HEAD_START;
        self.end_head_start(lane);
        if let Some(slot) = self.slot_mut(lane) {
            slot.head_start_until = Some(until);
            self.head_starts.insert((until, lane));
        }
    }

    fn slot_mut(&mut self, lane: Lane) -> Option<&mut Slot> {
        self.workers.get_mut(&lane.worker)?.slots.get_mut(lane.slot as usize)
    }
}
