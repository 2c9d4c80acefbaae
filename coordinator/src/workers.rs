//! The registered workers: their addresses and the times of their last heartbeats.
//!
//! Two rules are here, because they concern connections: a name belongs to the live process under it, and a worker is lost when
//! it falls silent. Everything else about workers is the engine's, while this coordinator leads. A standby keeps the map too,
//! so that it can ask the workers for their leases when it takes over.

mod heartbeats;
mod registration;
mod states;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use api::{Heartbeat, HeartbeatAnswer};
use dashmap::{DashMap, Entry};
use engine::{Engine, HeldLease, Now, Reconciled};
use model::{BootId, JobKind, Labels, Requirements, WorkerId};
use scheduler::WorkerKey;

use heartbeats::{check, held_lease, keep_finished};
use registration::all_labels;
pub(crate) use registration::{Destination, Origin, Registration};

use crate::driver::Driver;

/// The most slots of all workers together: the bound on the engine's memory for them.
const MAX_SLOTS: u64 = 65_536;

/// Interval at which [`Workers::sweep`] is to be called.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// A worker whose heartbeat connection closed is lost when no heartbeat comes within this time: a living one opens
/// another connection within a second.
const DISCONNECTED_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A worker seen this recently is asked for its leases when a term begins; no answer is expected of the others.
const SEEN_LATELY: Duration = Duration::from_millis(2_500);

/// The effect of a heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The worker was known.
    Known,
    /// The worker is new.
    New,
    /// The worker is another process under a known name.
    Replaced {
        /// Whether the old process had said that it leaves.
        had_left: bool,
    },
    /// The worker is new and about to leave: it is not registered.
    Leaving,
}

/// The reason why a heartbeat is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("{field} must be {allowed}")]
    Field { field: &'static str, allowed: String },
    #[error("the workers have {MAX_SLOTS} slots together already")]
    Full,
    #[error(
        "the name {worker_id} belongs to a living worker at {address}: give each worker a DIVVY_WORKER_ID of its own"
    )]
    NameTaken { worker_id: WorkerId, address: SocketAddr },
}

/// A worker that was removed because it fell silent.
#[derive(Debug)]
pub(crate) struct Evicted {
    pub(crate) worker_id: WorkerId,
    /// Whether the worker had said that it leaves, and held nothing.
    pub(crate) had_left: bool,
}

/// The map of registered workers.
#[derive(Debug)]
pub(crate) struct Workers {
    /// The driver of the present term.
    driver: RwLock<Option<Arc<Driver>>>,
    registrations: DashMap<WorkerId, Registration>,
    names: DashMap<WorkerKey, WorkerId>,
    slots: AtomicU64,
    /// Processes that an operator has drained, by name: a process stays drained when it is forgotten and comes back.
    drained: DashMap<WorkerId, BootId>,
    evict_after: Duration,
    last_sweep_at: Mutex<Instant>,
}

impl Workers {
    pub(crate) fn new(evict_after: Duration, now: Instant) -> Self {
        Self {
            driver: RwLock::default(),
            registrations: DashMap::new(),
            names: DashMap::new(),
            slots: AtomicU64::new(0),
            drained: DashMap::new(),
            evict_after,
            last_sweep_at: Mutex::new(now),
        }
    }

