//! The workers that are registered now, and a queue with one stub for each of their free slots.
//!
//! A heartbeat of a known worker touches the last-seen map and nothing else. A [`Stub`] is made once per slot and
//! registration and cannot be copied, so that a slot is never in the queue twice; one whose registration is gone is
//! dropped where it is found. What changes a worker's standing here tells the scheduler under the same lock, so that the
//! two never disagree.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::{Heartbeat, MAX_SLOTS_PER_WORKER, WorkerState};
use dashmap::{DashMap, Entry};
use model::{BootId, InvalidJob, JobKind, WorkerId, check_words};
use scheduler::{Lane, WorkerKey, WorkerSpec};

use crate::grid::Grid;

#[cfg(test)]
mod tests;

/// Slots of all workers together; the bound of the queue of stubs.
const MAX_SLOTS: u64 = 65_536;

/// Pause of a worker after its first failure in a row; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest version that a worker may have, in bytes.
const MAX_VERSION_LEN: usize = 64;

/// The right to give one slot of one registration a lease.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) worker_id: WorkerId,
    pub(crate) key: WorkerKey,
    pub(crate) boot_id: BootId,
    pub(crate) address: SocketAddr,
    /// Which of the worker's slots, from 0.
    pub(crate) slot: u32,
}

impl Stub {
    pub(crate) fn lane(&self) -> Lane {
        Lane { worker: self.key, slot: self.slot }
    }
}

/// Where a heartbeat came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Where the worker takes leases.
    pub(crate) address: SocketAddr,
    /// The connection that the heartbeat came on.
    pub(crate) connection: u64,
}

/// What a heartbeat changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The worker was known.
    Again,
    /// The worker is new.
    New,
    /// The worker is another process under a known name.
    Replaced {
        /// Whether the old one had said that it leaves.
        had_left: bool,
    },
    /// The worker is new and about to leave: it is not taken.
    Leaving,
}

/// Why a heartbeat is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("must be {allowed}")]
    Field { field: &'static str, allowed: String },
    #[error("the workers have {MAX_SLOTS} slots together already")]
    Full,
}

/// A worker that was removed because it fell silent.
#[derive(Debug)]
pub(crate) struct Evicted {
    pub(crate) worker_id: WorkerId,
    /// Whether it had said that it leaves, and held nothing.
    pub(crate) had_left: bool,
}

/// One registered worker.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) key: WorkerKey,
    pub(crate) address: SocketAddr,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) last_seen_at: Instant,
    pub(crate) completed_tasks: u64,
    /// On one slot, lately.
    pub(crate) speed: Speed,
    connection: u64,
    /// Heartbeats in a row on that connection.
    heartbeats_on_connection: u32,
    standing: Standing,
}

/// Numbers that a lease searched, and the seconds that took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Searched {
    pub(crate) numbers: f64,
    pub(crate) seconds: f64,
}

/// How fast a worker is: over its last few leases as one, since a short one may have found its work done already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speed(Searched);

impl Speed {
    fn learn(&mut self, lease: Searched) {
        let Searched { numbers, seconds } = self.0;
        self.0 = Searched { numbers: numbers / 2.0 + lease.numbers, seconds: seconds / 2.0 + lease.seconds };
    }

    /// Numbers a second, once it is known.
    pub(crate) fn numbers_per_second(self) -> Option<f64> {
        let Searched { numbers, seconds } = self.0;
        (seconds > 0.0).then(|| numbers / seconds)
    }
}

#[derive(Clone, Debug)]
enum Standing {
    Ready { failures: u32 },
    Suspended { failures: u32, since: Instant, until: Instant, slots: Vec<u32> },
    Draining,
}

/// The last-seen map and the queue of stubs.
#[derive(Debug)]
pub(crate) struct Registry {
    grid: Arc<Grid>,
    workers: DashMap<WorkerId, Registration>,
    free: (async_channel::Sender<Stub>, async_channel::Receiver<Stub>),
    slots: AtomicU64,
    evict_after: Duration,
    last_sweep_at: Mutex<Instant>,
}

