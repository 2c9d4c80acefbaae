//! The grid as the pages show it: a snapshot at most once a second for all viewers, and none without viewers. The history is
//! sampled all the time.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::Data;
use api::{Job, Stats, WorkerState, WorkerSummary};
use dashboard::{Failures, Sample};
use jiff::Timestamp;
use model::JobState;
use service::ApiError;
use store::{JobFilter, JobRecord};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::super::State;
use super::super::errors::from_read;
use super::super::{stats, workers};
use super::shared_failure::SharedFailure;
use super::shared_statistics::SharedStatistics;
use super::shared_streams::SharedStreams;
use crate::clock::now;

/// The age up to which a snapshot is served.
const FRESH: Duration = Duration::from_millis(950);

/// Interval between samples of the history, and the number of samples that are kept: an hour.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
const MAX_SAMPLES: usize = 720;

/// Leases older than this are compared with the engine's: the ends of shorter ones are noted.
const SWEPT_AFTER: Duration = Duration::from_secs(10);

/// Running jobs that the overview lists.
const SHOWN_RUNNING: usize = 12;

/// Jobs that no worker can run and that the overview shows.
const SHOWN_STUCK: usize = 9;

/// Reasons of failures that the overview shows, and one more to show that there are more.
const SHOWN_REASONS: usize = 4;

/// Time for which the overview shows a failed job.
const FAILED_LATELY: Duration = Duration::from_hours(1);

/// The newest failed jobs that are examined, for failures that other coordinators have recorded.
const LOOKED_AT_FAILED: usize = 100;

/// The grid at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    taken: Instant,
    /// The changes that were made before.
    changes: u64,
    content: u64,
    pub(super) version: u64,
    /// The number of the newest event at the time of the snapshot.
    latest_event: u64,
    /// The figures of the grid; `None` while this coordinator does not lead: only the leader has them.
    pub(super) stats: Option<Stats>,
    pub(super) workers: Vec<WorkerSummary>,
    /// Busy slots and all slots, simulated workers included.
    pub(super) slots: (u64, u64),
    pub(super) running: Vec<Job>,
    pub(super) stuck: Vec<Job>,
    pub(super) failed: Vec<Failures>,
}

/// The state that all pages share.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// Distinguishes the versions of one coordinator from those of another.
    instance: u32,
    last: tokio::sync::Mutex<(Option<Arc<Snapshot>>, SharedFailure)>,
    /// Number of times that requests have changed the content of snapshots.
    changes: AtomicU64,
    history: Mutex<VecDeque<Sample>>,
    /// The versions of the last snapshot; they change once a second while a browser listens.
    ticks: watch::Sender<String>,
    pub(super) streams: SharedStreams,
    pub(super) statistics: SharedStatistics,
}

impl Snapshot {
    /// Whether it is young enough, and no viewer has changed anything since.
    fn is_fresh(&self, changes: u64) -> bool {
        self.changes == changes && self.taken.elapsed() < FRESH
    }
}

impl Dashboard {
    pub(crate) fn new() -> Self {
        Self {
            instance: fastrand::u32(..),
            last: tokio::sync::Mutex::default(),
            changes: AtomicU64::new(0),
            history: Mutex::default(),
            ticks: watch::Sender::new(String::new()),
            streams: SharedStreams::default(),
            statistics: SharedStatistics::default(),
        }
    }

    /// A snapshot of the grid that is less than a second old.
    pub(super) async fn snapshot(&self, state: &State) -> Result<Arc<Snapshot>, ApiError> {
        let came_at = Instant::now();
        // Held while the snapshot is made: concurrent callers get the same one.
        let mut guard = self.last.lock().await;
        let (last, failure) = &mut *guard;
        // Before it is made: a change that comes meanwhile has the next page make another one.
        let changes = self.changes.load(Ordering::Relaxed);
        if let Some(fresh) = last.as_ref().filter(|last| last.is_fresh(changes)) {
            return Ok(Arc::clone(fresh));
        }
        failure.check(came_at)?;
        let began_at = Instant::now();
        let taken = take(state, changes, last.as_deref()).await;
        let snapshot = Arc::new(failure.note(began_at, taken)?);
        *last = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Makes the next page show a change that was made just now.
    pub(crate) fn outdate(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The version of a snapshot as text.
    pub(super) fn version(&self, snapshot: &Snapshot) -> String {
        format!("{:x}-{}", self.instance, snapshot.version)
    }

    /// The version of a page of stored data. A coordinator that does not lead shows only stored data, so that the version of
    /// its page is the newest event.
    pub(super) async fn version_of_stored(&self, state: &State) -> Result<String, ApiError> {
        if state.role.term().is_none() {
            return Ok(version_of_event(*state.store.latest_event().borrow()));
        }
        Ok(self.version(&*self.snapshot(state).await?))
    }

    /// The versions of all pages with content of a snapshot.
    fn versions(&self, snapshot: &Snapshot) -> String {
        format!("{} {}", self.version(snapshot), version_of_event(snapshot.latest_event))
    }

    pub(super) fn history(&self) -> Vec<Sample> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(super) fn ticks(&self) -> watch::Receiver<String> {
        self.ticks.subscribe()
    }

    /// Adds a sample to the history while this coordinator leads: only the leader has the figures.
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

/// Samples the history, and takes a snapshot a second while a browser listens. Runs for ever.
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
            // A failed read is repeated a second later.
            if let Ok(snapshot) = dashboard.snapshot(&state).await {
                dashboard.ticks.send_replace(dashboard.versions(&snapshot));
            }
        }
    }
}

