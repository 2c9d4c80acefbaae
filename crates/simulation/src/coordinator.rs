//! The simulated coordinator: what the real one does around the engine, in virtual time. It gives the engine the same
//! inputs and performs its effects.

mod ends;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::{ClaimId, Effect, Engine, LeaseOrder, Now, Settings};
use model::{AttemptId, JobId};
use rand::RngExt;
use scheduler::{Policy, WorkerKey};

use crate::client::Operation;
use crate::disk::Disk;
use crate::network::Fate;
use crate::plan::{Faults, MS, Micros, SECOND};
use crate::registrations::{PullerKeys, Registration};
use crate::world::{Event, World};

pub(crate) struct Coordinator {
    /// The epoch of this run of the coordinator.
    pub(crate) run: u64,
    pub(crate) engine: Engine,
    pub(crate) disk: Disk,
    pub(crate) registrations: BTreeMap<usize, Registration>,
    pub(crate) pullers: BTreeMap<usize, PullerKeys>,
    /// Pulling workers under a key that was replaced.
    pub(crate) replaced: Vec<WorkerKey>,
    /// Clients that wait for answers.
    pub(crate) answers: BTreeMap<JobId, usize>,
    /// Claims that wait: the puller and its process.
    pub(crate) claims: BTreeMap<ClaimId, (usize, u64)>,
    /// Leases that are being sent: the worker, its process, and whether the lease outlives the connection.
    pub(crate) sent: BTreeMap<AttemptId, (usize, u64, bool)>,
    pub(crate) last_claim: u64,
    /// Requests for a job wait for each other.
    pub(crate) locks: BTreeMap<JobId, VecDeque<Operation>>,
    pub(crate) is_stopping: bool,
}

impl World {
    pub(crate) fn start_coordinator(&mut self) {
        if self.coordinator.is_some() {
            return;
        }
        let disk = Disk::open(&self.memory);
        let run = disk.epoch();
        let lease_timeout = Duration::from_micros(self.plan.lease_timeout);
        let settings = Settings {
            policy: Policy {
                lease_target: Duration::from_millis(40),
                lease_timeout,
                aging_interval: Duration::from_secs(10),
            },
            chunk_size: crate::client::CHUNK,
            worker_wait: Duration::from_secs(10),
            max_unstored: self.plan.max_unstored,
            recovery: Duration::from_millis(2_500),
            epoch: run,
            instance: self.rng.random(),
            secret: self.rng.random(),
        };
        let engine = Engine::new(settings, self.clock());
        self.coordinator = Some(Coordinator {
            run,
            engine,
            disk,
            registrations: BTreeMap::new(),
            pullers: BTreeMap::new(),
            replaced: Vec::new(),
            answers: BTreeMap::new(),
            claims: BTreeMap::new(),
            sent: BTreeMap::new(),
            last_claim: 0,
            locks: BTreeMap::new(),
            is_stopping: false,
        });
        self.note("coordinator", format_args!("starts with epoch {run}"));
        self.audit.coordinator_starts();
        let unfinished =
            self.coordinator.as_ref().map(|coordinator| coordinator.disk.unfinished(None)).unwrap_or_default();
        let set_aside = self.coordinator.as_ref().map(|coordinator| coordinator.disk.set_aside()).unwrap_or_default();
        self.input(|engine, now| engine.keep_set_aside(set_aside, now));
        unfinished.iter().for_each(|job| self.account_taken_up(job));
        let unreadable = self.input(|engine, now| engine.recover(unfinished, now));
        if unreadable.is_none_or(|unreadable| !unreadable.is_empty()) {
            self.violate("a stored job cannot be read");
        }
        self.after(SECOND, Event::Tick { run });
        self.after(SECOND / 2, Event::Sweep { run });
    }