/// How often [`Registry::sweep`] is to be called.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Registration {
    pub(crate) fn state(&self) -> WorkerState {
        match self.standing {
            Standing::Ready { .. } => WorkerState::Ready,
            Standing::Suspended { .. } => WorkerState::Suspended,
            Standing::Draining => WorkerState::Draining,
        }
    }

    fn is_same_run(&self, origin: Origin, heartbeat: &Heartbeat) -> bool {
        let known = &self.heartbeat;
        known.boot_id == heartbeat.boot_id && known.slots == heartbeat.slots && self.address == origin.address
    }

    fn see(&mut self, origin: Origin, heartbeat: Heartbeat, now: Instant) {
        let is_draining = self.heartbeat.is_draining || heartbeat.is_draining;
        let is_same_connection = self.connection == origin.connection;
        self.heartbeats_on_connection =
            if is_same_connection { self.heartbeats_on_connection.saturating_add(1) } else { 1 };
        (self.connection, self.last_seen_at) = (origin.connection, now);
        self.heartbeat = Heartbeat { is_draining, ..heartbeat };
    }

    fn stub(&self, worker_id: &WorkerId, slot: u32) -> Stub {
        let (key, boot_id, address) = (self.key, self.heartbeat.boot_id, self.address);
        Stub { worker_id: worker_id.clone(), key, boot_id, address, slot }
    }

    fn spec(&self) -> WorkerSpec {
        let Heartbeat { slots, kinds, labels, resources, .. } = &self.heartbeat;
        let (kinds, labels) = (kinds.clone(), labels.clone());
        WorkerSpec { slots: *slots, kinds, labels, resources: *resources, is_reserved: false }
    }
}

impl Registry {
    pub(crate) fn new(grid: Arc<Grid>, evict_after: Duration, now: Instant) -> Self {
        Self {
            grid,
            workers: DashMap::new(),
            free: async_channel::unbounded(),
            slots: AtomicU64::new(0),
            evict_after,
            last_sweep_at: Mutex::new(now),
        }
    }

