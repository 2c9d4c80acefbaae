//! Builds a coordinator from its configuration and runs it until it is told to stop.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use anyhow::Context;
use engine::Engine;
use model::TaskCounts;
use prometheus_client::registry::Registry;
use service::{BodyBudget, Health, Listener, Metrics};
use store::Store;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::config::Config;
use crate::event_hub::EventHub;
use crate::http::{self, State};
use crate::metrics::{CoordinatorMetrics, EvictionReason, Gauges};
use crate::role::{Role, Trust};
use crate::term::{self, Term, TermParts};
use crate::workers::{Evicted, SWEEP_INTERVAL, Workers};

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
    role: Arc<Role>,
    store: Arc<Store>,
}

/// Watches the jobs of a coordinator in the same process, which it does not keep alive.
#[derive(Clone, Debug)]
pub struct JobWatch(Weak<Role>);

impl JobWatch {
    /// How far every job is; none while the coordinator does not lead.
    #[must_use]
    pub fn progress(&self) -> Vec<TaskCounts> {
        let term = self.0.upgrade().and_then(|role| role.term());
        term.map_or_else(Vec::new, |term| term.driver.view(Engine::progress))
    }
}

impl Coordinator {
    /// Binds both ports and opens the store.
    ///
    /// # Errors
    /// An address cannot be bound, or the store cannot be used.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let public = bind(config.public_addr, "DIVVY_PUBLIC_ADDR")?.guarded(config.doors.public()?, http::PUBLIC);
        let internal = bind(config.internal_addr, "DIVVY_INTERNAL_ADDR")?;
        let internal = internal.guarded(config.doors.internal()?, http::INTERNAL);
        let store = Arc::new(store_sqlite::open(config.store_settings()).context("open the store")?);
        Ok(Self { config, public, internal, role: Arc::default(), store })
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
        JobWatch(Arc::downgrade(&self.role))
    }

    /// Runs until `stop` resolves; then answers what is in flight within the drain timeout, ends all its tasks, closes the
    /// store and returns.
    ///
    /// # Errors
    /// A listener cannot be served, or a part of the coordinator has ended by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, public, internal, role, store } = self;
        if !config.worker_token.is_set() && !internal.address().ip().is_loopback() {
            let address = internal.address();
            warn!(%address, "DIVVY_WORKER_TOKEN is not set: anyone who reaches this port can register as a worker");
        }
        info!(public = %public.address(), internal = %internal.address(), "serving");
        let Standing { mut background, state, metrics, workers } = Standing::new(&config, &role, &store);
        let (health, drain_timeout) = (state.health.clone(), Duration::from_millis(config.drain_timeout_ms));
        let parts = TermParts::new(config, workers, state.metrics.clone())?;
        // The file's lock keeps all others out: one term for the life of the process.
        let (term, queues) = Term::new(&parts.config, Arc::clone(&store), Trust::for_ever());
        parts.workers.begin_term(&term.driver);
        let mut term = term.start(queues, &parts).await?;
        role.begin(Arc::clone(&term.term));
        let public = serve_public(public.warn_if_open(), drain_timeout + STOP_TIMEOUT, &metrics, &health, &state)?;
        let internal = serve_internal(internal, &metrics, &health, &state)?;
        let (public_handle, internal_handle) = (public.handle(), internal.handle());
        let mut serving = JoinSet::new();
        serving.spawn(public);
        serving.spawn(internal);

        tokio::select! {
            () = stop => (),
            // Without one of its parts it would look alive and do nothing: better to be started again.
            Some(ended) = term.part_ended() => return Err(part_ended(ended)),
            Some(ended) = background.join_next() => return Err(part_ended(ended)),
            Some(ended) = serving.join_next() => return Err(part_ended(ended)),
        }
        info!("stopping: answering what is in flight");
        health.start_draining();
        drain(&public_handle, &term.term, drain_timeout).await;
        term.term.driver.input(Engine::stop);
        internal_handle.stop(false).await;
        background.shutdown().await;
        term.stop().await;
        role.end();
        while let Some(server) = serving.join_next().await {
            server.context("join a server")?.context("serve")?;
        }
        store.flush().await.context("commit the last changes")?;
        drop((state, metrics, parts));
        term::close(store).await.context("close the store")?;
        info!("stopped");
        Ok(())
    }
}

/// What a coordinator has whether or not it leads.
struct Standing {
    background: JoinSet<()>,
    state: Data<State>,
    metrics: Metrics,
    workers: Arc<Workers>,
}

impl Standing {
    /// Starts the tasks beside the listeners; they end when the set is shut down or dropped.
    fn new(config: &Config, role: &Arc<Role>, store: &Arc<Store>) -> Self {
        let workers = Arc::new(Workers::new(Duration::from_millis(config.evict_after_ms), Instant::now()));
        let events = EventHub::new(Arc::clone(store));
        let mut registry = Registry::default();
        let gauges = Gauges { role: Arc::clone(role), workers: Arc::clone(&workers), events: Arc::clone(&events) };
        let metrics = CoordinatorMetrics::register(&mut registry, gauges);
        let mut background = JoinSet::new();
        background.spawn(Arc::clone(&events).run());
        background.spawn(watch_workers(Arc::clone(&workers), metrics.clone()));
        let state = Data::new(State {
            role: Arc::clone(role),
            store: Arc::clone(store),
            events,
            workers: Arc::clone(&workers),
            metrics,
            token: config.worker_token.clone(),
            health: Health::default(),
            max_attempts: config.max_attempts,
            max_job_bytes: config.max_job_bytes,
            bodies: BodyBudget::new(config.max_body_memory),
            max_result_bytes: config.max_result_bytes,
            chunk_size: config.chunk_size,
            inflight: Semaphore::new(config.max_inflight as usize),
        });
        Self { background, state, metrics: Metrics::new(registry), workers }
    }
}

/// Answers what is in flight: what is not done after `timeout` gets an error.
async fn drain(public: &ServerHandle, term: &Term, timeout: Duration) {
    let end_jobs = async {
        tokio::time::sleep(timeout).await;
        term.driver.input(Engine::stop);
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
