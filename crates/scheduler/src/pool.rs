//! The workers: who may get leases of which classes of jobs, and what they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use model::{Affinity, AttemptId, JobKind, Requirements};

use crate::lease::{UnknownWorker, WorkerKey};
use crate::queue::{ClassId, Suits};
use crate::spec::{WorkerSpec, has_all};

/// Affinity keys that a worker is remembered for: what it loaded for older ones is probably gone.
const REMEMBERED_KEYS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    /// Takes nothing new until it is resumed.
    Suspended,
    /// Takes nothing new; leaves with its last lease.
    Retired,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) spec: WorkerSpec,
    pub(crate) held: BTreeSet<AttemptId>,
    pub(crate) standing: Standing,
    /// What it can serve.
    pub(crate) classes: BTreeSet<ClassId>,
    /// Affinity keys of the jobs it had lately, the latest last.
    keys: VecDeque<String>,
}

impl Worker {
    pub(crate) fn has_free_slot(&self) -> bool {
        (self.held.len() as u64) < u64::from(self.spec.slots)
    }

    /// Leases that a new one waits for, as rounds of its slots.
    pub(crate) fn rounds_ahead(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX) / self.spec.slots.max(1)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    workers: BTreeMap<WorkerKey, Worker>,
    /// Slots of the active workers.
    slots: u64,
    /// Of these, those that can serve a class.
    class_slots: HashMap<ClassId, ClassSlots>,
    /// How many workers are remembered for a key.
    key_holders: HashMap<String, u32>,
}

/// The slots of the active workers that can serve a class.
#[derive(Debug)]
struct ClassSlots {
    slots: u64,
    /// Since when there is none.
    none_since: Option<Instant>,
}

impl Pool {
    pub(crate) fn join<'a>(
        &mut self,
        key: WorkerKey,
        spec: WorkerSpec,
        classes: impl Iterator<Item = (ClassId, JobKind, &'a Requirements)>,
    ) {
        let classes = classes.filter(|(_, kind, requires)| spec.matches(*kind, requires)).map(|(id, ..)| id).collect();
        let worker = Worker { spec, held: BTreeSet::new(), standing: Standing::Active, classes, keys: VecDeque::new() };
        self.workers.insert(key, worker);
        self.add_slots(key);
    }