/// Ends the leases in the log that the engine no longer has, such as those of a lost worker.
fn sweep_leases(state: &State) {
    let now = Instant::now();
    let Some(old) = now.checked_sub(SWEPT_AFTER) else { return };
    let term = state.role.term();
    let is_held = |attempt| {
        let driver = term.as_ref().map(|term| &term.driver);
        driver.is_some_and(|driver| driver.view(|engine| engine.is_leased(attempt)))
    };
    state.lease_log.sweep(old, now, is_held);
}

fn version_of_event(latest_event: u64) -> String {
    format!("e{latest_event}")
}

async fn take(state: &State, changes: u64, last: Option<&Snapshot>) -> Result<Snapshot, ApiError> {
    let latest_event = *state.store.latest_event().borrow();
    let stats = match stats::stats(state) {
        // Pages show the disk only while its space is low: other changes of it need no new page.
        Ok(stats) => Some(Stats { disk: stats.disk.filter(|disk| disk.is_low()), ..stats }),
        Err(ApiError::NotLeading) => None,
        Err(error) => return Err(error),
    };
    let workers = workers::summaries(state);
    let slots = slots(state, &workers);
    let running = jobs(state, JobState::Running, SHOWN_RUNNING).await?;
    let (stuck, failed) = (stuck(state).await?, failed(state).await?);
    let content = fingerprint(stats.as_ref(), &workers, latest_event);
    let version = match last {
        Some(last) if last.content == content => last.version,
        Some(last) => last.version + 1,
        None => 1,
    };
    Ok(Snapshot {
        taken: Instant::now(),
        changes,
        content,
        version,
        latest_event,
        stats,
        workers,
        slots,
        running,
        stuck,
        failed,
    })
}

fn slots(state: &State, workers: &[WorkerSummary]) -> (u64, u64) {
    let (busy, all) = slots_of(workers);
    let simulated = state.role.term().map_or((0, 0), |term| (term.simulated.busy(), term.simulated.count()));
    let all = all.saturating_add(simulated.1);
    (busy.saturating_add(simulated.0).min(all), all)
}

/// Busy slots and all slots. Slots of a worker that gets no leases count only while they are busy: they are not free.
fn slots_of(workers: &[WorkerSummary]) -> (u64, u64) {
    let (mut busy, mut all) = (0, 0);
    for worker in workers {
        let its_busy = worker.running.max(worker.busy.min(worker.slots));
        let its_all = if worker.state == WorkerState::Ready { worker.slots } else { its_busy };
        busy += u64::from(its_busy);
        all += u64::from(its_all);
    }
    (busy, all)
}

/// Jobs that no worker can run, one for each set of requirements.
async fn stuck(state: &State) -> Result<Vec<Job>, ApiError> {
    let Some(term) = state.role.term() else { return Ok(Vec::new()) };
    let mut stuck = Vec::new();
    for id in term.driver.view(|engine| engine.unserved(SHOWN_STUCK)) {
        let record = state.store.job_if_readable(id).await.map_err(from_read)?;
        stuck.extend(record.filter(|record| !record.state.is_over()).map(|record| state.view(record)));
    }
    Ok(stuck)
}