    /// Makes workers join the engine of a term, each with its next heartbeat.
    pub(crate) fn begin_term(&self, driver: &Arc<Driver>) {
        *self.driver.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(driver));
    }

    /// The live workers that may hold leases of the last term. The tasks of the leases wait until each of these workers has
    /// listed its leases to the present term. Without such a worker the wait ends now.
    pub(crate) fn await_lists(&self, driver: &Driver, now: Instant) -> Vec<Destination> {
        let lives =
            |registration: &Registration| now.saturating_duration_since(registration.last_seen_at) < SEEN_LATELY;
        let living: Vec<_> = self.registrations.iter().filter(|worker| lives(worker.value())).collect();
        let (ids, destinations): (BTreeSet<_>, Vec<_>) =
            living.iter().map(|worker| (worker.key().clone(), worker.value().destination())).unzip();
        drop(living);
        driver.input(|engine, now| engine.await_lists(ids, now));
        destinations
    }

    /// Gives the engine of the term no more heartbeats.
    pub(crate) fn end_term(&self, driver: &Arc<Driver>) {
        {
            let mut current = self.driver.write().unwrap_or_else(PoisonError::into_inner);
            if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, driver)) {
                return;
            }
            *current = None;
        }
        self.names.clear();
        self.registrations.iter_mut().for_each(|mut registration| registration.key = None);
    }

    fn driver(&self) -> Option<Arc<Driver>> {
        self.driver.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a heartbeat and compares the leases that it lists with the engine's.
    pub(crate) fn register(
        &self,
        worker_id: &WorkerId,
        origin: Origin,
        mut heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<(Registered, HeartbeatAnswer), RegisterError> {
        check(&heartbeat)?;
        let held: Vec<_> = std::mem::take(&mut heartbeat.held).into_iter().map(held_lease).collect();
        let seen_epoch = heartbeat.epoch;
        let is_leaving = heartbeat.is_draining && held.is_empty();
        heartbeat.is_draining |= self.is_drained(worker_id, heartbeat.boot_id);
        let driver = self.driver();
        let reconcile = |registration: &mut Registration| match &driver {
            Some(driver) => self.reconcile(driver, worker_id, registration, &held),
            None => Reconciled::default(),
        };
        let (registered, reconciled) = match self.registrations.entry(worker_id.clone()) {
            Entry::Occupied(mut entry) if entry.get().is_same_process(&heartbeat) => {
                entry.get_mut().see(origin, heartbeat, now);
                (Registered::Known, reconcile(entry.get_mut()))
            }
            Entry::Occupied(mut entry) => {
                let old = entry.get();
                if old.heartbeat.boot_id != heartbeat.boot_id && old.is_alive(now) {
                    let (worker_id, address) = (worker_id.clone(), old.address);
                    return Err(RegisterError::NameTaken { worker_id, address });
                }
                let had_left = self.forget(old);
                let mut registration = match self.admit(origin, heartbeat, now) {
                    Ok(registration) => registration,
                    Err(error) => {
                        // The slots of the worker are free, and must not be given back again.
                        entry.remove();
                        return Err(error);
                    }
                };
                let reconciled = reconcile(&mut registration);
                entry.insert(registration);
                (Registered::Replaced { had_left }, reconciled)
            }
            Entry::Vacant(_) if is_leaving => (Registered::Leaving, Reconciled::default()),
            Entry::Vacant(entry) => {
                let mut registration = self.admit(origin, heartbeat, now)?;
                let reconciled = reconcile(&mut registration);
                entry.insert(registration);
                (Registered::New, reconciled)
            }
        };
        let Some(driver) = driver else {
            return Ok((registered, HeartbeatAnswer { is_standby: true, ..HeartbeatAnswer::default() }));
        };
        let epoch = driver.input(|engine, now| {
            engine.listed(worker_id, seen_epoch, now);
            engine.epoch()
        });
        let Reconciled { settled, deliver } = reconciled;
        Ok((registered, HeartbeatAnswer { epoch, settled, deliver, is_standby: false }))
    }

    /// Stops giving leases to a worker that is about to exit; its registration stays until it falls silent. Returns whether the
    /// worker is registered as that process.
    pub(crate) fn deregister(&self, worker_id: &WorkerId, boot_id: BootId) -> bool {
        let Some(mut registration) = self.registrations.get_mut(worker_id) else { return false };
        if registration.heartbeat.boot_id != boot_id {
            return false;
        }
        registration.heartbeat.is_draining = true;
        self.tell_engine(registration.key, Engine::drain);
        true
    }

    /// Gives a process no new leases, however often it registers: it may end its present ones.
    pub(crate) fn drain(&self, worker_id: &WorkerId, boot_id: BootId) {
        self.drained.insert(worker_id.clone(), boot_id);
        self.deregister(worker_id, boot_id);
    }

    /// Takes over the stored drains of processes.
    pub(crate) fn keep_drained(&self, drained: impl Iterator<Item = (WorkerId, BootId)>) {
        self.drained.clear();
        for (worker_id, boot_id) in drained {
            self.drained.insert(worker_id, boot_id);
        }
    }

    /// Forgets the drain of a process, since another process has its name or it is gone.
    pub(crate) fn forget_drained(&self, worker_id: &WorkerId, boot_id: BootId) {
        self.drained.remove_if(worker_id, |_, drained| *drained == boot_id);
    }

    fn is_drained(&self, worker_id: &WorkerId, boot_id: BootId) -> bool {
        self.drained.get(worker_id).is_some_and(|drained| *drained == boot_id)
    }

    /// The process that is registered under a name.
    pub(crate) fn boot_id(&self, worker_id: &WorkerId) -> Option<BootId> {
        self.registrations.get(worker_id).map(|registration| registration.heartbeat.boot_id)
    }

    /// Whether a registered worker that does not drain runs a kind and meets the requirements.
    pub(crate) fn can_run(&self, kind: JobKind, requires: &Requirements) -> bool {
        let Requirements { labels, cpus, memory_bytes, slot_memory_bytes } = requires;
        self.registrations.iter().any(|worker| {
            let Heartbeat { slots, kinds, resources, is_draining, .. } = &worker.heartbeat;
            !is_draining
                && kinds.contains(&kind)
                && cpus.is_none_or(|cpus| cpus <= resources.cpus)
                && memory_bytes.is_none_or(|bytes| bytes <= resources.memory_bytes)
                && slot_memory_bytes.is_none_or(|bytes| bytes <= resources.slot_memory_bytes(*slots))
                && (labels.is_empty() || has_all(&all_labels(&worker.heartbeat), labels))
        })
    }

    /// Notes that the connection of a worker's heartbeats has closed: the process is probably gone.
    ///
    /// A worker that opens a connection for every heartbeat shows nothing by closing one.
    pub(crate) fn note_disconnect(&self, worker_id: &WorkerId, connection: u64, now: Instant) {
        let Some(mut registration) = self.registrations.get_mut(worker_id) else { return };
        if registration.connection == connection && registration.heartbeats_on_connection > 1 {
            registration.disconnected_at = Some(now);
            self.tell_engine(registration.key, Engine::disconnected);
        }
    }

    fn tell_engine(&self, key: Option<WorkerKey>, tell: impl FnOnce(&mut Engine, WorkerKey, Now)) {
        if let (Some(driver), Some(key)) = (self.driver(), key) {
            driver.input(|engine, now| tell(engine, key, now));
        }
    }

    /// Removes the workers that were silent for too long.
    ///
    /// After a late sweep, this process was away and not the workers: the workers are credited that time.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Evicted> {
        let away = self.time_away(now);
        let mut silent = Vec::new();
        for mut registration in self.registrations.iter_mut() {
            registration.last_seen_at = (registration.last_seen_at + away).min(now);
            registration.disconnected_at = registration.disconnected_at.map(|at| (at + away).min(now));
            let is_silent = now.saturating_duration_since(registration.last_seen_at) > self.evict_after;
            let is_gone = registration
                .disconnected_at
                .is_some_and(|at| now.saturating_duration_since(at) > DISCONNECTED_TIMEOUT.min(self.evict_after));
            if is_silent || is_gone {
                silent.push((registration.key().clone(), registration.last_seen_at));
            }
        }
        let evict = |(worker_id, last_seen_at): (WorkerId, Instant)| {
            let is_silent_still = |_: &WorkerId, worker: &Registration| worker.last_seen_at == last_seen_at;
            let (_, registration) = self.registrations.remove_if(&worker_id, is_silent_still)?;
            Some(Evicted { worker_id, had_left: self.forget(&registration) })
        };
        silent.into_iter().filter_map(evict).collect()
    }

    /// All registrations, by name.
    pub(crate) fn snapshot(&self) -> Vec<(WorkerId, Registration)> {
        let mut workers: Vec<_> =
            self.registrations.iter().map(|worker| (worker.key().clone(), worker.value().clone())).collect();
        workers.sort_by(|(one, _), (other, _)| one.cmp(other));
        workers
    }

    /// The registration under a name.
    pub(crate) fn key(&self, worker_id: &WorkerId) -> Option<WorkerKey> {
        self.registrations.get(worker_id).and_then(|registration| registration.key)
    }

    /// The address for leases of a worker, if it still has the same registration.
    pub(crate) fn destination(&self, worker_id: &WorkerId, key: WorkerKey) -> Option<Destination> {
        let registration = self.registrations.get(worker_id).filter(|registration| registration.key == Some(key))?;
        Some(registration.destination())
    }

    /// The address for leases of a registered worker.
    pub(crate) fn destination_of(&self, key: WorkerKey) -> Option<Destination> {
        let worker_id = self.names.get(&key)?.clone();
        self.destination(&worker_id, key)
    }

    /// A new registration if there is room for the worker's slots.
    fn admit(&self, origin: Origin, heartbeat: Heartbeat, now: Instant) -> Result<Registration, RegisterError> {
        let slots = u64::from(heartbeat.slots);
        if self.slots.fetch_add(slots, Ordering::Relaxed) + slots > MAX_SLOTS {
            self.slots.fetch_sub(slots, Ordering::Relaxed);
            return Err(RegisterError::Full);
        }
        Ok(Registration {
            key: None,
            address: origin.address,
            heartbeat,
            last_seen_at: now,
            connection: origin.connection,
            heartbeats_on_connection: 1,
            disconnected_at: None,
        })
    }

    /// Compares the leases that a worker lists with the engine's; a worker unknown to the engine joins it.
    fn reconcile(
        &self,
        driver: &Driver,
        worker_id: &WorkerId,
        registration: &mut Registration,
        held: &[HeldLease],
    ) -> Reconciled {
        let is_draining = registration.heartbeat.is_draining;
        let (key, reconciled) = driver.input(|engine, now| {
            if let Some(key) = registration.key.filter(|key| engine.has_worker(*key)) {
                if is_draining {
                    engine.drain(key, now);
                }
                return (key, engine.heartbeat(key, held, now));
            }
            let joined = engine.join(registration.announcement(worker_id), held, now);
            if is_draining {
                engine.drain(joined.0, now);
            }
            joined
        });
        keep_finished(driver, &reconciled.deliver);
        if registration.key != Some(key) {
            self.names.insert(key, worker_id.clone());
            registration.key = Some(key);
        }
        reconciled
    }

    /// Ends a registration and the worker's leases; returns whether the worker has left and held none.
    fn forget(&self, registration: &Registration) -> bool {
        self.slots.fetch_sub(registration.heartbeat.slots.into(), Ordering::Relaxed);
        let is_draining = registration.heartbeat.is_draining;
        let (Some(driver), Some(key)) = (self.driver(), registration.key) else { return is_draining };
        self.names.remove(&key);
        driver.input(|engine, now| {
            let had_left = is_draining && engine.leases_of(key) == 0;
            engine.lose(key, now);
            had_left
        })
    }

    fn time_away(&self, now: Instant) -> Duration {
        let mut last_sweep_at = self.last_sweep_at.lock().unwrap_or_else(PoisonError::into_inner);
        let since_last = now.saturating_duration_since(*last_sweep_at);
        *last_sweep_at = now;
        if since_last > 3 * SWEEP_INTERVAL { since_last - SWEEP_INTERVAL } else { Duration::ZERO }
    }
}

fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests;