    /// Notes that a worker lives; a new one's slots are free from now on.
    pub(crate) fn register(
        &self,
        worker_id: &WorkerId,
        origin: Origin,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<Registered, RegisterError> {
        check(&heartbeat)?;
        match self.workers.entry(worker_id.clone()) {
            Entry::Occupied(mut entry) => {
                if entry.get().is_same_run(origin, &heartbeat) {
                    entry.get_mut().see(origin, heartbeat, now);
                    self.update_standing(worker_id, entry.get_mut(), now);
                    return Ok(Registered::Again);
                }
                let registration = self.join(worker_id, origin, heartbeat, now)?;
                let old = entry.insert(registration);
                let had_left = self.forget(&old);
                Ok(Registered::Replaced { had_left })
            }
            Entry::Vacant(_) if heartbeat.is_draining => Ok(Registered::Leaving),
            Entry::Vacant(entry) => {
                entry.insert(self.join(worker_id, origin, heartbeat, now)?);
                Ok(Registered::New)
            }
        }
    }

    /// Stops giving leases to a worker that is going; its registration stays until it falls silent. Answers whether it
    /// is registered as that process.
    pub(crate) fn deregister(&self, worker_id: &WorkerId, boot_id: BootId, now: Instant) -> bool {
        let Some(mut registration) = self.workers.get_mut(worker_id) else { return false };
        if registration.heartbeat.boot_id != boot_id {
            return false;
        }
        registration.heartbeat.is_draining = true;
        self.update_standing(worker_id, &mut registration, now);
        true
    }

    /// The next free slot of a worker that is there and ready.
    pub(crate) fn next_free(&self) -> Option<Stub> {
        while let Ok(stub) = self.free.1.try_recv() {
            if self.is_ready(&stub) {
                return Some(stub);
            }
            self.release(stub);
        }
        None
    }

    /// Slots in the queue, stale ones included.
    pub(crate) fn free_stubs(&self) -> usize {
        self.free.1.len()
    }

    /// Whether the slot's worker is there and may get a lease.
    pub(crate) fn is_ready(&self, stub: &Stub) -> bool {
        let registration = self.workers.get(&stub.worker_id);
        registration.is_some_and(|found| found.key == stub.key && matches!(found.standing, Standing::Ready { .. }))
    }

    /// Whether the slot's worker has completed leases and failed none since.
    pub(crate) fn is_proven(&self, stub: &Stub) -> bool {
        let registration = self.workers.get(&stub.worker_id);
        registration.is_some_and(|found| {
            found.key == stub.key
                && found.completed_tasks > 0
                && matches!(found.standing, Standing::Ready { failures: 0 })
        })
    }

    /// Puts a slot back that has nothing to do. One of a suspended worker waits for the end of the pause.
    pub(crate) fn release(&self, stub: Stub) {
        let Some(mut registration) = self.workers.get_mut(&stub.worker_id) else { return };
        if registration.key != stub.key {
            return;
        }
        match &mut registration.standing {
            Standing::Ready { .. } => self.queue(stub),
            Standing::Suspended { slots, .. } => slots.push(stub.slot),
            Standing::Draining => (),
        }
    }

    /// Counts a completed lease, which ends a row of failures.
    pub(crate) fn note_success(&self, stub: &Stub, tasks: u64, searched: Option<Searched>) {
        let Some(mut registration) = self.workers.get_mut(&stub.worker_id) else { return };
        if registration.key != stub.key {
            return;
        }
        registration.completed_tasks += tasks;
        searched.into_iter().for_each(|searched| registration.speed.learn(searched));
        if let Standing::Ready { failures } = &mut registration.standing {
            *failures = 0;
        }
    }

    /// Suspends a worker whose lease failed: it gets nothing until it has shown that it lives and a pause has passed,
    /// which grows with every failure in a row.
    pub(crate) fn note_failure(&self, stub: &Stub, now: Instant) {
        let Some(mut registration) = self.workers.get_mut(&stub.worker_id) else { return };
        let Standing::Ready { failures } = registration.standing else { return };
        if registration.key == stub.key {
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
            self.suspend(&mut registration, failures + 1, now, now + pause);
        }
    }

    /// Suspends a worker whose heartbeat connection closed until its next heartbeat: its process is probably gone, and
    /// where its address went with it, a lease sent there would wait for the connect timeout.
    ///
    /// A worker that opens a connection for every heartbeat shows nothing by closing one.
    pub(crate) fn note_disconnect(&self, worker_id: &WorkerId, connection: u64, now: Instant) {
        let Some(mut registration) = self.workers.get_mut(worker_id) else { return };
        if registration.connection == connection
            && registration.heartbeats_on_connection > 1
            && let Standing::Ready { failures } = registration.standing
        {
            self.suspend(&mut registration, failures, now, now);
        }
    }

    /// Removes who was silent for too long and ends pauses that are over.
    ///
    /// A sweep that comes late means that this process was away, not the workers: they get that time credited.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Evicted> {
        let away = self.time_away(now);
        let mut evicted = Vec::new();
        self.workers.retain(|worker_id, registration| {
            registration.last_seen_at = (registration.last_seen_at + away).min(now);
            let silent = now.saturating_duration_since(registration.last_seen_at);
            if silent > self.evict_after {
                evicted.push(Evicted { worker_id: worker_id.clone(), had_left: self.forget(registration) });
                return false;
            }
            self.update_standing(worker_id, registration, now);
            true
        });
        if !evicted.is_empty() {
            self.drop_stale_stubs();
        }
        evicted
    }

    /// All registrations, by name.
    pub(crate) fn snapshot(&self) -> Vec<(WorkerId, Registration)> {
        let mut workers: Vec<_> =
            self.workers.iter().map(|worker| (worker.key().clone(), worker.value().clone())).collect();
        workers.sort_by(|(one, _), (other, _)| one.cmp(other));
        workers
    }

