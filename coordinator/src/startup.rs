//! Builds a coordinator from its configuration and runs it until it is told to stop.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use anyhow::Context;
use api::client::http_client_with;
use engine::Engine;
use model::TaskCounts;
use prometheus_client::registry::Registry;
use service::{BodyBudget, Health, Listener, Metrics};
use store::Store;
use store::statistics::StatisticsRetention;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock::{follow_calendar, now};
use crate::compositions;
use crate::config::{Config, Switch};
use crate::driver::{Driver, Queues};
use crate::event_hub::EventHub;
use crate::http::{self, Dashboard, State};
use crate::jobs::Jobs;
use crate::lease_sender::LeaseSender;
use crate::metrics::{CoordinatorMetrics, EvictionReason, Gauges};
use crate::pull_workers::PullWorkers;
use crate::simulated_workers::SimulatedWorkers;
use crate::supervisor::Supervisor;
use crate::workers::{Evicted, SWEEP_INTERVAL, Workers};

/// How long a worker's host may take to answer a connection. Where a pod is gone with its address nobody answers, and its
/// task should be elsewhere soon; a lost packet is sent again only after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// Threads of the public listener, which mostly wait.
const PUBLIC_THREADS: usize = 2;

/// The internal listener has threads of its own, so that no load of clients delays a heartbeat.
const INTERNAL_THREADS: usize = 2;

/// How long answers may still take to be written once every job is over.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A coordinator that is bound to its ports and serves nothing yet.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    public: Listener,
    internal: Listener,
    driver: Arc<Driver>,
    queues: Queues,
    store: Arc<Store>,
}

/// Watches the jobs of a coordinator in the same process, which it does not keep alive.
#[derive(Clone, Debug)]
pub struct JobWatch(Weak<Driver>);

impl JobWatch {
    /// How far every job is; none once the coordinator has stopped.
    #[must_use]
    pub fn progress(&self) -> Vec<TaskCounts> {
        self.0.upgrade().map_or_else(Vec::new, |driver| driver.view(Engine::progress))
    }
}

impl Coordinator {
    /// Binds both ports and opens the store.
    ///
    /// # Errors
    /// An address cannot be bound, or the store cannot be used.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let routes = http::public_routes(config.dashboard == Switch::On);
        let public = bind(config.public_addr, "DIVVY_PUBLIC_ADDR")?.guarded(config.doors.public()?, routes);
        let internal = bind(config.internal_addr, "DIVVY_INTERNAL_ADDR")?;
        let internal = internal.guarded(config.doors.internal()?, http::INTERNAL);
        let store = Arc::new(store_sqlite::open(config.store_settings()).context("open the store")?);
        let engine = Engine::new(config.engine_settings(store.epoch().0), now());
        let (driver, queues) = Driver::new(engine, Arc::clone(&store));
        Ok(Self { config, public, internal, driver, queues, store })
    }

    /// Where clients ask.
    #[must_use]
    pub fn public_addr(&self) -> SocketAddr {
        self.public.address()
    }

    /// Where workers register.
    #[must_use]
    pub fn internal_addr(&self) -> SocketAddr {
        self.internal.address()
    }

    /// A view of its jobs, for a program that runs it in the same process.
    #[must_use]
    pub fn job_watch(&self) -> JobWatch {
        JobWatch(Arc::downgrade(&self.driver))
    }

    /// Runs until `stop` resolves; then answers what is in flight within the drain timeout, ends all its tasks, closes the
    /// store and returns.
    ///
    /// # Errors
    /// A listener cannot be served, or a part of the coordinator has ended by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, public, internal, driver, queues, store } = self;
        if !config.worker_token.is_set() && !internal.address().ip().is_loopback() {
            let address = internal.address();
            warn!(%address, "DIVVY_WORKER_TOKEN is not set: anyone who reaches this port can register as a worker");
        }
        info!(public = %public.address(), internal = %internal.address(), "serving");
        let parts = Parts::new(&config, &driver, &store);
        let recovered = parts.jobs.recover().await.context("read the jobs that are not over")?;
        if recovered > 0 {
            info!(jobs = recovered, "going on with the jobs that are not over");
        }
        let health = Health::default();
        let mut background = parts.start(&config, queues)?;
        let (metrics, supervisor) = (Metrics::new(parts.registry), parts.supervisor);
        let state = Data::new(State {
            driver: Arc::clone(&driver),
            jobs: parts.jobs,
            events: parts.events,
            workers: parts.workers,
            pull_workers: parts.pull_workers,
            simulated: parts.simulated,
            metrics: parts.metrics,
            token: config.worker_token.clone(),
            health: health.clone(),
            max_attempts: config.max_attempts,
            max_job_bytes: config.max_job_bytes,
            bodies: BodyBudget::new(config.max_body_memory),
            max_result_bytes: config.max_result_bytes,
            chunk_size: config.chunk_size,
            inflight: Semaphore::new(config.max_inflight as usize),
            dashboard: (config.dashboard == Switch::On).then(Dashboard::new),
            has_tls: config.doors.has_tls(),
        });
        background.spawn(http::run_dashboard(state.clone()));
        let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
        let public = serve_public(public.warn_if_open(), drain_timeout + STOP_TIMEOUT, &metrics, &health, &state)?;
        let internal = serve_internal(internal, &metrics, &health, &state)?;
        let (public_handle, internal_handle) = (public.handle(), internal.handle());
        let mut serving = JoinSet::new();
        serving.spawn(public);
        serving.spawn(internal);

        tokio::select! {
            () = stop => (),
            // Without one of its parts it would look alive and do nothing: better to be started again.
            Some(ended) = background.join_next() => return Err(part_ended(ended)),
            Some(ended) = serving.join_next() => return Err(part_ended(ended)),
        }
        info!("stopping: answering what is in flight");
        health.start_draining();
        drain(&public_handle, &driver, drain_timeout).await;
        driver.input(Engine::stop);
        internal_handle.stop(false).await;
        background.shutdown().await;
        supervisor.stop().await;
        while let Some(server) = serving.join_next().await {
            server.context("join a server")?.context("serve")?;
        }
        store.flush().await.context("commit the last changes")?;
        drop((state, metrics, driver, parts.driver, parts.store));
        close(store).await.context("close the store")?;
        info!("stopped");
        Ok(())
    }
}

