//! The workers that the simulated coordinator knows, by the rules of the real one.

use engine::{Delivery, HeldLease, NamedLease, Reconciled, WorkerAnnouncement};
use model::{BootId, JobKind, Labels, Resources, WorkerId};
use scheduler::WorkerKey;
use uuid::Uuid;

use crate::plan::{MS, Micros, SECOND};
use crate::world::{Event, World};

const DISCONNECTED_TIMEOUT: Micros = 1_500 * MS;
const NAME_HELD_FOR: Micros = 2_500 * MS;
const EVICT_AFTER: Micros = 5 * SECOND;
const FORGET_PULLER_AFTER: Micros = 300 * SECOND;

#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) key: WorkerKey,
    pub(crate) boot: u64,
    last_seen_at: Micros,
    connection: u64,
    heartbeats_on_connection: u32,
    disconnected_at: Option<Micros>,
    is_draining: bool,
}

#[derive(Debug)]
pub(crate) struct PullerKeys {
    pub(crate) key: WorkerKey,
    has_abilities: bool,
    last_seen_at: Micros,
}

pub(crate) fn worker_name(worker: usize) -> WorkerId {
    WorkerId::try_from(format!("worker-{worker}")).expect("letters and digits")
}

pub(crate) fn puller_name(puller: usize) -> WorkerId {
    WorkerId::try_from(format!("puller-{puller}")).expect("letters and digits")
}

/// A lease as reports of its worker name it.
pub(crate) fn named(worker: WorkerId, lease: &HeldLease) -> NamedLease {
    NamedLease { worker, job: lease.job, tasks: lease.tasks.clone() }
}

fn announcement(id: WorkerId, delivery: Delivery, slots: u32, kinds: Vec<JobKind>) -> WorkerAnnouncement {
    WorkerAnnouncement {
        id,
        delivery,
        slots,
        kinds,
        labels: Labels::new(),
        resources: Resources::default(),
        is_reserved: false,
        leases_per_slot: 2,
    }
}

impl World {
    pub(crate) fn heartbeat_arrives(
        &mut self,
        run: u64,
        worker: usize,
        boot: u64,
        connection: u64,
        held: &[HeldLease],
        is_draining: bool,
    ) {
        let now = self.now;
        let Some(coordinator) = self.coordinator.as_mut().filter(|found| found.run == run && !found.is_stopping) else {
            return;
        };
        let reconciled = match coordinator.registrations.get_mut(&worker) {
            Some(known) if known.boot == boot => {
                known.is_draining |= is_draining;
                let is_same_connection = known.connection == connection;
                known.heartbeats_on_connection =
                    if is_same_connection { known.heartbeats_on_connection + 1 } else { 1 };
                (known.connection, known.last_seen_at, known.disconnected_at) = (connection, now, None);
                let (key, is_draining) = (known.key, known.is_draining);
                self.account_list(key, held);
                self.input(|engine, now| {
                    if is_draining {
                        engine.drain(key, now);
                    }
                    engine.heartbeat(key, held, now)
                })
            }
            Some(known) => {
                let is_alive = known.heartbeats_on_connection > 1
                    && known.disconnected_at.is_none()
                    && now - known.last_seen_at < NAME_HELD_FOR;
                if is_alive {
                    return self.note("coordinator", format_args!("refuses the name of worker {worker}"));
                }
                self.lose(worker, "is replaced");
                Some(self.join(worker, boot, connection, held, is_draining))
            }
            None if is_draining && held.is_empty() => Some(Reconciled::default()),
            None => Some(self.join(worker, boot, connection, held, is_draining)),
        };
        let Some(reconciled) = reconciled else { return };
        self.audit_settled(&reconciled.settled);
        let is_cut = self.workers[worker].is_cut;
        self.post(is_cut, Event::HeartbeatAnswered { worker, boot, run, reconciled });
    }

    fn join(&mut self, worker: usize, boot: u64, connection: u64, held: &[HeldLease], is_draining: bool) -> Reconciled {
        self.note("coordinator", format_args!("worker {worker} joins with {} leases", held.len()));
        let slots = self.workers[worker].slots;
        let kinds = vec![JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES, JobKind::SLEEP];
        let delivery = Delivery::Pushed { boot_id: BootId(Uuid::from_u128(boot.into())) };
        let announcement = announcement(worker_name(worker), delivery, slots, kinds);
        let now = self.clock();
        let Some(coordinator) = self.coordinator.as_mut() else { return Reconciled::default() };
        // The effects are performed once the key is known, as they are looked up by it.
        let (key, reconciled) = coordinator.engine.join(announcement, held, now);
        if is_draining {
            coordinator.engine.drain(key, now);
        }
        self.registered.insert(key, worker);
        let registration = Registration {
            key,
            boot,
            last_seen_at: self.now,
            connection,
            heartbeats_on_connection: 1,
            disconnected_at: None,
            is_draining,
        };
        coordinator.registrations.insert(worker, registration);
        self.account_list(key, held);
        self.input(|_, _| ());
        reconciled
    }

