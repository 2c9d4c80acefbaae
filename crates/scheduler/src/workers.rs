//! The workers: which classes of jobs they can serve, the leases that they hold, and their idle slots.

mod ability;
mod busy;
#[cfg(any(test, feature = "invariants"))]
mod check;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use model::{Affinity, AttemptId, JobKind, Requirements, WorkerId};

use crate::abilities::{Abilities, Ability, AbilityId};
use crate::id_map::IdMap;
use crate::idle::IdleSlots;
use crate::lease::{Lane, UnknownWorker, WorkerKey};
use crate::queue::{ClassId, Suits};
use crate::spec::{WorkerSpec, has_all};

/// Affinity keys that are remembered for a worker: data of older keys is probably gone.
const REMEMBERED_KEYS: usize = 64;

/// Whether the scheduler gives a worker leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Active,
    /// The worker gets no leases until it is resumed.
    Suspended,
    /// The worker gets no leases and leaves with its last one.
    Retired,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) ability: AbilityId,
    pub(crate) slots: u32,
    pub(crate) held: BTreeSet<AttemptId>,
    pub(crate) availability: Availability,
    /// The leases of each slot that holds any.
    busy: IdMap<u32, BTreeSet<AttemptId>>,
    idle: IdleSlots,
    /// Affinity keys of its latest jobs, the latest last.
    keys: VecDeque<String>,
}

impl Worker {
    /// The leases of a slot.
    pub(crate) fn leases_of_slot(&self, slot: u32) -> impl Iterator<Item = &AttemptId> {
        self.busy.get(&slot).into_iter().flatten()
    }