    fn join(
        &self,
        worker_id: &WorkerId,
        origin: Origin,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<Registration, RegisterError> {
        let slots = u64::from(heartbeat.slots);
        if self.slots.load(Ordering::Relaxed) + slots > MAX_SLOTS {
            return Err(RegisterError::Full);
        }
        self.slots.fetch_add(slots, Ordering::Relaxed);
        let registration = Registration {
            key: self.grid.next_worker_key(),
            address: origin.address,
            heartbeat,
            last_seen_at: now,
            completed_tasks: 0,
            speed: Speed::default(),
            connection: origin.connection,
            heartbeats_on_connection: 1,
            standing: Standing::Ready { failures: 0 },
        };
        self.grid.worker_joined(registration.key, worker_id.clone(), registration.spec());
        self.queue_stubs(worker_id, &registration, 0..registration.heartbeat.slots);
        Ok(registration)
    }

    /// Ends a registration and what its worker holds; answers whether that was nothing, from a worker that has left.
    fn forget(&self, registration: &Registration) -> bool {
        let had_left = registration.heartbeat.is_draining && self.grid.leases_of(registration.key) == 0;
        self.slots.fetch_sub(registration.heartbeat.slots.into(), Ordering::Relaxed);
        self.grid.worker_lost(registration.key);
        had_left
    }

    fn suspend(&self, registration: &mut Registration, failures: u32, since: Instant, until: Instant) {
        registration.standing = Standing::Suspended { failures, since, until, slots: Vec::new() };
        self.grid.worker_suspended(registration.key);
    }

    /// Lets a worker go that drains, and one back in whose pause is over and who has shown since that it lives.
    fn update_standing(&self, worker_id: &WorkerId, registration: &mut Registration, now: Instant) {
        if registration.heartbeat.is_draining {
            registration.standing = Standing::Draining;
            self.grid.worker_retired(registration.key);
        } else if let Standing::Suspended { failures, since, until, slots } = &mut registration.standing
            && registration.last_seen_at > *since
            && *until <= now
        {
            let slots = std::mem::take(slots);
            registration.standing = Standing::Ready { failures: *failures };
            self.grid.worker_resumed(registration.key);
            self.queue_stubs(worker_id, registration, slots);
        }
    }

    fn queue_stubs(&self, worker_id: &WorkerId, registration: &Registration, slots: impl IntoIterator<Item = u32>) {
        for slot in slots {
            self.queue(registration.stub(worker_id, slot));
        }
        self.grid.slots_changed();
    }

    fn current(&self, worker_id: &WorkerId, key: WorkerKey) -> Option<Registration> {
        self.workers.get(worker_id).filter(|registration| registration.key == key).map(|found| found.clone())
    }

    fn queue(&self, stub: Stub) {
        // The channel is never closed: this holds both ends.
        let _ = self.free.0.try_send(stub);
    }

    /// Without this a worker that restarts again and again would fill the queue of a coordinator without jobs.
    fn drop_stale_stubs(&self) {
        for _ in 0..self.free_stubs() {
            let Ok(stub) = self.free.1.try_recv() else { return };
            if self.current(&stub.worker_id, stub.key).is_some() {
                self.queue(stub);
            }
        }
    }

    fn time_away(&self, now: Instant) -> Duration {
        let mut last_sweep_at = self.last_sweep_at.lock().unwrap_or_else(PoisonError::into_inner);
        let since_last = now.saturating_duration_since(*last_sweep_at);
        *last_sweep_at = now;
        if since_last > 2 * SWEEP_INTERVAL { since_last - SWEEP_INTERVAL } else { Duration::ZERO }
    }
}

fn check(heartbeat: &Heartbeat) -> Result<(), RegisterError> {
    for (field, is_valid, allowed) in [
        ("port", heartbeat.port > 0, "from 1 to 65535".to_owned()),
        ("slots", (1..=MAX_SLOTS_PER_WORKER).contains(&heartbeat.slots), format!("from 1 to {MAX_SLOTS_PER_WORKER}")),
        ("cpu_load", (0.0..=1.0).contains(&heartbeat.cpu_load), "from 0 to 1".to_owned()),
        ("kinds", heartbeat.kinds.len() <= JobKind::ALL.len(), "each kind once".to_owned()),
        // Their payloads go to workers that fetch them.
        ("kinds", !heartbeat.kinds.contains(&JobKind::Tasks), "kinds that a worker is sent, not tasks".to_owned()),
        ("version", heartbeat.version.len() <= MAX_VERSION_LEN, format!("at most {MAX_VERSION_LEN} bytes long")),
    ] {
        if !is_valid {
            return Err(RegisterError::Field { field, allowed });
        }
    }
    let wrong = |error: InvalidJob| RegisterError::Field {
        field: "labels",
        allowed: format!("such that it {}", error.message),
    };
    check_words("labels", &heartbeat.labels).map_err(wrong)
}
