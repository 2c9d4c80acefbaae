//! The grid as the pages show it: made once a second at most, however many look, and by nobody when nobody looks. The
//! history is sampled all the time.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::Data;
use api::{Job, Stats, WorkerState, WorkerSummary};
use dashboard::Sample;
use jiff::Timestamp;
use model::JobState;
use service::ApiError;
use store::{JobFilter, JobRecord};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::super::State;
use super::super::errors::from_read;
use super::super::{stats, workers};
use super::event_tails::EventTails;
use crate::clock::now;

/// How old a snapshot may be.
const FRESH: Duration = Duration::from_millis(950);

/// Time between two samples of the history, and how many are kept: an hour.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
const MAX_SAMPLES: usize = 720;

/// Leases that are older are asked for: shorter ones end with a word.
const SWEPT_AFTER: Duration = Duration::from_secs(10);

/// Running jobs that the overview lists.
const SHOWN_RUNNING: usize = 12;

/// Queued jobs that are asked why they cannot run.
const LOOKED_AT_QUEUED: usize = 100;

/// Failed jobs that the overview tells of, and for how long.
const SHOWN_FAILED: usize = 3;
const FAILED_LATELY: Duration = Duration::from_hours(1);

/// The grid at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    taken: Instant,
    content: u64,
    pub(super) version: u64,
    pub(super) stats: Stats,
    pub(super) workers: Vec<WorkerSummary>,
    pub(super) running: Vec<Job>,
    pub(super) stuck: Vec<Job>,
    pub(super) failed: Vec<Job>,
}

/// The state that all pages share.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// Tells the versions of one coordinator from those of another.
    instance: u32,
    last: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
    history: Mutex<VecDeque<Sample>>,
    /// The version of the last snapshot; changes once a second while somebody listens.
    ticks: watch::Sender<String>,
    pub(super) event_tails: EventTails,
}

impl Dashboard {
    pub(crate) fn new() -> Self {
        Self {
            instance: fastrand::u32(..),
            last: tokio::sync::Mutex::new(None),
            history: Mutex::default(),
            ticks: watch::Sender::new(String::new()),
            event_tails: EventTails::default(),
        }
    }

    /// The grid as it was less than a second ago.
    pub(super) async fn snapshot(&self, state: &State) -> Result<Arc<Snapshot>, ApiError> {
        // Held while it is made: those that ask meanwhile get the same.
        let mut last = self.last.lock().await;
        if let Some(fresh) = last.as_ref().filter(|last| last.taken.elapsed() < FRESH) {
            return Ok(Arc::clone(fresh));
        }
        let snapshot = Arc::new(take(state, last.as_deref()).await?);
        *last = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The name of a snapshot's version.
    pub(super) fn version(&self, snapshot: &Snapshot) -> String {
        format!("{:x}-{}", self.instance, snapshot.version)
    }

    pub(super) fn history(&self) -> Vec<Sample> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(super) fn ticks(&self) -> watch::Receiver<String> {
        self.ticks.subscribe()
    }

    /// The figures are the leader's.
    fn sample(&self, state: &State) {
        let Some(term) = state.role.term() else { return };
        let (running, runnable, (tasks_per_second, _)) = term
            .driver
            .view(|engine| (engine.task_counts().running, engine.runnable_by_priority(), engine.throughput()));
        let waiting = runnable.into_iter().fold(0, u64::saturating_add);
        let sample = Sample { at: now().at, tasks_per_second, waiting, running };
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == MAX_SAMPLES {
            history.pop_front();
        }
        history.push_back(sample);
    }
}

/// Samples the history, and takes a snapshot a second while somebody listens. Runs for ever.
pub(crate) async fn run(state: Data<State>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sampled: Option<Instant> = None;
    loop {
        seconds.tick().await;
        let Some(dashboard) = &state.dashboard else { return std::future::pending().await };
        if sampled.is_none_or(|sampled| sampled.elapsed() >= SAMPLE_INTERVAL - FRESH / 10) {
            sampled = Some(Instant::now());
            dashboard.sample(&state);
        }
        sweep_leases(&state);
        if dashboard.ticks.receiver_count() > 0 {
            // A failed read is tried again a second later.
            if let Ok(snapshot) = dashboard.snapshot(&state).await {
                dashboard.ticks.send_replace(dashboard.version(&snapshot));
            }
        }
    }
}

/// Ends the leases in the log that the engine has not any more, such as those of a worker that is lost.
fn sweep_leases(state: &State) {
    let now = Instant::now();
    let Some(old) = now.checked_sub(SWEPT_AFTER) else { return };
    let term = state.role.term();
    let is_held = |attempt| {
        let driver = term.as_ref().map(|term| &term.driver);
        driver.is_some_and(|driver| driver.view(|engine| engine.lease(attempt, crate::clock::now()).is_some()))
    };
    state.lease_log.sweep(old, now, is_held);
}

async fn take(state: &State, last: Option<&Snapshot>) -> Result<Snapshot, ApiError> {
    let (stats, workers) = (stats::stats(state)?, workers::summaries(state));
    let running = jobs(state, JobState::Running, SHOWN_RUNNING).await?;
    let unservable = stats.demand.values().any(|demand| demand.unservable > 0);
    let queued = if unservable { jobs(state, JobState::Queued, LOOKED_AT_QUEUED).await? } else { Vec::new() };
    let stuck = running.iter().chain(&queued).filter(|job| job.notice.is_some()).take(SHOWN_FAILED).cloned().collect();
    let lately = now().at.checked_sub(FAILED_LATELY).unwrap_or(Timestamp::MIN);
    let failed = jobs(state, JobState::Failed, SHOWN_FAILED).await?;
    let failed = failed.into_iter().filter(|job| job.finished_at.is_some_and(|at| at >= lately)).collect();
    let content = fingerprint(&stats, &workers, *state.store.latest_event().borrow());
    let version = match last {
        Some(last) if last.content == content => last.version,
        Some(last) => last.version + 1,
        None => 1,
    };
    Ok(Snapshot { taken: Instant::now(), content, version, stats, workers, running, stuck, failed })
}

async fn jobs(state: &State, of: JobState, limit: usize) -> Result<Vec<Job>, ApiError> {
    let filter = JobFilter { states: vec![of], ..JobFilter::default() };
    let records: Vec<JobRecord> = state.store.jobs(filter, None, limit).await.map_err(from_read)?;
    Ok(records.into_iter().map(|record| state.view(record)).collect())
}

/// A hash of what the pages show, so that nothing is asked for again while nothing changes.
fn fingerprint(stats: &Stats, workers: &[WorkerSummary], latest_event: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    latest_event.hash(&mut hasher);
    serde_json::to_vec(stats).unwrap_or_default().hash(&mut hasher);
    for worker in workers {
        (&worker.id, worker.busy, worker.running, worker.completed_tasks).hash(&mut hasher);
        matches!(worker.state, WorkerState::Ready).hash(&mut hasher);
        matches!(worker.state, WorkerState::Draining).hash(&mut hasher);
        // Steps of 5 %, and of a second once a heartbeat is late.
        #[expect(clippy::cast_possible_truncation, reason = "a share of 20")]
        let load = (worker.cpu_load * 20.0) as i32;
        (load, worker.last_seen_ms_ago.saturating_sub(1_000) / 1_000).hash(&mut hasher);
    }
    hasher.finish()
}
