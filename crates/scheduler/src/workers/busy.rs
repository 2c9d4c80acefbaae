//! Counts slots with leases, by the ability of their workers.

use super::{Availability, Worker, Workers};
use crate::lease::WorkerKey;
use crate::queue::ClassId;

impl Worker {
    /// Slots with leases. A worker that pulls may hold more leases than it has slots.
    pub(super) fn busy_slots(&self) -> u64 {
        u64::from(self.slots).min(self.busy.len() as u64)
    }
}

impl Workers {
    /// Slots of the active workers that can serve a class and that have leases.
    pub(crate) fn busy_for(&self, class: ClassId) -> u64 {
        let abilities = self.classes.get(&class).into_iter().flat_map(|served| &served.abilities);
        abilities.map(|id| self.abilities.get(*id).busy_slots).sum()
    }

    /// Counts the busy slots of a worker, which had `before` of them, anew. Those of workers that are not active do not count.
    pub(super) fn recount_busy(&mut self, key: WorkerKey, before: u64) {
        let Some(worker) = self.workers.get(&key).filter(|worker| worker.availability == Availability::Active) else {
            return;
        };
        let ability = self.abilities.get_mut(worker.ability);
        ability.busy_slots = ability.busy_slots - before + worker.busy_slots();
    }
}
