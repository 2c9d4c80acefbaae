//! The parts that communicate with Kafka.

use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Context;
use api::{KafkaStats, WorkerState, WorkerStatus};
use engine::Standing;
use prometheus_client::registry::Registry;
use store::Store;
use streams::{Figures, Intake, Outbox, Part, Roster, Settings};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::info;

use super::acceptor::JobAcceptor;
use super::gauges::KafkaGauges;
use crate::clock::now;
use crate::config::Config;
use crate::driver::Driver;
use crate::pull_workers::PullWorkers;
use crate::term::Term;
use crate::workers::Workers;

/// Kafka as the configuration describes it.
#[derive(Debug)]
pub(crate) struct Kafka {
    settings: Settings,
    figures: Arc<Figures>,
    chunk_size: NonZeroU64,
    max_job_bytes: usize,
}

impl Kafka {
    /// Checks the variables, without the files that they name.
    pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
        if config.kafka_brokers.is_empty() {
            return Ok(());
        }
        let settings = Settings::read(&config.kafka_brokers, config.kafka_config.as_str());
        let settings = settings.context("DIVVY_KAFKA_BROKERS and DIVVY_KAFKA_CONFIG")?;
        settings.with_prefix(&config.kafka_prefix).map(drop).context("DIVVY_KAFKA_PREFIX")
    }

    /// `None` where no brokers are named. Contacts no broker.
    pub(crate) fn from_config(config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        if config.kafka_brokers.is_empty() {
            return Ok(None);
        }
        let settings = Settings::parse(&config.kafka_brokers, config.kafka_config.as_str())
            .context("DIVVY_KAFKA_BROKERS and DIVVY_KAFKA_CONFIG")?
            .with_prefix(&config.kafka_prefix)
            .context("DIVVY_KAFKA_PREFIX")?;
        info!(brokers = settings.brokers(), "Kafka is used");
        Ok(Some(Arc::new(Self {
            settings,
            figures: Arc::default(),
            chunk_size: config.chunk_size,
            max_job_bytes: config.max_job_bytes,
        })))
    }

    pub(crate) fn register(self: &Arc<Self>, metrics: &mut Registry, store: &Arc<Store>) {
        let gauges = KafkaGauges { kafka: Arc::clone(self), latest_event: store.latest_event() };
        metrics.register_collector(Box::new(gauges));
    }

    /// The state of the outbox and the inboxes; `latest_event` is the number of the newest event.
    pub(crate) fn stats(&self, latest_event: u64) -> KafkaStats {
        self.figures.stats(latest_event)
    }

    /// Lost events that this coordinator was the first to tell of.
    pub(super) fn newly_lost(&self) -> u64 {
        self.figures.newly_lost()
    }

    /// Starts the parts, for as long as a term lasts.
    pub(crate) async fn start(
        &self,
        background: &mut JoinSet<()>,
        term: &Term,
        workers: &Arc<Workers>,
    ) -> anyhow::Result<()> {
        // Until the outbox knows its position, no job is forgotten for its age alone.
        term.store.keep_events_from(0);
        let positions = term.store.positions().await.context("read how far events were published")?;
        let (settings, figures) = (|| self.settings.clone(), || Arc::clone(&self.figures));
        let (store, runtime) = (|| Arc::clone(&term.store), Handle::current);
        let trust = || {
            let trust = term.trust.clone();
            move || trust.holds()
        };
        let outbox = Outbox { settings: settings(), store: store(), figures: figures(), runtime: runtime() };
        // Noted before anybody sees the term: its figures are right while the thread has not begun.
        figures().relay_starts(&positions);
        let events = streams::start("kafka-events", trust(), |stop| outbox.run(stop));
        let events = events.inspect_err(|_| figures().ended(Part::Outbox)).context("start a thread")?;
        background.spawn(events);
        let (driver, workers) = (Arc::clone(&term.driver), Arc::clone(workers));
        let pull_workers = Arc::clone(&term.pull_workers);
        let workers = Box::new(move || roster(&driver, &workers, &pull_workers));
        let roster = Roster { settings: settings(), workers, figures: figures() };
        background.spawn(streams::start("kafka-workers", trust(), |stop| roster.run(stop)).context("start a thread")?);
        let (jobs, driver) = (term.jobs.clone(), Arc::clone(&term.driver));
        let acceptor = JobAcceptor { jobs, driver, chunk_size: self.chunk_size, max_bytes: self.max_job_bytes };
        let intake = Intake { settings: settings(), store: store(), acceptor, figures: figures(), runtime: runtime() };
        background.spawn(streams::start("kafka-intake", trust(), |stop| intake.run(stop)).context("start a thread")?);
        Ok(())
    }
}

/// The workers as they are now.
fn roster(driver: &Driver, workers: &Workers, pull_workers: &PullWorkers) -> Vec<WorkerStatus> {
    let at = now().at;
    let pushed = workers.snapshot().into_iter().map(|(id, worker)| {
        let heartbeat = &worker.heartbeat;
        (id, worker.key, heartbeat.slots, heartbeat.cpu_load)
    });
    let pulling = pull_workers.snapshot().into_iter().map(|(id, worker)| (id, Some(worker.key), 1, 0.0));
    let status = |(id, key, slots, load): (_, Option<_>, _, _)| {
        let view = key.and_then(|key| driver.view(|engine| engine.worker(key)));
        let state = match view.as_ref().map(|view| view.standing) {
            Some(Standing::Suspended) => WorkerState::Suspended,
            Some(Standing::Draining) => WorkerState::Draining,
            Some(Standing::Ready) | None => WorkerState::Ready,
        };
        let busy = view.as_ref().map_or(0, |view| u32::try_from(view.leases).unwrap_or(u32::MAX));
        let tasks_done = view.map_or(0, |view| view.completed_tasks);
        WorkerStatus { id, at, state, load, slots, busy, tasks_done }
    };
    pushed.chain(pulling).map(status).collect()
}