/// The jobs that failed last, by the time of their failure.
async fn failed(state: &State) -> Result<Vec<Failures>, ApiError> {
    let lately = now().at.checked_sub(FAILED_LATELY).unwrap_or(Timestamp::MIN);
    let heard_of = state.role.term().map(|term| term.driver.failed_lately()).unwrap_or_default();
    let mut failed = records(state, JobState::Failed, LOOKED_AT_FAILED).await?;
    let is_more = failed.len() == LOOKED_AT_FAILED;
    for id in heard_of {
        if failed.iter().any(|record| record.id == id) {
            continue;
        }
        // The job may have been retried or forgotten.
        let record = state.store.job_if_readable(id).await.map_err(from_read)?;
        failed.extend(record.filter(|record| record.state == JobState::Failed));
    }
    failed.retain(|record| record.finished_at.is_some_and(|at| at >= lately));
    failed.sort_by_key(|record| Reverse(record.finished_at));
    let by_reason = by_reason(failed).into_iter().take(SHOWN_REASONS);
    Ok(by_reason.map(|(newest, others)| Failures { newest: state.view(newest), others, is_more }).collect())
}

/// The first job for each kind and error, and the number of others with the same.
fn by_reason(failed: Vec<JobRecord>) -> Vec<(JobRecord, u64)> {
    let mut reasons: Vec<(JobRecord, u64)> = Vec::new();
    for record in failed {
        let is_same = |(first, _): &&mut (JobRecord, u64)| first.kind == record.kind && first.error == record.error;
        match reasons.iter_mut().find(is_same) {
            Some((_, others)) => *others += 1,
            None => reasons.push((record, 0)),
        }
    }
    reasons
}

async fn jobs(state: &State, of: JobState, limit: usize) -> Result<Vec<Job>, ApiError> {
    Ok(state.views(records(state, of, limit).await?, &[of]))
}

async fn records(state: &State, of: JobState, limit: usize) -> Result<Vec<JobRecord>, ApiError> {
    let filter = JobFilter { states: vec![of], ..JobFilter::default() };
    state.store.jobs(filter, None, limit).await.map_err(from_read)
}

/// A hash of the content of the pages, so that no page reloads while nothing changes.
fn fingerprint(stats: Option<&Stats>, workers: &[WorkerSummary], latest_event: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    latest_event.hash(&mut hasher);
    serde_json::to_vec(&stats).unwrap_or_default().hash(&mut hasher);
    for worker in workers {
        (&worker.id, worker.busy, worker.running, worker.completed_tasks).hash(&mut hasher);
        matches!(worker.state, WorkerState::Ready).hash(&mut hasher);
        matches!(worker.state, WorkerState::Draining).hash(&mut hasher);
        worker.suspension.as_ref().map(|suspension| &suspension.reason).hash(&mut hasher);
        // Steps of 5 %, and of a second once a heartbeat is late.
        #[expect(clippy::cast_possible_truncation, reason = "a share of 20")]
        let load = (worker.cpu_load * 20.0) as i32;
        (load, worker.last_seen_ms_ago.saturating_sub(1_000) / 1_000).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_a_worker_that_gets_no_leases_are_not_free() {
        let worker = |state: WorkerState, busy: u32| -> WorkerSummary {
            let worker = serde_json::json!({
                "id": "one", "delivery": "pushed", "slots": 4, "busy": busy, "running": 0, "last_seen_ms_ago": 0,
                "state": state, "completed_tasks": 0, "cpu_load": 0.0, "free_memory_bytes": 0, "labels": {},
                "resources": {"cpus": 0, "memory_bytes": 0}, "kinds": [], "version": "",
            });
            serde_json::from_value(worker).expect("a worker")
        };
        let workers = [(WorkerState::Ready, 1), (WorkerState::Draining, 3), (WorkerState::Suspended, 0)];
        let workers = workers.map(|(state, busy)| worker(state, busy));
        assert_eq!(slots_of(&workers), (4, 7));
        // The worker holds one more lease than it has slots: that lease waits for a slot.
        assert_eq!(slots_of(&[worker(WorkerState::Ready, 5)]), (4, 4));
    }

    #[test]
    fn a_snapshot_is_outdated_until_another_one_is_made() {
        let dashboard = Dashboard::new();
        let changes = || dashboard.changes.load(Ordering::Relaxed);
        let taken = |changes| Snapshot {
            // It is as young for as long as the test runs.
            taken: Instant::now() + Duration::from_hours(1),
            changes,
            content: 0,
            version: 1,
            latest_event: 0,
            stats: None,
            workers: Vec::new(),
            slots: (0, 0),
            running: Vec::new(),
            stuck: Vec::new(),
            failed: Vec::new(),
        };
        let before = taken(changes());
        assert!(before.is_fresh(changes()));
        dashboard.outdate();
        // The first read may fail.
        for _ in 0..2 {
            assert!(!before.is_fresh(changes()));
        }
        assert!(taken(changes()).is_fresh(changes()));
    }
}
