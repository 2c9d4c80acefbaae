//! Slots that wait for work, by the workers and the abilities that they belong to.
//!
//! Only abilities are compared with waiting jobs, so the cost of finding a slot does not depend on the number of idle slots.
//! Where a claim for an idle slot finds nothing, its worker is not offered again until something changes; where [`MAX_MISSES`]
//! workers of the same ability have found nothing, none of them is.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use crate::id_map::IdMap;
use crate::lease::WorkerKey;

/// A claim that finds nothing has one of two causes. Either no worker of this ability can get the waiting tasks, or the worker
/// is to be avoided: as the last that failed at a run, or as the holder of the late lease. So one of three workers is free of
/// both, and if it finds nothing, no worker does. Workers that have computed a run which is compared do not count: there may be
/// any number of them.
const MAX_MISSES: usize = 3;

/// The idle slots of one worker, in the order in which they became idle.
#[derive(Debug, Default)]
pub(crate) struct IdleSlots {
    by_turn: BTreeMap<u64, u32>,
    turns: IdMap<u32, u64>,
}

impl IdleSlots {
    /// A slot that is idle already keeps its turn.
    pub(crate) fn insert(&mut self, slot: u32, turn: u64) {
        if let Entry::Vacant(entry) = self.turns.entry(slot) {
            entry.insert(turn);
            self.by_turn.insert(turn, slot);
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(turn) = self.turns.remove(&slot) {
            self.by_turn.remove(&turn);
        }
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.turns.contains_key(&slot)
    }

    /// The turn and the number of the slot that has been idle for longest.
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        self.by_turn.first_key_value().map(|(turn, slot)| (*turn, *slot))
    }
}

/// The workers of one ability that have idle slots, each at its first slot's turn.
#[derive(Debug, Default)]
pub(crate) struct IdleWorkers {
    by_turn: BTreeMap<u64, WorkerKey>,
    /// Workers that found nothing since the change of this number.
    missed: Vec<WorkerKey>,
    /// Number of these that count to [`MAX_MISSES`].
    counted: usize,
    missed_since: u64,
}

impl IdleWorkers {
    /// Moves a worker from one turn to another; none where it is not listed.
    pub(crate) fn relist(&mut self, worker: WorkerKey, from: Option<u64>, to: Option<u64>) {
        if from != to {
            if let Some(turn) = from {
                self.by_turn.remove(&turn);
            }
            self.by_turn.extend(to.map(|turn| (turn, worker)));
        }
    }

    /// The first worker that may find something in a class that changed last at the change `changed_at`, and its turn.
    pub(crate) fn first(&self, changed_at: u64) -> Option<(u64, WorkerKey)> {
        let is_changed = changed_at > self.missed_since;
        if !is_changed && self.counted >= MAX_MISSES {
            return None;
        }
        let mut listed = self.by_turn.iter().map(|(turn, worker)| (*turn, *worker));
        listed.find(|(_, worker)| is_changed || !self.missed.contains(worker))
    }

    /// Workers with idle slots.
    pub(crate) fn len(&self) -> usize {
        self.by_turn.len()
    }

    /// Notes that a worker found nothing after `change` changes, and whether that counts to [`MAX_MISSES`].
    pub(crate) fn miss(&mut self, worker: WorkerKey, change: u64, counts: bool) {
        if self.missed_since != change {
            self.forgive();
            self.missed_since = change;
        }
        if self.counted < MAX_MISSES && !self.missed.contains(&worker) {
            self.missed.push(worker);
            self.counted += usize::from(counts);
        }
    }

    /// Lets every worker be offered again.
    pub(crate) fn forgive(&mut self) {
        self.missed.clear();
        self.counted = 0;
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn listed(&self) -> impl Iterator<Item = (u64, WorkerKey)> {
        self.by_turn.iter().map(|(turn, worker)| (*turn, *worker))
    }
}
