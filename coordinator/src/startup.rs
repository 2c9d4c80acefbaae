//! Builds a coordinator from its configuration and runs it until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use anyhow::Context;
use model::TaskCounts;
use prometheus_client::registry::Registry as MetricsRegistry;
use service::{Health, Listener, Metrics};
use store::Store;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::grid::{Composing, Grid};
use crate::jobs::Jobs;
use crate::lease_client::LeaseClient;
use crate::metrics::{EvictionReason, GridMetrics};
use crate::pullers::Pullers;
use crate::registry::{Evicted, Registry, SWEEP_INTERVAL};
use crate::routes::{self, State};

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
    grid: Arc<Grid>,
    store: Arc<Store>,
    to_compose: mpsc::UnboundedReceiver<Composing>,
}

/// Watches the jobs of a coordinator in the same process.
#[derive(Clone, Debug)]
pub struct JobWatch(Arc<Grid>);

impl JobWatch {
    /// How far every job is.
    #[must_use]
    pub fn progress(&self) -> Vec<TaskCounts> {
        self.0.progress()
    }
}

impl Coordinator {
    /// Binds both ports and opens the store.
    ///
    /// # Errors
    /// An address cannot be bound, or the store cannot be used.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let public = bind(config.public_addr, "DIVVY_PUBLIC_ADDR")?;
        let internal = bind(config.internal_addr, "DIVVY_INTERNAL_ADDR")?;
        let store = Arc::new(Store::open(config.store_settings()).context("open the store (DIVVY_DATA_DIR)")?);
        let (grid, to_compose) =
            Grid::new(config.policy(), config.chunk_size, config.worker_wait(), Arc::clone(&store));
        Ok(Self { config, public, internal, grid: Arc::new(grid), store, to_compose })
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

    /// A view of its jobs, for who runs it in the same process.
    #[must_use]
    pub fn job_watch(&self) -> JobWatch {
        JobWatch(Arc::clone(&self.grid))
    }

    /// Runs until `stop` resolves; then answers what is in flight within the drain timeout and returns.
    ///
    /// # Errors
    /// A listener cannot be served.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, public, internal, grid, store, to_compose } = self;
        if !config.worker_token.is_set() && !internal.address().ip().is_loopback() {
            let address = internal.address();
            warn!(%address, "DIVVY_WORKER_TOKEN is not set: anyone who reaches this port can register as a worker");
        }
        info!(public = %public.address(), internal = %internal.address(), "serving");
        let registry =
            Arc::new(Registry::new(Arc::clone(&grid), Duration::from_millis(config.evict_after_ms), Instant::now()));
        let mut own_metrics = MetricsRegistry::default();
        let metrics = GridMetrics::register(&mut own_metrics, Arc::clone(&grid), Arc::clone(&registry));
        let jobs = Jobs::new(Arc::clone(&store), Arc::clone(&grid));
        let taken_up = jobs.take_up_all().context("read the jobs that are not over")?;
        if taken_up > 0 {
            info!(jobs = taken_up, "going on with what was not over");
        }
        let pullers = Arc::new(Pullers::new(Arc::clone(&grid)));
        let mut background = start_background(&config, &grid, &registry, &metrics)?;
        background.spawn(jobs.clone().compose_results(to_compose));
        background.spawn(take_stock(Arc::clone(&grid), Arc::clone(&pullers)));
        background.spawn(prune(Arc::clone(&store)));

        let health = Health::default();
        let state = Data::new(State {
            grid: Arc::clone(&grid),
            jobs,
            registry,
            pullers,
            metrics,
            token: config.worker_token.clone(),
            health: health.clone(),
            max_attempts: config.max_attempts,
            max_job_bytes: config.max_job_bytes,
            inflight: Semaphore::new(config.max_inflight as usize),
        });
        let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
        let metrics = Metrics::new(own_metrics);
        let public = serve_public(public, drain_timeout + STOP_TIMEOUT, &metrics, &health, &state)?;
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
        drain(&public_handle, &grid, drain_timeout).await;
        grid.stop();
        internal_handle.stop(false).await;
        background.shutdown().await;
        while let Some(server) = serving.join_next().await {
            server.context("join a server")?.context("serve")?;
        }
        store.flush().await.context("commit what was done last")?;
        info!("stopped");
        Ok(())
    }
}

/// Answers what is in flight: what is not done after `timeout` gets an error.
async fn drain(public: &ServerHandle, grid: &Grid, timeout: Duration) {
    let end_jobs = async {
        tokio::time::sleep(timeout).await;
        grid.stop();
        std::future::pending().await
    };
    tokio::select! {
        () = public.stop(true) => (),
        () = end_jobs => (),
    }
}

fn part_ended<T: std::fmt::Debug>(ended: Result<T, tokio::task::JoinError>) -> anyhow::Error {
    anyhow::anyhow!("a part of the coordinator ended by itself: {ended:?}")
}

fn bind(address: SocketAddr, variable: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).with_context(|| format!("listen on {address} ({variable})"))
}

/// Starts what runs beside the listeners; it ends when the answer is dropped.
fn start_background(
    config: &Config,
    grid: &Arc<Grid>,
    registry: &Arc<Registry>,
    metrics: &GridMetrics,
) -> anyhow::Result<JoinSet<()>> {
    let client = LeaseClient::new(
        api::client::http_client(CONNECT_TIMEOUT).context("build the HTTP client")?,
        config.worker_token.clone(),
    );
    let (grid, registry, metrics) = (Arc::clone(grid), Arc::clone(registry), metrics.clone());
    let timers = Arc::clone(&grid);
    let mut background = JoinSet::new();
    background.spawn(async move { timers.run_timers().await });
    background.spawn(keep_house(Arc::clone(&registry), metrics.clone()));
    background.spawn(Arc::new(Dispatcher { grid, registry, client, metrics }).run());
    Ok(background)
}

/// Every second: workers that fell silent are lost, pauses that are over end.
async fn keep_house(registry: Arc<Registry>, metrics: GridMetrics) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for Evicted { worker_id, had_left } in registry.sweep(Instant::now()) {
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

/// Every second: how fast things go, and who fetches no more.
async fn take_stock(grid: Arc<Grid>, pullers: Arc<Pullers>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        grid.tick();
        pullers.sweep(Instant::now());
    }
}

/// Every minute: what is kept longer than it should be goes.
async fn prune(store: Arc<Store>) {
    let mut ticks = interval(Duration::from_mins(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match store.prune().await {
            Ok(pruned) if pruned.jobs > 0 => info!(jobs = pruned.jobs, bytes = pruned.bytes, "forgot old jobs"),
            Ok(_) => (),
            Err(error) => warn!(%error, "cannot forget old jobs"),
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
        routes::public(config, &state);
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
        routes::internal(config, &state);
    };
    service::serve(listener, INTERNAL_THREADS, STOP_TIMEOUT, metrics, configure).context("serve the internal port")
}
