//! The invariants of the workers, for tests and simulations.

use std::collections::BTreeSet;

use super::{Availability, Worker, Workers};
use crate::abilities::AbilityId;
use crate::lease::Lane;

impl Workers {
    pub(crate) fn is_idle(&self, lane: Lane) -> bool {
        self.workers.get(&lane.worker).is_some_and(|worker| worker.idle.contains(lane.slot))
    }

    /// Checks that the counters and indexes agree with the workers.
    pub(crate) fn check(&self, leases: usize) {
        assert_eq!(self.workers.values().map(|worker| worker.held.len()).sum::<usize>(), leases);
        let is_ghost = |worker: &Worker| worker.availability == Availability::Retired && worker.held.is_empty();
        assert!(!self.workers.values().any(is_ghost), "a ghost worker");
        for worker in self.workers.values() {
            assert_eq!(worker.busy.values().flatten().collect::<BTreeSet<_>>(), worker.held.iter().collect());
        }
        let active = || self.workers.iter().filter(|(_, worker)| worker.availability == Availability::Active);
        let slots_of = |worker: &Worker| u64::from(worker.slots);
        assert_eq!(active().map(|(_, worker)| slots_of(worker)).sum::<u64>(), self.slots);
        for (id, ability) in self.abilities.iter() {
            let having = || active().filter(|(_, worker)| worker.ability == id);
            assert_eq!(having().count(), ability.active_workers);
            assert_eq!(having().map(|(_, worker)| slots_of(worker)).sum::<u64>(), ability.slots);
            assert_eq!(having().map(|(_, worker)| worker.busy_slots()).sum::<u64>(), ability.busy_slots);
            let listed: BTreeSet<_> = ability.idle.listed().collect();
            let idle = having().filter_map(|(key, worker)| Some((worker.idle_turn()?, *key)));
            assert_eq!(listed, idle.collect(), "an idle slot is not listed");
        }
        for (class, served) in &self.classes {
            assert_eq!(served.none_since.is_some(), served.slots == 0);
            let serves = |id: AbilityId| self.abilities.get(id).classes.contains(class);
            let serving = active().filter(|(_, worker)| serves(worker.ability));
            assert_eq!(serving.map(|(_, worker)| slots_of(worker)).sum::<u64>(), served.slots);
            assert!(served.abilities.iter().all(|id| serves(*id)));
        }
        for (key, holders) in &self.key_holders {
            let remembered = self.workers.values().filter(|worker| worker.keys.contains(key)).count();
            assert_eq!(remembered, *holders as usize);
        }
    }
}
