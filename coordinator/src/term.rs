//! A term: the parts that a coordinator has only while it leads. It begins with an epoch of the store, works with that epoch
//! alone, and is torn down when the epoch has passed to another coordinator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use engine::Engine;
use futures_util::{StreamExt, stream};
use service::Health;
use store::Store;
use store::statistics::StatisticsRetention;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::clock::{go_on_after, now};
use crate::compositions;
use crate::config::Config;
use crate::drains;
use crate::driver::{Driver, Queues};
use crate::event_hub::EventHub;
use crate::http::State;
use crate::jobs::Jobs;
use crate::kafka::{self, Kafka};
use crate::lease_log::LeaseLog;
use crate::lease_sender::LeaseSender;
use crate::lease_streams::LeaseStreams;
use crate::metrics::CoordinatorMetrics;
use crate::outcomes::OutcomeBudget;
use crate::pull_workers::PullWorkers;
use crate::results_place;
use crate::role::Trust;
use crate::serving_threads::{Clients, ServingThreads};
use crate::simulated_workers::SimulatedWorkers;
use crate::spans;
use crate::submitted;
use crate::supervisor::Supervisor;
use crate::task_logs::{self, TaskLogs};
use crate::workers::{Destination, Workers};

/// Longest time that a worker's host may take to answer a connection. Where a pod is gone with its address, nothing answers,
/// and its task should soon be elsewhere; a lost packet is sent again only after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// Longest time that a worker may take to accept a request for its leases.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Workers that are asked side by side.
const ASKED_TOGETHER: usize = 256;

/// Longest time that the threads of the listeners may hold a store that is to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The parts of a coordinator that every term is made with.
#[derive(Debug)]
pub(crate) struct TermParts {
    pub(crate) config: Config,
    pub(crate) workers: Arc<Workers>,
    pub(crate) metrics: CoordinatorMetrics,
    events: Arc<EventHub>,
    lease_log: Arc<LeaseLog>,
    logs: Arc<TaskLogs>,
    kafka: Option<Arc<Kafka>>,
    outcomes: OutcomeBudget,
    health: Health,
    /// The time since which this process accepts heartbeats.
    started_at: Instant,
    threads: Arc<ServingThreads>,
    clients: Arc<Clients>,
    scheme: &'static str,
}

impl TermParts {
    pub(crate) fn new(config: Config, state: &State, threads: Arc<ServingThreads>) -> anyhow::Result<Self> {
        let (scheme, tls) = config.doors.to_workers()?;
        let clients = Arc::new(Clients::new(CONNECT_TIMEOUT, tls).context("build the HTTP client")?);
        let (workers, events) = (Arc::clone(&state.workers), Arc::clone(&state.events));
        let (metrics, started_at) = (state.metrics.clone(), Instant::now());
        let (lease_log, kafka) = (Arc::clone(&state.lease_log), state.kafka.clone());
        let logs = Arc::clone(&state.programs.logs);
        let (outcomes, health) = (state.outcomes.clone(), state.health.clone());
        Ok(Self {
            config,
            workers,
            metrics,
            events,
            lease_log,
            logs,
            kafka,
            outcomes,
            health,
            started_at,
            threads,
            clients,
            scheme,
        })
    }
}

/// The parts of a coordinator that exist only while it leads.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) epoch: u64,
    pub(crate) driver: Arc<Driver>,
    pub(crate) store: Arc<Store>,
    pub(crate) jobs: Jobs,
    pub(crate) pull_workers: Arc<PullWorkers>,
    pub(crate) simulated: SimulatedWorkers,
    pub(crate) trust: Trust,
    is_shared: bool,
    pub(crate) supervisor: Supervisor,
}

/// A term whose tasks run.
#[derive(Debug)]
pub(crate) struct RunningTerm {
    pub(crate) term: Arc<Term>,
    workers: Arc<Workers>,
    background: JoinSet<()>,
}

impl Term {
    /// The parts of a term over `store`, which do nothing yet. With `is_shared`, other coordinators submit jobs to the store.
    pub(crate) fn new(config: &Config, store: Arc<Store>, trust: Trust, is_shared: bool) -> (Arc<Self>, Queues) {
        let epoch = store.epoch().0;
        let (driver, queues) = Driver::new(Engine::new(config.engine_settings(epoch), now()), Arc::clone(&store));
        let supervisor = Supervisor::default();
        let jobs = Jobs::new(Arc::clone(&store), Arc::clone(&driver), supervisor.clone(), is_shared);
        let gone = drains::forgetter(Arc::clone(&store), supervisor.clone());
        let pull_workers = Arc::new(PullWorkers::new(Arc::clone(&driver), gone));
        let simulated = SimulatedWorkers::new(Arc::clone(&driver), supervisor.clone());
        let term = Self { epoch, driver, store, jobs, pull_workers, simulated, trust, is_shared, supervisor };
        (Arc::new(term), queues)
    }

