//! Leases of stored jobs. They outlive the connection that brought them: the worker keeps their outcomes, lists them in
//! each heartbeat and forgets them when a coordinator says that they are settled.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{HeldLease, HeldState, LeaseName, LeaseRequest, MAX_HELD_LEASES};
use model::{AttemptId, JobId, WorkerId};
use service::{ApiError, trace};
use tokio::sync::{Notify, oneshot};

use crate::executor::{Answer, Executor, Stop, Work};
use crate::intake::Permit;
use crate::metrics::{LeaseEnd, LeaseObservation, WorkerMetrics};
use crate::outcome::Outcome;

/// Resolves with the outcome, or with an error when the lease was forgotten before.
pub(crate) type Pending = oneshot::Receiver<Outcome>;

/// The number of held leases, and the size of their outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Leases that compute or wait for their slot.
    pub(crate) running: usize,
    /// Kept outcomes.
    pub(crate) finished: usize,
    /// Memory of the kept outcomes, in bytes.
    pub(crate) bytes: u64,
}

/// A lease that the worker gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) attempt: AttemptId,
    pub(crate) name: LeaseName,
}

/// A kept outcome and the name of its lease.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) outcome: Outcome,
    pub(crate) name: LeaseName,
    /// The highest epoch of the coordinators that may know the outcome.
    pub(crate) told_in: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct HeldLeases {
    worker_id: WorkerId,
    max_bytes: u64,
    metrics: WorkerMetrics,
    table: Mutex<Table>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Table {
    leases: HashMap<AttemptId, Held>,
    sizes: Sizes,
}

#[derive(Debug)]
struct Held {
    job: JobId,
    first: u64,
    beyond: u64,
    epoch: u64,
    slot: u32,
    taken_at: Instant,
    told_in: Option<u64>,
    state: LeaseState,
}

#[derive(Debug)]
enum LeaseState {
    Running(Running),
    Finished(Outcome),
}

#[derive(Debug)]
struct Running {
    stop: Stop,
    waiting: Vec<oneshot::Sender<Outcome>>,
    observation: LeaseObservation,
    _permit: Permit,
}

impl HeldLeases {
    pub(crate) fn new(worker_id: WorkerId, max_bytes: u64, metrics: WorkerMetrics) -> Self {
        Self { worker_id, max_bytes, metrics, table: Mutex::default(), emptied: Notify::new() }
    }

    /// Takes a lease and starts its computation. An attempt that is held already is not computed again: its outcome goes
    /// to this caller too.
    ///
    /// # Errors
    /// `enter` refuses, or too much is held.
    pub(crate) fn take(
        self: &Arc<Self>,
        lease: LeaseRequest,
        executor: &Executor,
        enter: impl FnOnce() -> Result<Permit, ApiError>,
    ) -> Result<Pending, ApiError> {
        let (sender, pending) = oneshot::channel();
        let LeaseRequest { job, attempt, slot, kind, work, epoch, first, beyond, .. } = lease;
        let mut table = self.table();
        if let Some(known) = table.leases.get_mut(&attempt) {
            known.wait(epoch, sender);
            return Ok(pending);
        }
        table.check_room(self.max_bytes)?;
        let (permit, stop) = (enter()?, Stop::default());
        let running =
            Running { stop: stop.clone(), waiting: vec![sender], observation: self.metrics.lease(), _permit: permit };
        let (taken_at, state) = (Instant::now(), LeaseState::Running(running));
        table.leases.insert(attempt, Held { job, first, beyond, epoch, slot, taken_at, told_in: None, state });
        table.sizes.running += 1;
        drop(table);
        let (held, own_stop) = (Arc::clone(self), stop.clone());
        let work = Work { lease: Some((job, attempt)), kind, work, tasks: first..beyond, trace: trace::current() };
        executor.submit_to(slot, work, stop, move |answer| held.finish(attempt, &own_stop, answer));
        Ok(pending)
    }

    fn finish(&self, attempt: AttemptId, stop: &Stop, answer: Answer) {
        if let Ok(computed) = &answer {
            self.metrics.computed(computed.busy);
        }
        let outcome = Outcome::new(attempt, answer);
        let mut table = self.table();
        // The lease was forgotten; the same attempt may even be held anew.
        if stop.is_set() {
            return;
        }
        let Some(running) = table.finish(attempt, &outcome) else { return };
        running.observation.end(if outcome.is_done() { LeaseEnd::Completed } else { LeaseEnd::Failed });
        if outcome.is_unsupported() {
            // The lease can go elsewhere at once: there is no report to deliver.
            self.remove(&mut table, attempt);
        }
        drop(table);
        for waiting in running.waiting {
            // The connection may have broken.
            let _ = waiting.send(outcome.clone());
        }
    }

    /// Stops and forgets these attempts, as far as they are held.
    pub(crate) fn forget(&self, attempts: &[AttemptId]) {
        if attempts.is_empty() {
            return;
        }
        let mut table = self.table();
        for attempt in attempts {
            self.remove(&mut table, *attempt);
        }
    }

    /// Stops and forgets the leases that were taken at least `age` ago; returns their number.
    pub(crate) fn forget_older_than(&self, age: Duration) -> usize {
        let mut table = self.table();
        let is_old = |held: &Held| held.taken_at.elapsed() >= age;
        let old: Vec<_> = table.leases.iter().filter(|(_, held)| is_old(held)).map(|(attempt, _)| *attempt).collect();
        for attempt in &old {
            self.remove(&mut table, *attempt);
        }
        old.len()
    }

    /// Stops and forgets all leases; returns those that no waiting connection reports to the coordinator.
    pub(crate) fn hand_back(&self) -> Vec<Returned> {
        let mut table = self.table();
        table.sizes = Sizes::default();
        let mut returned = Vec::new();
        for (attempt, held) in mem::take(&mut table.leases) {
            let name = held.name(&self.worker_id);
            if !held.hand_back() {
                returned.push(Returned { attempt, name });
            }
        }
        self.emptied.notify_waiters();
        returned
    }

    fn remove(&self, table: &mut Table, attempt: AttemptId) {
        let Some(held) = table.leases.remove(&attempt) else { return };
        match held.state {
            LeaseState::Running(running) => {
                running.stop.set();
                table.sizes.running -= 1;
            }
            LeaseState::Finished(outcome) => {
                table.sizes.finished -= 1;
                table.sizes.bytes -= outcome.bytes();
            }
        }
        if table.leases.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves when no lease is held.
    pub(crate) async fn is_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.table().leases.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// All held leases, for a heartbeat.
    pub(crate) fn list(&self) -> Vec<HeldLease> {
        self.table().leases.iter().map(|(attempt, held)| held.listed(*attempt)).collect()
    }

    /// The kept outcome of an attempt.
    pub(crate) fn kept(&self, attempt: AttemptId) -> Option<Kept> {
        let table = self.table();
        let held = table.leases.get(&attempt)?;
        match &held.state {
            LeaseState::Running(_) => None,
            LeaseState::Finished(outcome) => {
                let (outcome, name) = (outcome.clone(), held.name(&self.worker_id));
                Some(Kept { outcome, name, told_in: held.told_in })
            }
        }
    }

    /// Notes that the coordinator of an epoch is told of a kept outcome.
    pub(crate) fn note_told(&self, attempt: AttemptId, epoch: u64) {
        let mut table = self.table();
        if let Some(held) = table.leases.get_mut(&attempt) {
            held.told_in = held.told_in.max(Some(epoch));
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.table().sizes
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check_room(&self, max_bytes: u64) -> Result<(), ApiError> {
        if self.leases.len() < MAX_HELD_LEASES && self.sizes.bytes < max_bytes {
            return Ok(());
        }
        let Sizes { finished, bytes, .. } = self.sizes;
        Err(ApiError::Unavailable(format!(
            "this worker keeps {finished} outcomes of {bytes} bytes until a coordinator settles them"
        )))
    }

    fn finish(&mut self, attempt: AttemptId, outcome: &Outcome) -> Option<Running> {
        let held = self.leases.get_mut(&attempt)?;
        let LeaseState::Running(running) = mem::replace(&mut held.state, LeaseState::Finished(outcome.clone())) else {
            return None;
        };
        if running.waiting.iter().any(|waiting| !waiting.is_closed()) {
            held.told_in = Some(held.epoch);
        }
        self.sizes.running -= 1;
        self.sizes.finished += 1;
        self.sizes.bytes += outcome.bytes();
        Some(running)
    }
}

impl Held {
    /// Adds a connection that waits for the outcome. The coordinator of a later epoch has adopted the lease.
    fn wait(&mut self, epoch: u64, sender: oneshot::Sender<Outcome>) {
        self.epoch = self.epoch.max(epoch);
        match &mut self.state {
            LeaseState::Running(running) => {
                running.waiting.retain(|waiting| !waiting.is_closed());
                running.waiting.push(sender);
            }
            LeaseState::Finished(outcome) => {
                // The caller holds the other end.
                let _ = sender.send(outcome.clone());
                self.told_in = Some(self.epoch);
            }
        }
    }

    fn name(&self, worker_id: &WorkerId) -> LeaseName {
        LeaseName { worker_id: worker_id.clone(), job: self.job, first: self.first, beyond: self.beyond }
    }

    fn listed(&self, attempt: AttemptId) -> HeldLease {
        // The time limit of a lease is that of its computation: a lease that waits for its slot grows no older.
        let (state, age) = match &self.state {
            LeaseState::Running(running) => (HeldState::Running, running.stop.age()),
            LeaseState::Finished(_) => (HeldState::Finished, self.taken_at.elapsed()),
        };
        let &Self { job, first, beyond, epoch, slot, .. } = self;
        let elapsed_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        HeldLease { attempt, job, first, beyond, epoch, slot, elapsed_ms, state }
    }

    /// Stops the lease; returns whether a connection waits for its answer.
    fn hand_back(self) -> bool {
        let LeaseState::Running(Running { stop, waiting, observation, .. }) = self.state else { return false };
        stop.set();
        observation.end(LeaseEnd::Returned);
        waiting.iter().any(|waiting| !waiting.is_closed())
    }
}
