//! Builds a worker from its configuration and runs it until it is stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use anyhow::Context;
use api::ProgramAbilities;
use model::{BootId, JobKind, WorkerId};
use prometheus_client::registry::Registry;
use service::{BodyBudget, Credential, Health, Limits, Listener, Metrics, ended_by_itself};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;
use workloads::{ExecuteError, Executors};

use crate::config::Config;
use crate::courier::Courier;
use crate::deletion_cost::DeletionCost;
use crate::epoch::EpochFence;
use crate::executor::{Compute, Executor, every_kind};
use crate::heartbeat::{Announcements, Announcer};
use crate::held::HeldLeases;
use crate::intake::Intake;
use crate::metrics::{WorkerMetrics, register_held};
use crate::presence::Presence;
use crate::programs::{Owner, Programs};
use crate::routes::{self, State};
use crate::vitals::Sampler;

/// The memory budget of arriving leases, in bytes.
const MAX_LEASES_BYTES: usize = 64 * 1024 * 1024;

/// Threads that serve HTTP: requests are few and small, the cores belong to the slots.
const HTTP_THREADS: usize = 1;

/// Longest time that the slots may take to end stopped computations: a program has half a second of grace, and its files are
/// removed.
const SLOTS_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time that the last stderr of programs may take to be reported when the slots have ended.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that answers may still take to be written once nothing is held any more.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker that is bound to its port and serves nothing yet.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    listener: Listener,
    worker_id: WorkerId,
}

impl Worker {
    /// Binds the worker's port.
    ///
    /// # Errors
    /// The address cannot be bound, or the worker has no name.
    pub fn build(config: Config) -> anyhow::Result<Self> {
        let address = config.listen_addr;
        let listener = Listener::bind(address).with_context(|| format!("listen on {address} (DIVVY_LISTEN_ADDR)"))?;
        // A coordinator closes a lease's connection to end the lease, and nothing else.
        let limits = Limits { ask_after: Duration::ZERO, ..Limits::default() };
        let listener = listener.guarded(config.doors.internal()?, routes::ROUTES).limited(limits);
        let worker_id = config.name(listener.address().port())?;
        Ok(Self { config, listener, worker_id })
    }

    /// The address of the listener for leases.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Runs until `stop` resolves; then deregisters, finishes or hands back what it holds, and returns.
    ///
    /// # Errors
    /// A thread or the listener cannot be started, or a part of the worker has ended by itself: then its other parts have ended,
    /// too. The worker hands its leases back unless the heartbeats, which carry them, have ended.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, listener, worker_id } = self;
        let address = listener.address();
        if !config.worker_token.is_set() && !address.ip().is_loopback() {
            warn!(%address, "DIVVY_WORKER_TOKEN is not set: anyone who reaches this port can give work");
        }
        let credential = config.credential()?;
        let courier = Courier::new(Courier::client()?, credential.clone(), Handle::current());
        let courier = Arc::new(courier);
        let programs = Programs::open(&config, Arc::clone(&courier))?;
        let compute = Computes { worker_id: worker_id.clone(), programs: programs.clone() };
        let executor = Executor::start(config.slots, move || compute.make()).context("start the compute threads")?;
        let executor = Arc::new(executor);
        let _deletion_cost = DeletionCost::start_if_asked(&config, &executor)?;
        let abilities = programs.as_ref().map(|programs| programs.abilities().clone());
        let messengers = Messengers { credential, courier };
        let parts = RunningParts::start(&config, listener, worker_id, executor, messengers, abilities)?;
        parts.run(stop).await
    }
}

/// The parts that end only when they are told to.
struct RunningParts {
    state: Data<State>,
    courier: Arc<Courier>,
    announcements: Announcements,
    server: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
    drain_timeout: Duration,
}

impl RunningParts {
    fn start(
        config: &Config,
        listener: Listener,
        worker_id: WorkerId,
        executor: Arc<Executor>,
        messengers: Messengers,
        programs: Option<ProgramAbilities>,
    ) -> anyhow::Result<Self> {
        let (boot_id, address) = (BootId(Uuid::new_v4()), listener.address());
        let mut registry = Registry::default();
        let metrics = WorkerMetrics::register(&mut registry, config.slots, Arc::clone(&executor));
        let health = Health::default();
        let held = Arc::new(HeldLeases::new(worker_id.clone(), config.max_held_bytes, metrics.clone()));
        let presence = Arc::new(Presence::new(health.clone()));
        register_held(&mut registry, Arc::clone(&held), Arc::clone(&presence));
        let state = Data::new(State {
            boot_id,
            token: config.worker_token.clone(),
            executor,
            intake: Intake::new(config.slots, health.clone()),
            held,
            epoch: Arc::new(EpochFence::new(config.orphan_timeout())),
            asked: watch::Sender::new(()),
            metrics,
            bodies: BodyBudget::new(MAX_LEASES_BYTES),
        });
        let serving = serve(listener, &state, health, Metrics::new(registry)).context("serve")?;
        let server = serving.handle();
        let serving = tokio::spawn(serving);
        info!(%worker_id, %boot_id, %address, slots = config.slots, "serving");
        let courier = Arc::clone(&messengers.courier);
        let announcements = announce(config, &state, worker_id, address.port(), presence, messengers, programs)?;
        let drain_timeout = config.drain_timeout();
        Ok(Self { state, courier, announcements, server, serving, drain_timeout })
    }