/// The parts of a coordinator that is about to run.
struct Parts {
    driver: Arc<Driver>,
    store: Arc<Store>,
    supervisor: Supervisor,
    jobs: Jobs,
    events: Arc<EventHub>,
    workers: Arc<Workers>,
    pull_workers: Arc<PullWorkers>,
    simulated: SimulatedWorkers,
    metrics: CoordinatorMetrics,
    registry: Registry,
}

impl Parts {
    fn new(config: &Config, driver: &Arc<Driver>, store: &Arc<Store>) -> Self {
        let (driver, store) = (Arc::clone(driver), Arc::clone(store));
        let evict_after = Duration::from_millis(config.evict_after_ms);
        let workers = Arc::new(Workers::new(Arc::clone(&driver), evict_after, Instant::now()));
        let pull_workers = Arc::new(PullWorkers::new(Arc::clone(&driver)));
        let events = EventHub::new(Arc::clone(&store));
        let mut registry = Registry::default();
        let gauges = Gauges {
            driver: Arc::clone(&driver),
            workers: Arc::clone(&workers),
            pull_workers: Arc::clone(&pull_workers),
            store: Arc::clone(&store),
            events: Arc::clone(&events),
        };
        let metrics = CoordinatorMetrics::register(&mut registry, gauges);
        let supervisor = Supervisor::default();
        let jobs = Jobs::new(Arc::clone(&store), Arc::clone(&driver), supervisor.clone());
        let simulated = SimulatedWorkers::new(Arc::clone(&driver), supervisor.clone());
        Self { driver, store, supervisor, jobs, events, workers, pull_workers, simulated, metrics, registry }
    }