    pub(crate) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.workers.get(&key)
    }

    pub(crate) fn active(&self, key: WorkerKey) -> Result<&Worker, UnknownWorker> {
        self.workers.get(&key).filter(|worker| worker.standing == Standing::Active).ok_or(UnknownWorker)
    }

    pub(crate) fn iter_active(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(|worker| worker.standing == Standing::Active)
    }

    /// Slots of the active workers.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// Slots of the active workers that can serve a class.
    pub(crate) fn slots_for(&self, class: ClassId) -> u64 {
        self.class_slots.get(&class).map_or(0, |class| class.slots)
    }

    /// Since when no active worker can serve a class.
    pub(crate) fn unserved_since(&self, class: ClassId) -> Option<Instant> {
        self.class_slots.get(&class)?.none_since
    }

    pub(crate) fn deactivate(&mut self, key: WorkerKey, standing: Standing, now: Instant) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if worker.standing == Standing::Active {
            worker.standing = standing;
            self.remove_slots(key, now);
        } else if standing == Standing::Retired {
            worker.standing = standing;
        }
    }

    pub(crate) fn resume(&mut self, key: WorkerKey) {
        if let Some(worker) = self.workers.get_mut(&key).filter(|worker| worker.standing == Standing::Suspended) {
            worker.standing = Standing::Active;
            self.add_slots(key);
        }
    }

    /// Removes a worker that is not active.
    pub(crate) fn remove(&mut self, key: WorkerKey) -> Option<Worker> {
        let worker = self.workers.remove(&key)?;
        worker.keys.iter().for_each(|key| release(&mut self.key_holders, key));
        Some(worker)
    }

    pub(crate) fn is_drained(&self, key: WorkerKey) -> bool {
        self.workers.get(&key).is_some_and(|worker| worker.standing == Standing::Retired && worker.held.is_empty())
    }

    pub(crate) fn hold(&mut self, key: WorkerKey, attempt: AttemptId) {
        self.workers.get_mut(&key).expect("the claimant is in the pool").held.insert(attempt);
    }

    pub(crate) fn let_go(&mut self, key: WorkerKey, attempt: AttemptId) {
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.held.remove(&attempt);
        }
    }

    /// A class came into being.
    pub(crate) fn add_class(&mut self, class: ClassId, kind: JobKind, requires: &Requirements, now: Instant) {
        let mut slots = 0;
        for worker in self.workers.values_mut().filter(|worker| worker.spec.matches(kind, requires)) {
            worker.classes.insert(class);
            if worker.standing == Standing::Active {
                slots += u64::from(worker.spec.slots);
            }
        }
        self.class_slots.insert(class, ClassSlots { slots, none_since: (slots == 0).then_some(now) });
    }

    /// A class has no jobs any more.
    pub(crate) fn remove_class(&mut self, class: ClassId) {
        self.class_slots.remove(&class);
        for worker in self.workers.values_mut() {
            worker.classes.remove(&class);
        }
    }

    /// The worker gets a task under an affinity key.
    pub(crate) fn remember(&mut self, key: WorkerKey, affinity: &str) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if let Some(known) = worker.keys.iter().position(|key| key == affinity) {
            let known = worker.keys.remove(known).expect("it was just found");
            return worker.keys.push_back(known);
        }
        if worker.keys.len() == REMEMBERED_KEYS
            && let Some(oldest) = worker.keys.pop_front()
        {
            release(&mut self.key_holders, &oldest);
        }
        worker.keys.push_back(affinity.to_owned());
        *self.key_holders.entry(affinity.to_owned()).or_default() += 1;
    }

    /// How well a worker suits what a job would rather have.
    pub(crate) fn suits(&self, worker: &Worker, affinity: &Affinity) -> Suits {
        if let Some(key) = &affinity.key {
            if worker.keys.contains(key) {
                return Suits::Here;
            }
            if self.key_holders.contains_key(key) {
                return Suits::Elsewhere;
            }
        }
        if affinity.labels.is_empty() {
            Suits::Anywhere
        } else if has_all(&worker.spec.labels, &affinity.labels) {
            Suits::Here
        } else {
            Suits::Elsewhere
        }
    }

    fn add_slots(&mut self, key: WorkerKey) {
        let worker = &self.workers[&key];
        let slots = u64::from(worker.spec.slots);
        self.slots += slots;
        for class in &worker.classes {
            let served = self.class_slots.get_mut(class).expect("a class that a worker serves is there");
            *served = ClassSlots { slots: served.slots + slots, none_since: None };
        }
    }

    fn remove_slots(&mut self, key: WorkerKey, now: Instant) {
        let worker = &self.workers[&key];
        let slots = u64::from(worker.spec.slots);
        self.slots -= slots;
        for class in &worker.classes {
            let served = self.class_slots.get_mut(class).expect("a class that a worker serves is there");
            served.slots -= slots;
            served.none_since = (served.slots == 0).then_some(now);
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self, leases: usize) {
        assert_eq!(self.workers.values().map(|worker| worker.held.len()).sum::<usize>(), leases);
        let is_ghost = |worker: &Worker| worker.standing == Standing::Retired && worker.held.is_empty();
        assert!(!self.workers.values().any(is_ghost), "a ghost worker");
        assert_eq!(self.iter_active().map(|worker| u64::from(worker.spec.slots)).sum::<u64>(), self.slots);
        for (class, ClassSlots { slots, none_since }) in &self.class_slots {
            assert_eq!(none_since.is_some(), *slots == 0);
            let serving = self.iter_active().filter(|worker| worker.classes.contains(class));
            assert_eq!(serving.map(|worker| u64::from(worker.spec.slots)).sum::<u64>(), *slots);
        }
        for (key, holders) in &self.key_holders {
            let remembered = self.workers.values().filter(|worker| worker.keys.contains(key)).count();
            assert_eq!(remembered, *holders as usize);
        }
    }
}

fn release(key_holders: &mut HashMap<String, u32>, key: &str) {
    if let Some(holders) = key_holders.get_mut(key) {
        *holders -= 1;
        if *holders == 0 {
            key_holders.remove(key);
        }
    }
}