    fn lose(&mut self, worker: usize, why: &str) {
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let Some(Registration { key, .. }) = coordinator.registrations.remove(&worker) else { return };
        self.note("coordinator", format_args!("worker {worker} {why}"));
        self.audit.is_lossy = true;
        self.account_loss(key);
        self.input(|engine, now| engine.lose(key, now));
        self.registered.remove(&key);
    }

    pub(crate) fn heartbeat_closed(&mut self, run: u64, worker: usize, connection: u64) {
        let now = self.now;
        let coordinator = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run);
        let Some(known) = coordinator.and_then(|found| found.registrations.get_mut(&worker)) else { return };
        if known.connection == connection && known.heartbeats_on_connection > 1 {
            known.disconnected_at = Some(now);
            let key = known.key;
            self.input(|engine, now| engine.disconnected(key, now));
        }
    }

    pub(crate) fn deregister_arrives(&mut self, run: u64, worker: usize, boot: u64) {
        let coordinator = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run);
        let Some(known) = coordinator.and_then(|found| found.registrations.get_mut(&worker)) else { return };
        if known.boot == boot {
            known.is_draining = true;
            let key = known.key;
            self.note("coordinator", format_args!("worker {worker} leaves"));
            self.input(|engine, now| engine.drain(key, now));
        }
    }

    pub(crate) fn sweep(&mut self, run: u64) {
        let now = self.now;
        let Some(coordinator) = self.coordinator.as_ref().filter(|coordinator| coordinator.run == run) else { return };
        let is_gone = |known: &Registration| {
            now - known.last_seen_at > EVICT_AFTER
                || known.disconnected_at.is_some_and(|at| now - at > DISCONNECTED_TIMEOUT)
        };
        let is_listening = !coordinator.is_stopping;
        let gone = coordinator.registrations.iter().filter(|(_, known)| is_listening && is_gone(known));
        for worker in gone.map(|(worker, _)| *worker).collect::<Vec<_>>() {
            self.lose(worker, "is evicted");
        }
        self.after(SECOND / 2, Event::Sweep { run });
    }

    /// The key of a pulling worker that claims, or that reports on a lease without having claimed here.
    pub(crate) fn puller_key(&mut self, puller: usize, claims: bool) -> Option<WorkerKey> {
        let now = self.now;
        let known = self.coordinator.as_mut()?.pullers.get_mut(&puller);
        if let Some(known) = known
            && (known.has_abilities || !claims)
        {
            known.last_seen_at = now;
            return Some(known.key);
        }
        let kinds = match puller % 2 {
            _ if !claims => Vec::new(),
            0 => vec![JobKind::TASKS, JobKind::PROGRAM, JobKind::SLEEP],
            _ => vec![JobKind::TASKS, JobKind::PROGRAM, JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES],
        };
        let announcement = announcement(puller_name(puller), Delivery::Pulled, 1, kinds);
        let (key, _) = self.input(|engine, now| engine.join(announcement, &[], now))?;
        let coordinator = self.coordinator.as_mut()?;
        let known = PullerKeys { key, has_abilities: claims, last_seen_at: now };
        if let Some(before) = coordinator.pullers.insert(puller, known) {
            coordinator.replaced.push(before.key);
            self.input(|engine, now| engine.replace_puller(before.key, now));
        }
        Some(key)
    }

    pub(crate) fn sweep_pullers(&mut self) {
        let now = self.now;
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let away = coordinator.pullers.iter().filter(|(_, known)| now - known.last_seen_at > FORGET_PULLER_AFTER);
        let away: Vec<_> = away.map(|(puller, known)| (*puller, known.key)).collect();
        for (puller, key) in away {
            if self.lose_if_idle(key)
                && let Some(coordinator) = self.coordinator.as_mut()
            {
                coordinator.pullers.remove(&puller);
            }
        }
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let mut replaced = std::mem::take(&mut coordinator.replaced);
        replaced.retain(|key| !self.lose_if_idle(*key));
        if let Some(coordinator) = self.coordinator.as_mut() {
            coordinator.replaced = replaced;
        }
    }

    fn lose_if_idle(&mut self, key: WorkerKey) -> bool {
        let lost = self.input(|engine, now| {
            let is_idle = engine.leases_of(key) == 0;
            if is_idle {
                engine.lose(key, now);
            }
            is_idle
        });
        lost.unwrap_or(false)
    }
}
