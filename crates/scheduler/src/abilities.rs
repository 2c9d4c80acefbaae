//! Abilities: workers that can serve the same jobs. Data that depends on kinds, labels and resources alone is kept and searched
//! by ability instead of by worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{JobKind, Labels, Requirements, Resources};

use crate::idle::IdleWorkers;
use crate::queue::ClassId;
use crate::spec::{WorkerSpec, has_all};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AbilityId(u64);

/// The workers with the same kinds, labels, resources and memory for each slot.
#[derive(Debug)]
pub(crate) struct Ability {
    pub(crate) kinds: Vec<JobKind>,
    pub(crate) labels: Labels,
    pub(crate) resources: Resources,
    pub(crate) slot_memory_bytes: u64,
    pub(crate) is_reserved: bool,
    /// The classes that they can serve.
    pub(crate) classes: BTreeSet<ClassId>,
    /// Workers that have it, active or not.
    pub(crate) workers: usize,
    /// The active ones of them, and their slots.
    pub(crate) active_workers: usize,
    pub(crate) slots: u64,
    /// Slots of the active ones that have leases.
    pub(crate) busy_slots: u64,
    pub(crate) idle: IdleWorkers,
}

type Key = (Vec<JobKind>, Labels, u32, u64, u64, bool);

#[derive(Debug, Default)]
pub(crate) struct Abilities {
    abilities: BTreeMap<AbilityId, Ability>,
    ids: HashMap<Key, AbilityId>,
    last_id: u64,
}

impl Ability {
    /// Whether the ability's workers run tasks of a kind with such requirements.
    pub(crate) fn matches(&self, kind: JobKind, requires: &Requirements) -> bool {
        let Requirements { labels, cpus, memory_bytes, slot_memory_bytes } = requires;
        self.kinds.contains(&kind)
            && has_all(&self.labels, labels)
            && (!self.is_reserved || has_all(labels, &self.labels))
            && cpus.is_none_or(|cpus| cpus <= self.resources.cpus)
            && memory_bytes.is_none_or(|bytes| bytes <= self.resources.memory_bytes)
            && slot_memory_bytes.is_none_or(|bytes| bytes <= self.slot_memory_bytes)
    }
}

impl Abilities {
    /// The ability of a new worker, and whether it is a new one.
    pub(crate) fn enter(&mut self, spec: WorkerSpec) -> (AbilityId, bool) {
        let WorkerSpec { slots, kinds, labels, resources, is_reserved, .. } = spec;
        let slot_memory_bytes = resources.slot_memory_bytes(slots);
        let key = key(&kinds, &labels, (resources, slot_memory_bytes), is_reserved);
        if let Some(id) = self.ids.get(&key).copied() {
            self.get_mut(id).workers += 1;
            return (id, false);
        }
        self.last_id += 1;
        let id = AbilityId(self.last_id);
        self.ids.insert(key, id);
        let ability = Ability {
            kinds,
            labels,
            resources,
            slot_memory_bytes,
            is_reserved,
            classes: BTreeSet::new(),
            workers: 1,
            active_workers: 0,
            slots: 0,
            busy_slots: 0,
            idle: IdleWorkers::default(),
        };
        self.abilities.insert(id, ability);
        (id, true)
    }

    /// Counts one worker less in the ability; returns the ability if that was its last worker.
    pub(crate) fn leave(&mut self, id: AbilityId) -> Option<Ability> {
        let ability = self.get_mut(id);
        ability.workers -= 1;
        if ability.workers > 0 {
            return None;
        }
        let ability = self.abilities.remove(&id)?;
        let memory = (ability.resources, ability.slot_memory_bytes);
        self.ids.remove(&key(&ability.kinds, &ability.labels, memory, ability.is_reserved));
        Some(ability)
    }

    pub(crate) fn get(&self, id: AbilityId) -> &Ability {
        &self.abilities[&id]
    }

    pub(crate) fn get_mut(&mut self, id: AbilityId) -> &mut Ability {
        self.abilities.get_mut(&id).expect("a worker's ability is there")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AbilityId, &Ability)> {
        self.abilities.iter().map(|(id, ability)| (*id, ability))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (AbilityId, &mut Ability)> {
        self.abilities.iter_mut().map(|(id, ability)| (*id, ability))
    }
}

fn key(kinds: &[JobKind], labels: &Labels, (resources, of_slot): (Resources, u64), is_reserved: bool) -> Key {
    (kinds.to_vec(), labels.clone(), resources.cpus, resources.memory_bytes, of_slot, is_reserved)
}