    /// Runs until `stop` resolves or a part ends by itself; then ends the other parts.
    async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { state, courier, mut announcements, server, mut serving, drain_timeout } = self;
        let failure = tokio::select! {
            () = stop => None,
            // A worker without heartbeats looks alive and does nothing: the process ends, to be restarted.
            () = announcements.failed() => Some(anyhow::anyhow!("the heartbeats ended by themselves")),
            ended = &mut serving => Some(ended_by_itself("the listener", ended)),
        };
        let drain_timeout = if failure.is_some() {
            Duration::ZERO
        } else {
            info!("stopping: finishing the held leases");
            drain_timeout
        };
        let drain_until = Instant::now() + drain_timeout;
        announcements.leave().await;
        state.intake.drain(drain_until, &state.held).await;
        let returned = state.held.hand_back();
        if !returned.is_empty() {
            warn!(leases = returned.len(), "handing back leases that were not finished and settled in time");
        }
        // A program whose worker has gone is killed at once.
        let ending = async {
            state.executor.finish(SLOTS_TIMEOUT).await;
            if !courier.finish(REPORTS_TIMEOUT).await {
                warn!("no coordinator took all that programs wrote last to stderr");
            }
        };
        tokio::join!(announcements.stop(returned), ending);
        server.stop(true).await;
        match failure {
            Some(error) => Err(error),
            None => serving.await.context("join the server")?.context("serve"),
        }
    }
}

/// The parts that compute functions are made of.
#[derive(Clone)]
struct Computes {
    worker_id: WorkerId,
    programs: Option<Arc<Programs>>,
}

impl Computes {
    /// Makes the compute function of one slot.
    fn make(&self) -> Compute {
        let (this, mut others) = (self.clone(), every_kind());
        Box::new(move |work, stop| {
            if work.kind != JobKind::PROGRAM {
                return others(work, stop);
            }
            let (Some(programs), Some((job, attempt))) = (&this.programs, work.lease) else {
                return Err(ExecuteError::Unsupported("this worker runs no programs".to_owned()));
            };
            let owner = Owner { worker: &this.worker_id, job, attempt };
            programs.run(owner, &work.work, &work.tasks, stop)
        })
    }
}

/// The clients for requests to coordinators.
struct Messengers {
    credential: Credential,
    courier: Arc<Courier>,
}

fn announce(
    config: &Config,
    state: &State,
    worker_id: WorkerId,
    port: u16,
    presence: Arc<Presence>,
    Messengers { credential, courier }: Messengers,
    programs: Option<ProgramAbilities>,
) -> anyhow::Result<Announcements> {
    let kinds = Executors::kinds().into_iter().chain(programs.is_some().then_some(JobKind::PROGRAM));
    let announcer = Announcer {
        worker_id,
        boot_id: state.boot_id,
        port,
        slots: config.slots,
        labels: config.worker_labels.0.clone(),
        kinds: kinds.collect(),
        abilities: Executors::abilities(),
        programs: programs.unwrap_or_default(),
        courier,
        coordinators: config.coordinator.urls().to_vec(),
        credential,
        heartbeat_timeout: config.heartbeat_timeout(),
        orphan_timeout: config.orphan_timeout(),
        executor: Arc::clone(&state.executor),
        held: Arc::clone(&state.held),
        epoch: Arc::clone(&state.epoch),
        presence,
        asked: state.asked.clone(),
        metrics: state.metrics.clone(),
        sampler: Sampler::new()?,
        client: Announcer::client(config.heartbeat_timeout())?,
    };
    announcer.start()
}

fn serve(
    listener: Listener,
    state: &Data<State>,
    health: Health,
    metrics: Metrics,
) -> std::io::Result<actix_web::dev::Server> {
    let (state, of_service) = (state.clone(), metrics.clone());
    service::serve(listener, HTTP_THREADS, STOP_TIMEOUT, &metrics, move |config| {
        health.configure(config);
        of_service.configure(config);
        routes::configure(config, &state);
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::Ipv4Addr;

    use service::WorkerToken;

    use super::*;

    /// The parts of a worker whose coordinator is not there.
    fn started() -> RunningParts {
        let variables = [("coordinator", "http://127.0.0.1:9"), ("slots", "1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config: Config = envy::from_iter(variables).expect("valid variables");
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = listener.guarded(config.doors.internal().expect("no files"), routes::ROUTES);
        let executor = Arc::new(Executor::start(config.slots, every_kind).expect("threads"));
        let credential = Credential::shared(WorkerToken::default());
        let courier = Courier::new(Courier::client().expect("a client"), credential.clone(), Handle::current());
        let messengers = Messengers { credential, courier: Arc::new(courier) };
        let worker_id = "worker".parse().expect("a name");
        RunningParts::start(&config, listener, worker_id, executor, messengers, None).expect("the parts start")
    }

    #[tokio::test]
    async fn a_worker_whose_heartbeats_end_by_themselves_hands_back_what_it_holds_and_fails() {
        let mut parts = started();
        parts.announcements = Announcements::gone();
        let state = parts.state.clone();
        let _held = state.intake.enter_lease().expect("room for a lease");
        let error = parts.run(pending()).await.expect_err("a part has ended");
        assert_eq!(error.to_string(), "the heartbeats ended by themselves");
        assert!(state.intake.is_handing_back());
    }

    #[tokio::test]
    async fn a_worker_whose_listener_ends_by_itself_hands_back_what_it_holds_and_fails() {
        let parts = started();
        let state = parts.state.clone();
        let _held = state.intake.enter_lease().expect("room for a lease");
        parts.server.stop(false).await;
        let error = parts.run(pending()).await.expect_err("a part has ended");
        assert_eq!(error.to_string(), "the listener ended by itself");
        assert!(state.intake.is_handing_back());
    }
}
