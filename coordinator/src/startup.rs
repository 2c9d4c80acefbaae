//! Builds a coordinator from its configuration and runs it until it is stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::{Data, ServiceConfig};
use anyhow::Context;
use engine::Engine;
use prometheus_client::registry::Registry;
use service::{BodyBudget, Health, Listener, Metrics, Relay};
use store::shared::{Losing, Member};
use store::{Shared, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock;
use crate::config::{Config, Switch};
use crate::disk::Disk;
use crate::event_hub::EventHub;
use crate::http::{self, Dashboard, Notices, State};
use crate::identity::WorkerIdentity;
use crate::job_watch::JobWatch;
use crate::kafka::Kafka;
use crate::leadership::Terms;
use crate::lease_log::LeaseLog;
use crate::members::Members;
use crate::metrics::{CoordinatorMetrics, EvictionReason, Gauges};
use crate::outcomes::OutcomeBudget;
use crate::programs::Programs;
use crate::relay::{LeaderRelay, Port};
use crate::results_place;
use crate::role::Role;
use crate::running_parts::RunningParts;
use crate::serving_threads::{self, ServingThreads};
use crate::term::{self, Term, TermParts};
use crate::workers::{Evicted, SWEEP_INTERVAL, Workers};

/// Threads of the public listener, which mostly wait.
const PUBLIC_THREADS: usize = 2;

/// Threads of the internal listener: they are its own, so that no load of clients delays a heartbeat.
const INTERNAL_THREADS: usize = 2;

/// Longest time that answers may still take to be written after every job is over.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A coordinator that is bound to its ports and serves nothing yet.
pub struct Coordinator {
    config: Config,
    public: Listener,
    internal: Listener,
    member: Member,
    role: Arc<Role>,
    /// A coordinator with a shared store only follows here, and opens the store anew for each of its terms.
    store: Arc<Store>,
    shared: Option<Arc<dyn Shared>>,
    kafka: Option<Arc<Kafka>>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("config", &self.config)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// Binds both ports and opens the store.
    ///
    /// # Errors
    /// An address cannot be bound, or the store cannot be used.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        if let Some(settings) = config.postgres_settings() {
            let shared = store_postgres::open(&settings).context("open the store")?;
            return Self::build_shared(config, Arc::new(shared));
        }
        let (public, internal) = listeners(&config)?;
        let store = store_sqlite::open(config.store_settings()).context("open the store")?;
        Self::new(config, public, internal, store, None)
    }

    /// Binds both ports and opens a store that other coordinators share.
    ///
    /// # Errors
    /// An address cannot be bound, or the store cannot be used.
    pub fn build_shared(config: Config, shared: Arc<dyn Shared>) -> anyhow::Result<Self> {
        let (public, internal) = listeners(&config)?;
        let followed = shared.follow().context("open the store")?;
        let store = Store::follow(followed, config.retention()).context("start the store's writer")?;
        Self::new(config, public, internal, store, Some(shared))
    }

    fn new(
        config: Config,
        public: Listener,
        internal: Listener,
        store: Store,
        shared: Option<Arc<dyn Shared>>,
    ) -> anyhow::Result<Self> {
        let kafka = Kafka::from_config(&config)?;
        let member = config.member(public.address(), internal.address());
        Ok(Self { config, public, internal, member, role: Arc::default(), store: Arc::new(store), shared, kafka })
    }

    /// The address of the public listener.
    #[must_use]
    pub fn public_addr(&self) -> SocketAddr {
        self.public.address()
    }

    /// The address of the internal listener.
    #[must_use]
    pub fn internal_addr(&self) -> SocketAddr {
        self.internal.address()
    }

    /// A view of the coordinator's jobs, for a program that runs it in the same process.
    #[must_use]
    pub fn job_watch(&self) -> JobWatch {
        JobWatch::of(&self.role)
    }

    /// Runs until `stop` resolves; then answers what is in flight within the drain timeout, ends all its tasks, closes the
    /// store and returns.
    ///
    /// # Errors
    /// A listener cannot be served, or a part of the coordinator has ended by itself: then the others have been stopped, too.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, public, internal, mut member, role, store, shared, kafka } = self;
        warn_if_open(&config, internal.address());
        results_place::check(&config, &store).await?;
        let clock = shared.as_ref().and_then(|shared| shared.clock());
        clock::begin(clock.as_ref());
        // The others show it beside times of the store's clock.
        member.started_at = clock::now().at;
        info!(public = %public.address(), internal = %internal.address(), "serving");
        let members = Arc::new(Members::new(member, Arc::clone(&role), shared.clone()));
        let disk = Arc::new(Disk::new(shared.is_none().then(|| config.data_dir.clone())));
        let LastingParts { mut background, state, metrics } =
            LastingParts::new(&config, &role, &store, &members, kafka, &disk)?;
        background.spawn(disk.run());
        background.spawn(http::run_dashboard(state.clone()));
        background.spawn(clock::run(clock));
        let (health, drain_timeout) = (state.health.clone(), Duration::from_millis(config.drain_timeout_ms));
        let threads = Arc::new(ServingThreads::default());
        let faces = Faces::new(&config, &state, &metrics, &threads, shared.is_some())?;
        let lost = shared.as_ref().map(|shared| shared.lost());
        let parts = TermParts::new(config, &state, threads)?;
        let leadership = match shared {
            None => Terms::alone(role, parts, Arc::clone(&store)).await?,
            Some(shared) => Terms::shared(role, parts, &members, shared)?,
        };
        let public_server = faces.serve_public(public.warn_if_open(), drain_timeout + STOP_TIMEOUT)?;
        let internal_server = faces.serve_internal(internal)?;
        let (public, internal) = (public_server.handle(), internal_server.handle());
        let serving = [public_server, internal_server].into_iter().collect();
        let mut parts = RunningParts { leadership, background, serving, public, internal, store };
        let failure = tokio::select! {
            () = stop => None,
            // A coordinator without one of its parts looks alive and does nothing: the process ends, to be restarted.
            error = parts.failed() => Some(error),
            // The coordinator's knowledge of jobs and events may be wrong: the process ends, to begin anew.
            lost = lost_commits(lost) => Some(anyhow::anyhow!("{lost}: ending, to be started again")),
        };
        health.start_draining();
        if let Some(error) = failure {
            drop((state, metrics, faces));
            parts.end_after_failure().await;
            return Err(error);
        }
        info!("stopping: answering the requests in flight");
        let RunningParts { mut leadership, mut background, mut serving, public, internal, store } = parts;
        // Another coordinator that can lead does so immediately, and answers the requests that wait here.
        if members.has_successor() {
            leadership.step_down().await;
        }
        drain(&public, leadership.term(), drain_timeout).await;
        internal.stop(false).await;
        leadership.stop().await;
        background.shutdown().await;
        while let Some(server) = serving.join_next().await {
            server.context("join a server")?.context("serve")?;
        }
        match store.flush().await {
            // A follower has only submissions, and each caller was told the result of its own.
            Err(error) if !store.leads() => warn!(%error, "stopping while the store does not answer"),
            flushed => flushed.context("commit the last changes")?,
        }
        drop((state, metrics, faces));
        term::close(store).await.context("close the store")?;
        info!("stopped");
        Ok(())
    }
}

