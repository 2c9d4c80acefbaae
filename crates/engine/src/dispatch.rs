//! Assigns waiting tasks to idle slots and waiting claims.

use scheduler::Lane;

use crate::engine::Engine;
use crate::time::Now;

impl Engine {
    /// Leases waiting tasks to idle slots and waiting claims until nothing fits.
    pub(crate) fn dispatch(&mut self, now: Now) {
        // Each lease adds to the backlog of the store, and may be the last until the backlog shrinks.
        while !self.is_held_back()
            && let Some(lane) = self.scheduler.next_idle(now.instant)
        {
            let is_leased = match self.claims.waiting_at(lane) {
                Some(_) => self.lease_to_claim(lane, now),
                None => self.lease_to_slot(lane, now),
            };
            if !is_leased {
                self.offer_again(lane);
            }
        }
    }

    /// Whether leasing is paused: the store lags far behind, or the coordinator stops.
    pub(crate) fn is_held_back(&self) -> bool {
        self.is_stopping || self.durability.unstored() > self.settings.max_unstored
    }

    /// The scheduler offers the lane again when something has changed.
    fn offer_again(&mut self, lane: Lane) {
        self.scheduler.slot_idle(lane);
    }
}
