//! Simulated workers: they live in this process and sleep, so that a grid can be tried out without real workers. They get
//! leases like any other worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use engine::{Delivery, LeaseFailure, LeaseOrder, WorkerAnnouncement};
use model::{BootId, JobId, JobKind, Labels, Resources, SIMULATION_LABEL, WorkerId};
use scheduler::WorkerKey;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;
use workloads::Report;

use crate::driver::Driver;
use crate::lease_log::End;
use crate::supervisor::Supervisor;

/// The most simulated workers of all simulations together.
pub(crate) const MAX_WORKERS: usize = 10_000;

/// Interval at which a simulation checks whether its jobs are over.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The payload of a lease of `sleep`.
#[derive(Deserialize)]
struct Nap {
    seconds: f64,
    fail_rate: f64,
}

/// The error of too many simulated workers.
#[derive(Debug, thiserror::Error)]
#[error("at most {MAX_WORKERS} simulated workers run at the same time")]
pub(crate) struct TooManyWorkers;

/// The simulated workers of this coordinator.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedWorkers {
    driver: Arc<Driver>,
    supervisor: Supervisor,
    keys: Arc<DashMap<WorkerKey, ()>>,
    /// A permit for each worker that there may be.
    room: Arc<Semaphore>,
    /// The simulations that have their workers.
    started: Arc<DashMap<Uuid, ()>>,
    busy: Arc<AtomicU64>,
}

/// The labels that the jobs of a simulation require.
pub(crate) fn labels(simulation: Uuid) -> Labels {
    Labels::from([(SIMULATION_LABEL.to_owned(), simulation.to_string())])
}

impl SimulatedWorkers {
    pub(crate) fn new(driver: Arc<Driver>, supervisor: Supervisor) -> Self {
        let room = Arc::new(Semaphore::new(MAX_WORKERS));
        Self { driver, supervisor, keys: Arc::default(), room, started: Arc::default(), busy: Arc::default() }
    }

    /// The number of simulated workers, of one slot each.
    pub(crate) fn count(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The number of simulated workers with a lease.
    pub(crate) fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Room for `workers` more, taken before their jobs are accepted: simulations that begin together share it.
    pub(crate) fn room(&self, workers: u32) -> Result<OwnedSemaphorePermit, TooManyWorkers> {
        Arc::clone(&self.room).try_acquire_many_owned(workers).map_err(|_| TooManyWorkers)
    }

    /// Starts the workers of a simulation, unless it has them already, as where two requests with one key accept a part of its
    /// jobs each. They leave when its jobs are over, and give their room back.
    pub(crate) fn start(&self, simulation: Uuid, workers: u32, jobs: Vec<JobId>, room: OwnedSemaphorePermit) {
        if self.started.insert(simulation, ()).is_some() {
            return;
        }
        let join = |number: u32| {
            let name = format!("simulated-{}-{number}", simulation.simple());
            let announcement = WorkerAnnouncement {
                id: WorkerId::try_from(name).expect("letters, digits and dashes"),
                delivery: Delivery::Pushed { boot_id: BootId(simulation) },
                slots: 1,
                kinds: vec![JobKind::SLEEP],
                labels: labels(simulation),
                resources: Resources::default(),
                is_reserved: true,
                leases_per_slot: 1,
            };
            self.driver.input(|engine, now| {
                let (key, _) = engine.join(announcement, &[], now);
                // Inserted under the engine's lock: the first lease of the worker is looked up here.
                self.keys.insert(key, ());
                key
            })
        };
        let keys: Vec<_> = (1..=workers).map(join).collect();
        let this = self.clone();
        self.supervisor.spawn(async move {
            while this.driver.view(|engine| jobs.iter().any(|id| engine.knows(*id))) {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
            for key in keys {
                this.driver.input(|engine, now| engine.lose(key, now));
                this.keys.remove(&key);
            }
            this.started.remove(&simulation);
            drop(room);
        });
    }

    pub(crate) fn has(&self, worker: WorkerKey) -> bool {
        self.keys.contains_key(&worker)
    }

    /// Runs a lease of a simulated worker.
    pub(crate) async fn run(&self, order: LeaseOrder, revoked: oneshot::Receiver<()>) -> End {
        let Ok(Nap { seconds, fail_rate }) = serde_json::from_str(order.work.get()) else { return End::Stopped };
        let started_at = Instant::now();
        let tasks = u32::try_from(order.tasks.end - order.tasks.start).unwrap_or(u32::MAX);
        let work = Duration::try_from_secs_f64(seconds).unwrap_or_default().saturating_mul(tasks);
        self.busy.fetch_add(1, Ordering::Relaxed);
        let is_done = tokio::select! {
            () = tokio::time::sleep(work) => true,
            Ok(()) = revoked => false,
        };
        self.busy.fetch_sub(1, Ordering::Relaxed);
        if !is_done {
            return End::Stopped;
        }
        self.driver.sent(order.attempt);
        self.driver.input(|engine, now| {
            // An attempt that lost its lease meanwhile changes nothing.
            if fastrand::f64() < fail_rate {
                let cause = LeaseFailure::TaskFailed("it failed, as simulated work does at times".to_owned());
                let _ = engine.fail(order.attempt, cause, now);
                End::Failed
            } else {
                let _ = engine.complete(order.attempt, Report::default(), started_at.elapsed(), now);
                End::Done
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use engine::Engine;
    use store::Retention;
    use store::memory::Memory;

    use super::*;
    use crate::clock::now;
    use crate::config::Config;

    /// No simulated workers, and the queue that keeps the driver's effects.
    fn none_yet() -> (SimulatedWorkers, impl Sized) {
        let store = Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread"));
        let (driver, queues) = Driver::new(Engine::new(Config::default().engine_settings(1), now()), store);
        (SimulatedWorkers::new(driver, Supervisor::default()), queues)
    }

    #[tokio::test]
    async fn a_simulation_that_two_requests_start_has_its_workers_once() {
        let (workers, _queues) = none_yet();
        // Once more when it is over, as under a key whose jobs have been forgotten.
        for _ in 0..2 {
            let [first, second] = [3, 3].map(|number| workers.room(number).expect("there is room"));
            workers.start(Uuid::nil(), 3, Vec::new(), first);
            workers.start(Uuid::nil(), 3, Vec::new(), second);
            assert_eq!(workers.count(), 3);
            while workers.count() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn simulations_that_begin_together_have_no_more_workers_than_there_may_be() {
        let (workers, _queues) = none_yet();
        let most = u32::try_from(MAX_WORKERS).expect("it is small");
        let (first, second) = (workers.room(3).expect("there is room"), workers.room(most - 3).expect("there is room"));
        assert!(workers.room(1).is_err(), "the room is theirs before their workers are there");
        drop(second);
        workers.start(Uuid::nil(), 3, Vec::new(), first);
        assert!(workers.room(most - 2).is_err() && workers.room(most - 3).is_ok());
        while workers.count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(workers.room(most).is_ok(), "workers that leave give their room back");
    }
}