/// Warns where other hosts can register workers without a secret.
fn warn_if_open(config: &Config, address: SocketAddr) {
    let is_open = !config.worker_token.is_set() && config.worker_service_accounts.is_empty();
    if is_open && !address.ip().is_loopback() {
        warn!(%address, "DIVVY_WORKER_TOKEN is not set: anyone who reaches this port can register as a worker");
    }
}

/// The parts of a coordinator that last whether or not it leads.
struct LastingParts {
    background: JoinSet<()>,
    state: Data<State>,
    metrics: Metrics,
}

impl LastingParts {
    /// Starts the tasks beside the listeners; dropping or shutting down the set ends them.
    fn new(
        config: &Config,
        role: &Arc<Role>,
        store: &Arc<Store>,
        members: &Arc<Members>,
        kafka: Option<Arc<Kafka>>,
        disk: &Arc<Disk>,
    ) -> anyhow::Result<Self> {
        let workers = Arc::new(Workers::new(Duration::from_millis(config.evict_after_ms), Instant::now()));
        let (events, health) = (EventHub::new(Arc::clone(store)), Health::default());
        let mut registry = Registry::default();
        let metrics = CoordinatorMetrics::register(&mut registry, Gauges::new(role, &workers, &events, disk));
        if let Some(kafka) = &kafka {
            kafka.register(&mut registry, store);
        }
        let identity = WorkerIdentity::new(config, &metrics)?;
        let mut background = JoinSet::new();
        background.spawn(Arc::clone(&events).run());
        background.spawn(Arc::clone(&events).follow(store.latest_event()));
        background.spawn(Arc::clone(members).run(health.clone()));
        background.spawn(results_place::compare(Arc::clone(members), Arc::clone(store)));
        background.spawn(watch_workers(Arc::clone(&workers), metrics.clone()));
        let state = Data::new(State {
            role: Arc::clone(role),
            members: Arc::clone(members),
            store: Arc::clone(store),
            programs: Programs::new(Arc::clone(store), Arc::clone(&workers), config),
            events,
            workers,
            notices: Notices::default(),
            lease_log: Arc::new(LeaseLog::new(config.dashboard == Switch::On)),
            metrics,
            identity,
            health,
            kafka,
            disk: Arc::clone(disk),
            max_attempts: config.max_attempts,
            max_job_bytes: config.max_job_bytes,
            bodies: BodyBudget::new(config.max_body_memory),
            answers: BodyBudget::new(config.max_body_memory),
            heartbeats: BodyBudget::new(http::HEARTBEAT_MEMORY),
            max_result_bytes: config.max_result_bytes,
            outcomes: OutcomeBudget::new(config.max_outcome_memory),
            chunk_size: config.chunk_size,
            inflight: Semaphore::new(config.max_inflight as usize),
            dashboard: (config.dashboard == Switch::On).then(Dashboard::new),
            has_tls: config.doors.has_tls(),
            is_loopback: config.public_addr.ip().to_canonical().is_loopback(),
        });
        Ok(Self { background, state, metrics: Metrics::new(registry) })
    }
}