    /// The turn of its first idle slot, if it may get leases.
    fn idle_turn(&self) -> Option<u64> {
        self.idle.first().map(|(turn, _)| turn).filter(|_| self.availability == Availability::Active)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Workers {
    workers: IdMap<WorkerKey, Worker>,
    abilities: Abilities,
    /// Slots of the active workers.
    slots: u64,
    classes: IdMap<ClassId, Served>,
    /// Number of workers that are remembered for each key.
    key_holders: HashMap<String, u32>,
    idle_turn: u64,
    /// Counts the changes after which an idle slot may find work that it did not find before.
    change: u64,
}

/// The workers that can serve a class.
#[derive(Debug)]
struct Served {
    abilities: BTreeSet<AbilityId>,
    /// Slots of the active workers.
    slots: u64,
    /// Start of the time without an active worker; `None` while there is one.
    none_since: Option<Instant>,
    /// Number of the last change that concerned the class.
    changed_at: u64,
}

impl Workers {
    /// Adds a worker. Returns the classes that had no worker before.
    pub(crate) fn join<'a>(
        &mut self,
        key: WorkerKey,
        spec: WorkerSpec,
        classes: impl Iterator<Item = (ClassId, JobKind, &'a Requirements)>,
    ) -> Vec<ClassId> {
        let (name, slots) = (spec.id.clone(), spec.slots);
        let worker = Worker {
            id: name,
            ability: self.enter_ability(spec, classes),
            slots,
            held: BTreeSet::new(),
            availability: Availability::Active,
            busy: IdMap::default(),
            idle: IdleSlots::default(),
            keys: VecDeque::new(),
        };
        self.workers.insert(key, worker);
        self.add_slots(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.workers.get(&key)
    }

    pub(crate) fn active(&self, key: WorkerKey) -> Result<&Worker, UnknownWorker> {
        self.workers.get(&key).filter(|worker| worker.availability == Availability::Active).ok_or(UnknownWorker)
    }

    pub(crate) fn ability(&self, worker: &Worker) -> &Ability {
        self.abilities.get(worker.ability)
    }

    /// The abilities of the active workers.
    pub(crate) fn active_abilities(&self) -> impl Iterator<Item = &Ability> {
        self.abilities.iter().map(|(_, ability)| ability).filter(|ability| ability.active_workers > 0)
    }

    /// Slots of the active workers.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// Slots of the active workers that can serve a class.
    pub(crate) fn slots_for(&self, class: ClassId) -> u64 {
        self.classes.get(&class).map_or(0, |served| served.slots)
    }

    /// The instant since which no active worker can serve a class.
    pub(crate) fn unserved_since(&self, class: ClassId) -> Option<Instant> {
        self.classes.get(&class)?.none_since
    }

    /// Stops giving leases to a worker. Returns the classes that have no worker now.
    pub(crate) fn deactivate(&mut self, key: WorkerKey, availability: Availability, now: Instant) -> Vec<ClassId> {
        let Some(worker) = self.workers.get_mut(&key) else { return Vec::new() };
        let was_active = worker.availability == Availability::Active;
        let listed = worker.idle_turn();
        if was_active || availability == Availability::Retired {
            worker.availability = availability;
        }
        if availability == Availability::Retired {
            worker.idle = IdleSlots::default();
        }
        self.abilities.get_mut(worker.ability).idle.relist(key, listed, None);
        if was_active { self.remove_slots(key, now) } else { Vec::new() }
    }

    /// Gives leases to a suspended worker again. Returns the classes that had no worker before.
    pub(crate) fn resume(&mut self, key: WorkerKey) -> Vec<ClassId> {
        let Some(worker) = self.workers.get_mut(&key).filter(|worker| worker.availability == Availability::Suspended)
        else {
            return Vec::new();
        };
        worker.availability = Availability::Active;
        self.abilities.get_mut(worker.ability).idle.relist(key, None, worker.idle_turn());
        self.add_slots(key)
    }

    /// Removes a worker that is not active.
    pub(crate) fn remove(&mut self, key: WorkerKey) -> Option<Worker> {
        let worker = self.workers.remove(&key)?;
        worker.keys.iter().for_each(|key| forget_holder(&mut self.key_holders, key));
        self.leave_ability(worker.ability);
        Some(worker)
    }

    pub(crate) fn is_drained(&self, key: WorkerKey) -> bool {
        self.workers
            .get(&key)
            .is_some_and(|worker| worker.availability == Availability::Retired && worker.held.is_empty())
    }

    pub(crate) fn hold(&mut self, lane: Lane, attempt: AttemptId) {
        let worker = self.workers.get_mut(&lane.worker).expect("the claimant is known");
        let before = worker.busy_slots();
        worker.held.insert(attempt);
        worker.busy.entry(lane.slot).or_default().insert(attempt);
        self.recount_busy(lane.worker, before);
    }

    pub(crate) fn let_go(&mut self, lane: Lane, attempt: AttemptId) {
        let Some(worker) = self.workers.get_mut(&lane.worker) else { return };
        let before = worker.busy_slots();
        worker.held.remove(&attempt);
        if let Some(leases) = worker.busy.get_mut(&lane.slot) {
            leases.remove(&attempt);
            if leases.is_empty() {
                worker.busy.remove(&lane.slot);
            }
        }
        self.recount_busy(lane.worker, before);
    }

    /// Adds a class.
    pub(crate) fn add_class(&mut self, class: ClassId, kind: JobKind, requires: &Requirements, now: Instant) {
        let (mut slots, mut serving) = (0, BTreeSet::new());
        for (id, ability) in self.abilities.iter_mut().filter(|(_, ability)| ability.matches(kind, requires)) {
            ability.classes.insert(class);
            serving.insert(id);
            slots += ability.slots;
        }
        let none_since = (slots == 0).then_some(now);
        self.classes.insert(class, Served { abilities: serving, slots, none_since, changed_at: self.change });
    }

    /// Removes a class without jobs.
    pub(crate) fn remove_class(&mut self, class: ClassId) {
        for id in self.classes.remove(&class).into_iter().flat_map(|served| served.abilities) {
            self.abilities.get_mut(id).classes.remove(&class);
        }
    }

    /// Notes that the slot waits for work. A slot of an unknown or retired worker is ignored.
    pub(crate) fn slot_idle(&mut self, lane: Lane) {
        self.idle_turn += 1;
        let turn = self.idle_turn;
        self.change_idle(lane.worker, |idle| idle.insert(lane.slot, turn));
    }

    /// Notes that the slot does not wait for work any more.
    pub(crate) fn slot_gone(&mut self, lane: Lane) {
        self.change_idle(lane.worker, |idle| idle.remove(lane.slot));
    }

    fn change_idle(&mut self, key: WorkerKey, change: impl FnOnce(&mut IdleSlots)) {
        let Some(worker) = self.workers.get_mut(&key).filter(|worker| worker.availability != Availability::Retired)
        else {
            return;
        };
        let before = worker.idle_turn();
        change(&mut worker.idle);
        self.abilities.get_mut(worker.ability).idle.relist(key, before, worker.idle_turn());
    }

    /// The next idle slot for a class, and its turn.
    pub(crate) fn next_idle(&self, class: ClassId) -> Option<(u64, Lane)> {
        let served = self.classes.get(&class)?;
        let abilities = served.abilities.iter().map(|id| self.abilities.get(*id));
        let (turn, worker) = abilities.filter_map(|ability| ability.idle.first(served.changed_at)).min()?;
        let (_, slot) = self.workers[&worker].idle.first().expect("a listed worker has an idle slot");
        Some((turn, Lane { worker, slot }))
    }

    /// Workers with idle slots that can serve a class.
    pub(crate) fn idle_for(&self, class: ClassId) -> u64 {
        let abilities = self.classes.get(&class).into_iter().flat_map(|served| &served.abilities);
        abilities.map(|id| self.abilities.get(*id).idle.len() as u64).sum()
    }

    /// Notes that a claim for one of the worker's slots found nothing, and whether that tells of its ability's other workers.
    pub(crate) fn note_miss(&mut self, key: WorkerKey, tells_of_others: bool) {
        let Some(worker) = self.workers.get(&key) else { return };
        self.abilities.get_mut(worker.ability).idle.miss(key, self.change, tells_of_others);
    }

    /// Notes that idle slots may find work of the class that they did not find before.
    pub(crate) fn note_change(&mut self, class: ClassId) {
        self.change += 1;
        let change = self.change;
        self.served_mut(class).changed_at = change;
    }

    /// Notes that the worker gets a task under an affinity key.
    pub(crate) fn remember(&mut self, key: WorkerKey, affinity: &str) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if let Some(known) = worker.keys.iter().position(|key| key == affinity) {
            let known = worker.keys.remove(known).expect("it was just found");
            return worker.keys.push_back(known);
        }
        if worker.keys.len() == REMEMBERED_KEYS
            && let Some(oldest) = worker.keys.pop_front()
        {
            forget_holder(&mut self.key_holders, &oldest);
        }
        worker.keys.push_back(affinity.to_owned());
        *self.key_holders.entry(affinity.to_owned()).or_default() += 1;
    }

    /// The degree to which a worker suits a job's affinity.
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
        } else if has_all(&self.ability(worker).labels, &affinity.labels) {
            Suits::Here
        } else {
            Suits::Elsewhere
        }
    }