    /// Takes up the jobs that are not over, then the known workers, and starts to lease.
    pub(crate) async fn start(self: Arc<Self>, queues: Queues, parts: &TermParts) -> anyhow::Result<RunningTerm> {
        // Read before the jobs, so that no submission falls between the two.
        let latest_event = *self.store.latest_event().borrow();
        let newest =
            self.store.events(latest_event.saturating_sub(1), None, 1).await.context("read the newest event")?;
        newest.last().into_iter().for_each(|event| go_on_after(event.at));
        let moment = now();
        self.store.check_clock(moment.instant, moment.at).await.context("read the newest event")?;
        let recovered = self.jobs.recover().await.context("read the jobs that are not over")?;
        if recovered > 0 {
            info!(jobs = recovered, "going on with the jobs that are not over");
        }
        drains::recall(&self, &parts.workers).await.context("read the drained workers")?;
        let mut background = JoinSet::new();
        // The last step that can fail: workers must not join the engine of a term that does not begin.
        match &parts.kafka {
            Some(kafka) => kafka.start(&mut background, &self, &parts.workers).await?,
            None => kafka::warn_of_absence(&self.store).await,
        }
        // Begun after the jobs are there: a lease of an unknown job is void.
        parts.workers.begin_term(&self.driver);
        let lease_sender = Arc::new(self.lease_sender(parts));
        self.driver.send_with(&lease_sender);
        background.spawn(lease_sender.run(queues.outgoing));
        let (store, driver) = (Arc::clone(&self.store), Arc::clone(&self.driver));
        background.spawn(compositions::run(queues.compositions, store, driver, self.supervisor.clone()));
        background.spawn(Arc::clone(&self.driver).run_timers());
        background.spawn(Arc::clone(&self.driver).follow_store());
        background.spawn(self.jobs.clone().follow_unwritable());
        background.spawn(tick(Arc::clone(&self.driver), Arc::clone(&self.pull_workers)));
        let statistics = parts.config.statistics_retention();
        background.spawn(prune(Arc::clone(&self.store), self.trust.clone(), statistics));
        background.spawn(drains::run(Arc::clone(&self), Arc::clone(&parts.workers)));
        let (logs, store, driver) = (Arc::clone(&parts.logs), Arc::clone(&self.store), Arc::clone(&self.driver));
        background.spawn(task_logs::keep_abandoned(logs, store, driver));
        background.spawn(Arc::clone(&parts.events).follow(self.store.latest_event()));
        background.spawn(spans::follow_jobs(Arc::clone(&self.store), Arc::clone(&parts.events)));
        if self.is_shared {
            self.supervisor.spawn(results_place::mark(Arc::clone(&self.store)));
            background.spawn(submitted::run(self.jobs.clone(), Arc::clone(&self.store), latest_event));
        } else {
            background.spawn(follow_files(self.store.is_replaced(), parts.health.clone()));
        }
        Ok(RunningTerm { term: self, workers: Arc::clone(&parts.workers), background })
    }

    /// Ends a term that could not begin. Returns its store, which the caller closes.
    pub(crate) async fn abandon(self: Arc<Self>) -> Arc<Store> {
        self.trust.end();
        self.driver.end();
        self.supervisor.stop().await;
        Arc::clone(&self.store)
    }

    fn lease_sender(&self, parts: &TermParts) -> LeaseSender {
        LeaseSender {
            driver: Arc::clone(&self.driver),
            supervisor: self.supervisor.clone(),
            workers: Arc::clone(&parts.workers),
            simulated: self.simulated.clone(),
            lease_log: Arc::clone(&parts.lease_log),
            threads: Arc::clone(&parts.threads),
            clients: Arc::clone(&parts.clients),
            streams: LeaseStreams::default(),
            scheme: parts.scheme,
            token: parts.config.worker_token.clone(),
            metrics: parts.metrics.clone(),
            epoch: self.epoch,
            trust: self.trust.clone(),
            max_result_bytes: parts.config.max_result_bytes,
            outcomes: parts.outcomes.clone(),
            store: Arc::clone(&self.store),
        }
    }
}