/// Answers the requests in flight: those that are not done after `timeout` get an error.
async fn drain(public: &ServerHandle, term: Option<&Arc<Term>>, timeout: Duration) {
    let end_jobs = async {
        tokio::time::sleep(timeout).await;
        if let Some(term) = term {
            term.driver.input(Engine::stop);
        }
        std::future::pending().await
    };
    tokio::select! {
        () = public.stop(true) => (),
        () = end_jobs => (),
    }
}

/// Resolves with the reason when the store has lost commits. Never resolves where no other coordinator uses the store.
async fn lost_commits(lost: Option<Losing>) -> String {
    match lost {
        Some(lost) => lost.await,
        None => std::future::pending().await,
    }
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

fn listeners(config: &Config) -> anyhow::Result<(Listener, Listener)> {
    let (routes, mut doors) = (http::public_routes(config.dashboard == Switch::On), config.doors.clone());
    let advertised = [&config.advertise_public_addr, &config.advertise_internal_addr];
    advertised.into_iter().flatten().for_each(|address| doors.allowed_hosts.allow_own(address));
    let public = bind(config.public_addr, "DIVVY_PUBLIC_ADDR")?.guarded(doors.public()?, routes);
    let internal = bind(config.internal_addr, "DIVVY_INTERNAL_ADDR")?;
    Ok((public, internal.guarded(doors.internal()?, http::INTERNAL)))
}

/// The parts that both listeners serve.
struct Faces {
    state: Data<State>,
    health: Health,
    metrics: Metrics,
    threads: Arc<ServingThreads>,
    /// The relays to the public and to the internal port of the leader, where another coordinator can lead.
    relays: Option<(Data<LeaderRelay>, Data<LeaderRelay>)>,
}

impl Faces {
    fn new(
        config: &Config,
        state: &Data<State>,
        metrics: &Metrics,
        threads: &Arc<ServingThreads>,
        is_shared: bool,
    ) -> anyhow::Result<Self> {
        let relay = |port| anyhow::Ok(Data::new(LeaderRelay::new(port, config, state)?));
        let relays = if is_shared { Some((relay(Port::Public)?, relay(Port::Internal)?)) } else { None };
        let (state, health, metrics) = (state.clone(), state.health.clone(), metrics.clone());
        Ok(Self { state, health, metrics, threads: Arc::clone(threads), relays })
    }

    fn serve_public(&self, listener: Listener, stop_timeout: Duration) -> anyhow::Result<Server> {
        let (health, state, threads) = (self.health.clone(), self.state.clone(), Arc::clone(&self.threads));
        let relay = self.relays.as_ref().map(|(public, _)| public.clone());
        let configure = move |config: &mut ServiceConfig| {
            threads.join();
            add_relay(config, relay.as_ref());
            health.configure(config);
            http::public(config, &state);
        };
        service::serve(listener, PUBLIC_THREADS, stop_timeout, &self.metrics, configure)
            .context("serve the public port")
    }

    fn serve_internal(&self, listener: Listener) -> anyhow::Result<Server> {
        let (health, state, metrics) = (self.health.clone(), self.state.clone(), self.metrics.clone());
        let relay = self.relays.as_ref().map(|(_, internal)| internal.clone());
        let configure = move |config: &mut ServiceConfig| {
            serving_threads::mark();
            add_relay(config, relay.as_ref());
            health.configure(config);
            metrics.configure(config);
            http::internal(config, &state);
        };
        let served = service::serve(listener, INTERNAL_THREADS, STOP_TIMEOUT, &self.metrics, configure);
        served.context("serve the internal port")
    }
}

fn add_relay(config: &mut ServiceConfig, relay: Option<&Data<LeaderRelay>>) {
    if let Some(relay) = relay {
        let passing: Arc<dyn Relay> = relay.clone().into_inner();
        config.app_data(Data::from(passing)).app_data(relay.clone());
    }
}
