//! Pushed workers, which get their leases by requests, and pulling workers, which claim them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use model::{AttemptId, BootId, JobId, JobKind, Labels, Resources, WorkerId};
use scheduler::{Lane, WorkerKey, WorkerSpec};

use crate::effect::SuspensionReason;
use crate::engine::Engine;
use crate::reconcile::{HeldLease, Reconciled};
use crate::slots::Slot;
use crate::time::Now;

/// Attempts that a worker can be told to forget with its next lease; it learns of more with its heartbeats.
const MAX_SETTLED: usize = 256;

/// Way in which a worker gets its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The coordinator sends the leases to the worker.
    Pushed {
        /// Id of this run of the worker's process.
        boot_id: BootId,
    },
    /// The worker claims its leases.
    Pulled,
}

/// A worker as it announces itself.
#[derive(Clone, Debug)]
pub struct WorkerAnnouncement {
    /// Its name.
    pub id: WorkerId,
    /// Way in which the worker gets its leases.
    pub delivery: Delivery,
    /// Leases that it computes at the same time.
    pub slots: u32,
    /// The kinds of job that it runs.
    pub kinds: Vec<JobKind>,
    /// Its labels.
    pub labels: Labels,
    /// Resources of the worker.
    pub resources: Resources,
    /// Whether the worker runs only jobs that require all its labels.
    pub is_reserved: bool,
    /// Leases that a slot holds at the same time, at least 1: with 2, the next one waits at the worker while one computes.
    pub leases_per_slot: u8,
}

/// Whether a worker gets leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The worker gets leases.
    Ready,
    /// The worker gets no leases until a pause has passed and a heartbeat has come.
    Suspended,
    /// The worker finishes its leases and gets no more.
    Draining,
}

/// The suspension of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// Its reason.
    pub reason: SuspensionReason,
    /// Instant from which on the worker's next heartbeat ends it, or the next claim of a pulling worker; `None` for a worker
    /// that gets no leases until its process is another one.
    pub until: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) delivery: Delivery,
    pub(crate) standing: crate::standing::WorkerStanding,
    /// Slots of a pushed worker.
    pub(crate) slots: Vec<Slot>,
    pub(crate) leases_per_slot: u8,
    /// Leases of stored jobs without a connection, with the heartbeats in a row that did not list them.
    pub(crate) detached: BTreeMap<AttemptId, u32>,
    /// Attempts with durable outcomes that the worker has not been told of.
    settled: VecDeque<AttemptId>,
    pub(crate) completed_tasks: u64,
    pub(crate) speed: Speed,
    /// Jobs that this worker failed since its last success, at most two.
    pub(crate) failed_jobs: Vec<JobId>,
    /// Kinds that it named and does not run.
    pub(crate) lacks: Vec<JobKind>,
}

/// Numbers that leases searched, and the seconds that took: over the last few leases as one, since a short lease may
/// have found its work done already.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Speed {
    numbers: f64,
    seconds: f64,
}

impl Speed {
    pub(crate) fn learn(&mut self, numbers: f64, seconds: f64) {
        *self = Self { numbers: self.numbers / 2.0 + numbers, seconds: self.seconds / 2.0 + seconds };
    }

    /// Numbers a second, once it is known.
    pub(crate) fn numbers_per_second(self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.numbers / self.seconds)
    }
}

impl Worker {
    /// Notes that the outcome of an attempt is durable.
    pub(crate) fn settle(&mut self, attempt: AttemptId) {
        if self.settled.len() < MAX_SETTLED {
            self.settled.push_back(attempt);
        }
    }

    pub(crate) fn take_settled(&mut self) -> Vec<AttemptId> {
        std::mem::take(&mut self.settled).into()
    }

    pub(crate) fn is_pushed(&self) -> bool {
        matches!(self.delivery, Delivery::Pushed { .. })
    }
}

impl Engine {
    /// Adds a worker, with the leases that it already holds.
    pub fn join(&mut self, announcement: WorkerAnnouncement, held: &[HeldLease], now: Now) -> (WorkerKey, Reconciled) {
        let WorkerAnnouncement { id, delivery, slots, kinds, labels, resources, is_reserved, leases_per_slot } =
            announcement;
        let key = self.next_worker_key();
        let of_pushed = if matches!(delivery, Delivery::Pushed { .. }) { slots } else { 0 };
        let worker = Worker {
            id,
            delivery,
            standing: crate::standing::WorkerStanding::default(),
            slots: (0..of_pushed).map(|_| Slot::default()).collect(),
            leases_per_slot,
            detached: BTreeMap::new(),
            settled: VecDeque::new(),
            completed_tasks: 0,
            speed: Speed::default(),
            failed_jobs: Vec::new(),
            lacks: Vec::new(),
        };
        let is_set_aside = self.set_aside.contains(&worker.id, &worker.delivery);
        let spec = WorkerSpec { id: worker.id.clone(), slots, kinds, labels, resources, is_reserved };
        self.workers.insert(key, worker);
        self.scheduler.worker_joined(key, spec);
        if is_set_aside {
            self.distrust(key, now);
        }
        let reconciled = self.reconcile(key, held, now);
        for slot in 0..of_pushed {
            self.fill_slot(Lane { worker: key, slot }, now);
        }
        self.dispatch(now);
        (key, reconciled)
    }

    /// Ends a worker and its leases after it fell silent, was replaced or left.
    pub fn lose(&mut self, key: WorkerKey, now: Now) {
        if !self.workers.contains_key(&key) {
            return;
        }
        self.end_head_starts_of(key);
        self.end_pause_of(key);
        // While the worker's name is known: failed attempts are recorded under it.
        self.scheduler.worker_lost(key, now.instant);
        self.settle(now);
        self.workers.remove(&key);
        self.claims.forget_worker(key);
        self.dispatch(now);
    }

    /// Retires a pulling worker that came back with other abilities: it takes nothing new and goes with its last lease.
    pub fn replace_puller(&mut self, key: WorkerKey, now: Now) {
        self.scheduler.worker_retired(key, now.instant);
        self.settle(now);
    }

    /// Whether the worker has joined this engine and is not lost.
    #[must_use]
    pub fn has_worker(&self, key: WorkerKey) -> bool {
        self.workers.contains_key(&key)
    }

    /// Leases that a worker has.
    #[must_use]
    pub fn leases_of(&self, key: WorkerKey) -> usize {
        self.scheduler.leases_of(key)
    }
}