impl RunningTerm {
    /// Asks the workers that this process knows for the leases that they hold. A worker that has answered takes no more leases
    /// of an earlier term, so that the tasks which no worker has listed are open. A process that has started only recently does
    /// not know all workers: its tasks wait as long as after any start.
    pub(crate) fn ask_for_lists(&self, parts: &TermParts) {
        let recovery = Duration::from_millis(parts.config.recovery_ms);
        if parts.started_at.elapsed() < recovery {
            return;
        }
        let (client, token, epoch) = (parts.clients.here().clone(), parts.config.worker_token.clone(), self.term.epoch);
        let requests: Vec<_> = parts
            .workers
            .await_lists(&self.term.driver, Instant::now())
            .into_iter()
            .map(|Destination { address, .. }| {
                let url = format!("{}://{address}/announce?epoch={epoch}", parts.scheme);
                token.sign(client.post(url).timeout(ANNOUNCE_TIMEOUT))
            })
            .collect();
        self.term.supervisor.spawn(async move {
            stream::iter(requests)
                .for_each_concurrent(ASKED_TOGETHER, |request| async {
                    if let Err(error) = request.send().await {
                        debug!(%error, "a worker cannot be asked for its leases: its next heartbeat lists them");
                    }
                })
                .await;
        });
    }

    /// Resolves when a task of the term ends although nothing has stopped it.
    pub(crate) async fn part_ended(&mut self) -> Option<Result<(), JoinError>> {
        self.background.join_next().await
    }

    /// Ends the tasks and answers the waiting clients. No part of the term acts after this resolves; changes that a client was
    /// promised are committed or refused by then. Returns the store, which the caller closes.
    pub(crate) async fn stop(mut self) -> Arc<Store> {
        self.term.trust.end();
        self.term.driver.end();
        self.workers.end_term(&self.term.driver);
        self.background.shutdown().await;
        self.term.supervisor.stop().await;
        Arc::clone(&self.term.store)
    }
}

/// Closes a store after the last thread of the listeners has dropped it, so that another coordinator can open it.
pub(crate) async fn close(mut store: Arc<Store>) -> anyhow::Result<()> {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    loop {
        match Arc::try_unwrap(store) {
            Ok(store) => return Ok(tokio::task::spawn_blocking(|| store.close()).await??),
            Err(_) if Instant::now() > deadline => {
                warn!("stopping before the store is closed: something still uses it; every change is committed");
                return Ok(());
            }
            Err(shared) => store = shared,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Notes progress and forgets pulling workers that are gone, every second.
async fn tick(driver: Arc<Driver>, pull_workers: Arc<PullWorkers>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        driver.input(Engine::tick);
        pull_workers.sweep(Instant::now());
    }
}

/// Turns readiness off while the files of a store of this coordinator's own are gone: no change can be stored. Members watch a
/// shared store. Runs for ever.
async fn follow_files(mut is_replaced: watch::Receiver<bool>, health: Health) {
    loop {
        let obstacle = is_replaced.borrow_and_update().then_some("the files of its store are gone or were replaced");
        health.set_obstacle(obstacle);
        if is_replaced.changed().await.is_err() {
            // The writer has stopped: the store is closed.
            std::future::pending::<()>().await;
        }
    }
}

/// Deletes data that is older than its retention, every minute.
async fn prune(store: Arc<Store>, trust: Trust, statistics: StatisticsRetention) {
    let mut ticks = interval(Duration::from_mins(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !trust.holds() {
            continue;
        }
        let moment = now();
        match store.prune_at(moment.instant, moment.at).await {
            Ok(pruned) if pruned.jobs > 0 => info!(jobs = pruned.jobs, bytes = pruned.bytes, "forgot old jobs"),
            Ok(_) => (),
            Err(error) => warn!(%error, "cannot forget old jobs"),
        }
        if let Err(error) = store.prune_statistics_at(statistics, moment.instant, moment.at).await {
            warn!(%error, "cannot forget old statistics");
        }
    }
}

#[cfg(test)]
mod tests {
    use store::Retention;
    use store::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn a_term_that_does_not_begin_acts_no_more_and_lets_its_store_go() {
        let store = Arc::new(Memory::new().store(Retention::KEEP_ALL).expect("a thread"));
        let trust = Trust::for_ever();
        let (term, _queues) = Term::new(&Config::default(), store, trust.clone(), true);
        let store = term.abandon().await;
        assert!(!trust.holds());
        assert_eq!(Arc::strong_count(&store), 1);
        close(store).await.expect("nothing waits");
    }
}
