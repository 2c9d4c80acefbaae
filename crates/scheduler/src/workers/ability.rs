//! Changes of the ability that each worker has.

use std::collections::BTreeSet;
use std::time::Instant;

use model::{JobKind, Requirements};

use super::{Availability, Workers};
use crate::abilities::AbilityId;
use crate::lease::WorkerKey;
use crate::queue::ClassId;
use crate::spec::WorkerSpec;

impl Workers {
    /// Enters the ability of a new worker.
    pub(super) fn enter_ability<'a>(
        &mut self,
        spec: WorkerSpec,
        classes: impl Iterator<Item = (ClassId, JobKind, &'a Requirements)>,
    ) -> AbilityId {
        let (id, is_new) = self.abilities.enter(spec);
        if is_new {
            let ability = self.abilities.get_mut(id);
            let matching = classes.filter(|(_, kind, requires)| ability.matches(*kind, requires));
            let matching: BTreeSet<_> = matching.map(|(class, ..)| class).collect();
            for class in &matching {
                self.served_mut(*class).abilities.insert(id);
            }
            self.abilities.get_mut(id).classes = matching;
        }
        id
    }

    /// Counts one worker less in the ability.
    pub(super) fn leave_ability(&mut self, id: AbilityId) {
        if let Some(ability) = self.abilities.leave(id) {
            for class in &ability.classes {
                self.served_mut(*class).abilities.remove(&id);
            }
        }
    }

    /// Gives a worker no more jobs of a kind. It keeps its leases and its idle slots. Returns the classes that have no worker
    /// now.
    pub(crate) fn drop_kind<'a>(
        &mut self,
        key: WorkerKey,
        kind: JobKind,
        classes: impl Iterator<Item = (ClassId, JobKind, &'a Requirements)>,
        now: Instant,
    ) -> Vec<ClassId> {
        let Some(worker) = self.workers.get(&key) else { return Vec::new() };
        let (before, ability) = (worker.ability, self.abilities.get(worker.ability));
        if !ability.kinds.contains(&kind) {
            return Vec::new();
        }
        let spec = WorkerSpec {
            id: worker.id.clone(),
            slots: worker.slots,
            kinds: ability.kinds.iter().copied().filter(|known| *known != kind).collect(),
            labels: ability.labels.clone(),
            resources: ability.resources,
            is_reserved: ability.is_reserved,
        };
        let (idle_turn, is_active) = (worker.idle_turn(), worker.availability == Availability::Active);
        self.abilities.get_mut(before).idle.relist(key, idle_turn, None);
        let mut unserved = if is_active { self.remove_slots(key, now) } else { Vec::new() };
        self.leave_ability(before);
        let after = self.enter_ability(spec, classes);
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.ability = after;
        }
        self.abilities.get_mut(after).idle.relist(key, None, idle_turn);
        if is_active {
            let served = self.add_slots(key);
            unserved.retain(|class| !served.contains(class));
        }
        unserved
    }
}