    /// Starts the tasks beside the listeners; they end when the set is shut down or dropped.
    fn start(&self, config: &Config, queues: Queues) -> anyhow::Result<JoinSet<()>> {
        let (scheme, tls) = config.doors.to_workers()?;
        let sender = LeaseSender {
            driver: Arc::clone(&self.driver),
            supervisor: self.supervisor.clone(),
            workers: Arc::clone(&self.workers),
            simulated: self.simulated.clone(),
            client: http_client_with(CONNECT_TIMEOUT, &tls, false).context("build the HTTP client")?,
            scheme,
            token: config.worker_token.clone(),
            metrics: self.metrics.clone(),
            epoch: self.store.epoch().0,
            max_result_bytes: config.max_result_bytes,
        };
        let mut background = JoinSet::new();
        background.spawn(sender.run(queues.outgoing));
        let (store, driver) = (Arc::clone(&self.store), Arc::clone(&self.driver));
        background.spawn(compositions::run(queues.compositions, store, driver, self.supervisor.clone()));
        background.spawn(Arc::clone(&self.driver).run_timers());
        background.spawn(Arc::clone(&self.driver).follow_store());
        background.spawn(Arc::clone(&self.events).run());
        background.spawn(watch_workers(Arc::clone(&self.workers), self.metrics.clone()));
        background.spawn(tick(Arc::clone(&self.driver), Arc::clone(&self.pull_workers)));
        background.spawn(prune(Arc::clone(&self.store), config.statistics_retention()));
        Ok(background)
    }
}

/// Answers what is in flight: what is not done after `timeout` gets an error.
async fn drain(public: &ServerHandle, driver: &Driver, timeout: Duration) {
    let end_jobs = async {
        tokio::time::sleep(timeout).await;
        driver.input(Engine::stop);
        std::future::pending().await
    };
    tokio::select! {
        () = public.stop(true) => (),
        () = end_jobs => (),
    }
}

/// Closes the store when the last thread of the listeners has let it go, so that another coordinator can open it.
async fn close(mut store: Arc<Store>) -> anyhow::Result<()> {
    let deadline = Instant::now() + STOP_TIMEOUT;
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

fn part_ended<T: std::fmt::Debug>(ended: Result<T, tokio::task::JoinError>) -> anyhow::Error {
    anyhow::anyhow!("a part of the coordinator ended by itself: {ended:?}")
}

fn bind(address: SocketAddr, variable: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).with_context(|| format!("listen on {address} ({variable})"))
}

/// Removes workers that fell silent.
async fn watch_workers(workers: Arc<Workers>, metrics: CoordinatorMetrics) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for Evicted { worker_id, had_left } in workers.sweep(Instant::now()) {
            if had_left {
                metrics.evicted(EvictionReason::Left);
                info!(%worker_id, "worker left");
            } else {
                metrics.evicted(EvictionReason::Silent);
                warn!(%worker_id, "worker evicted: no heartbeat");
            }
        }
    }
}

/// Every second: notes progress, and forgets pulling workers that are gone.
async fn tick(driver: Arc<Driver>, pull_workers: Arc<PullWorkers>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        follow_calendar();
        driver.input(Engine::tick);
        pull_workers.sweep(Instant::now());
    }
}

/// Every minute: what is kept longer than it should be goes.
async fn prune(store: Arc<Store>, statistics: StatisticsRetention) {
    let mut ticks = interval(Duration::from_mins(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match store.prune().await {
            Ok(pruned) if pruned.jobs > 0 => info!(jobs = pruned.jobs, bytes = pruned.bytes, "forgot old jobs"),
            Ok(_) => (),
            Err(error) => warn!(%error, "cannot forget old jobs"),
        }
        if let Err(error) = store.prune_statistics(statistics).await {
            warn!(%error, "cannot forget old statistics");
        }
    }
}

fn serve_public(
    listener: Listener,
    stop_timeout: Duration,
    metrics: &Metrics,
    health: &Health,
    state: &Data<State>,
) -> anyhow::Result<Server> {
    let (health, state) = (health.clone(), state.clone());
    let configure = move |config: &mut actix_web::web::ServiceConfig| {
        health.configure(config);
        http::public(config, &state);
    };
    service::serve(listener, PUBLIC_THREADS, stop_timeout, metrics, configure).context("serve the public port")
}

fn serve_internal(
    listener: Listener,
    metrics: &Metrics,
    health: &Health,
    state: &Data<State>,
) -> anyhow::Result<Server> {
    let (health, state, own_metrics) = (health.clone(), state.clone(), metrics.clone());
    let configure = move |config: &mut actix_web::web::ServiceConfig| {
        health.configure(config);
        own_metrics.configure(config);
        http::internal(config, &state);
    };
    service::serve(listener, INTERNAL_THREADS, STOP_TIMEOUT, metrics, configure).context("serve the internal port")
}