    /// Gives the engine an input and performs the effects. Nothing where there is no coordinator.
    pub(crate) fn input<T>(&mut self, input: impl FnOnce(&mut Engine, Now) -> T) -> Option<T> {
        let now = self.clock();
        let coordinator = self.coordinator.as_mut()?;
        let result = input(&mut coordinator.engine, now);
        let mut effects = coordinator.engine.take_effects();
        self.audit_effects(&effects);
        effects.retain(|effect| match effect {
            Effect::Store(change) => {
                self.record(change.clone());
                false
            }
            Effect::Send(_)
            | Effect::Revoke { .. }
            | Effect::Answer { .. }
            | Effect::Deliver { .. }
            | Effect::Suspended { .. }
            | Effect::Lacks { .. }
            | Effect::Compose { .. } => true,
        });
        for effect in effects {
            self.perform(effect);
        }
        Some(result)
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Store(_) => (),
            Effect::Send(order) => self.send(*order),
            Effect::Revoke { attempt, worker, outlives_connection, reason } => {
                self.note("coordinator", format_args!("revokes {} ({reason:?})", short(attempt)));
                self.revoke(attempt, worker, outlives_connection);
            }
            Effect::Answer { job, answer } => {
                let Some(coordinator) = self.coordinator.as_mut() else { return };
                if let Some(ask) = coordinator.answers.remove(&job) {
                    self.answer_asker(ask, answer);
                }
            }
            Effect::Deliver { claim, lease } => {
                let Some(coordinator) = self.coordinator.as_mut() else { return };
                match coordinator.claims.remove(&claim) {
                    Some((puller, boot)) => self.deliver_claim(puller, boot, lease),
                    None => {
                        self.account_return(lease.attempt);
                        self.input(|engine, now| engine.release(lease.attempt, now));
                    }
                }
            }
            Effect::Suspended { worker, reason } => {
                self.note("coordinator", format_args!("suspends {worker}: {reason}"));
            }
            Effect::Lacks { worker, kind } => {
                self.note("coordinator", format_args!("learns that {worker} does not run {kind}"));
            }
            Effect::Compose { job } => {
                let (run, delay) = (self.run_number(), self.delay());
                self.after(delay, Event::Composed { run, job });
            }
        }
    }

    fn send(&mut self, order: LeaseOrder) {
        let (attempt, run) = (order.attempt, self.run_number());
        let Some(&worker) = self.registered.get(&order.worker) else { return };
        let tasks = &order.tasks;
        self.note(
            "coordinator",
            format_args!(
                "sends {} (job {} tasks {tasks:?}) to worker {worker} slot {}",
                short(attempt),
                self.name(order.job),
                order.slot
            ),
        );
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let registration = coordinator.registrations.get(&worker).filter(|found| found.key == order.worker);
        let boot = match registration {
            Some(registration) => registration.boot,
            // A worker that joins is registered right after its first leases were sent.
            None => self.workers[worker].boot,
        };
        coordinator.sent.insert(attempt, (worker, boot, order.outlives_connection));
        let is_up = self.workers[worker].is_up;
        let is_cut = self.workers[worker].is_cut;
        match self.fate(is_cut) {
            Fate::Arrives(delay) if is_up => {
                self.after(delay, Event::LeaseArrives { run, worker, boot, order: Box::new(order) })
            }
            Fate::Arrives(delay) => self.after(delay, Event::LeaseUndeliverable { run, attempt }),
            Fate::Broken(delay) => {
                match self.rng.random_range(0..3) {
                    0 => self.after(delay, Event::LeaseUndeliverable { run, attempt }),
                    1 => self.after(delay, Event::LeaseBroken { run, attempt }),
                    // The message arrives, at times much later than its connection has broken.
                    _ => {
                        let late = self.rng.random_range(0..4 * SECOND);
                        self.after(delay, Event::LeaseBroken { run, attempt });
                        self.after(late, Event::LeaseArrives { run, worker, boot, order: Box::new(order) });
                    }
                }
            }
            // The request's own timeout comes after the engine's.
            Fate::Silent => (),
        }
    }

    fn revoke(&mut self, attempt: AttemptId, key: WorkerKey, outlives_connection: bool) {
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        let run = coordinator.run;
        if let Some((worker, boot, _)) = coordinator.sent.remove(&attempt) {
            let is_cut = self.workers[worker].is_cut;
            self.post(is_cut, Event::ConnectionClosed { worker, boot, attempt, run });
        }
        let worker = self.registered.get(&key).copied();
        if let Some(worker) = worker.filter(|_| outlives_connection) {
            let (boot, is_cut) = (self.workers[worker].boot, self.workers[worker].is_cut);
            self.post(is_cut, Event::StopArrives { worker, boot, attempt, epoch: run });
        }
    }

    pub(crate) fn composed(&mut self, run: u64, job: JobId) {
        if self.run_number() != run {
            return;
        }
        // The composition reads committed rows, so it flushes first.
        self.call_disk(crate::disk::Waiter::Composition(job), None);
    }

    pub(crate) fn tick(&mut self, run: u64) {
        if self.run_number() != run {
            return;
        }
        self.input(Engine::tick);
        self.sweep_pullers();
        self.after(SECOND, Event::Tick { run });
        self.check_tick();
    }

    /// Ends the process with its memory.
    pub(crate) fn kill_coordinator(&mut self, what: &str) {
        let Some(coordinator) = self.coordinator.take() else { return };
        self.note("coordinator", format_args!("{what} at epoch {}", coordinator.run));
        self.end_disk(coordinator.disk);
        for (attempt, (worker, boot, _)) in coordinator.sent {
            let (is_cut, run) = (self.workers[worker].is_cut, coordinator.run);
            self.post(is_cut, Event::ConnectionClosed { worker, boot, attempt, run });
        }
        for (_, ask) in coordinator.answers {
            self.asks[ask].is_over = true;
        }
        for (_, (puller, boot)) in coordinator.claims {
            self.after(SECOND / 2, Event::PullerActs { puller, boot });
        }
        self.registered.clear();
        let pause = match self.plan.faults {
            _ if self.is_calm => 100 * MS,
            // Orphans are given up after a time without a coordinator.
            Faults::All if self.rng.random_bool(0.1) => self.rng.random_range(1..80) * SECOND,
            Faults::None | Faults::Restarts | Faults::All => self.rng.random_range(10 * MS..6 * SECOND),
        };
        self.after(pause, Event::CoordinatorStarts);
    }

    /// Stops as on SIGTERM: all waiting clients are answered, and the recorded changes are committed.
    pub(crate) fn stop_coordinator(&mut self) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| !coordinator.is_stopping) else {
            return;
        };
        coordinator.is_stopping = true;
        let run = coordinator.run;
        self.note("coordinator", "stops");
        self.input(Engine::stop);
        if self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.answers.is_empty()) {
            self.violate("a client waits for a coordinator that has stopped");
        }
        self.after(SECOND, Event::CoordinatorStops { run });
    }

    pub(crate) fn stopped(&mut self, run: u64) {
        if self.run_number() != run {
            return;
        }
        let is_flushed = self.coordinator.as_ref().is_some_and(|coordinator| coordinator.disk.is_idle());
        let waited: Micros = self.rng.random_range(100 * MS..SECOND);
        if is_flushed || self.rng.random_bool(0.2) {
            self.kill_coordinator("ends");
        } else {
            self.after(waited, Event::CoordinatorStops { run });
        }
    }

    pub(crate) fn name(&self, job: JobId) -> String {
        match self.by_id.get(&job) {
            Some(number) => format!("{number}"),
            None => format!("ask {}", job.0.simple().to_string().get(28..).unwrap_or_default()),
        }
    }
}

/// An attempt as the trace shows it: the epoch and the count of its coordinator.
pub(crate) fn short(attempt: AttemptId) -> String {
    let bits = attempt.0.as_u128();
    format!("attempt {}.{}", bits >> 104, bits & ((1 << 40) - 1))
}