    fn served_mut(&mut self, class: ClassId) -> &mut Served {
        self.classes.get_mut(&class).expect("a class of a job or an ability is there")
    }

    fn add_slots(&mut self, key: WorkerKey) -> Vec<ClassId> {
        let worker = &self.workers[&key];
        let (slots, ability) = (u64::from(worker.slots), self.abilities.get_mut(worker.ability));
        self.slots += slots;
        ability.slots += slots;
        ability.busy_slots += worker.busy_slots();
        ability.active_workers += 1;
        ability.idle.forgive();
        let mut newly_served = Vec::new();
        for class in &ability.classes {
            let served = self.classes.get_mut(class).expect("a class that a worker serves is there");
            served.slots += slots;
            if served.slots > 0 && served.none_since.take().is_some() {
                newly_served.push(*class);
            }
        }
        newly_served
    }

    /// Removes the worker's slots. Runs that were held back from the last remaining worker no longer are: a change of each class.
    fn remove_slots(&mut self, key: WorkerKey, now: Instant) -> Vec<ClassId> {
        let worker = &self.workers[&key];
        let (slots, ability) = (u64::from(worker.slots), self.abilities.get_mut(worker.ability));
        self.slots -= slots;
        ability.slots -= slots;
        ability.busy_slots -= worker.busy_slots();
        ability.active_workers -= 1;
        self.change += 1;
        let mut unserved = Vec::new();
        for class in &ability.classes {
            let served = self.classes.get_mut(class).expect("a class that a worker serves is there");
            served.slots -= slots;
            served.changed_at = self.change;
            if served.slots == 0 && served.none_since.is_none() {
                served.none_since = Some(now);
                unserved.push(*class);
            }
        }
        unserved
    }
}

fn forget_holder(key_holders: &mut HashMap<String, u32>, key: &str) {
    if let Some(holders) = key_holders.get_mut(key) {
        *holders -= 1;
        if *holders == 0 {
            key_holders.remove(key);
        }
    }
}
