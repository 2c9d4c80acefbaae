//! The stderr of programs: shown while they run, stored when they have ended. Each change has a number, so that a client which
//! follows asks for later changes and waits for them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{LogReport, MAX_LOG_BYTES};
use model::{AttemptId, JobId};
use store::{Store, WriteError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::clock::now;
use crate::driver::Driver;

/// Running programs whose stderr is shown; the stderr of others is shown when they have ended.
const MAX_LIVE_LOGS: usize = 1_024;

/// A live log without a report for this time gives its place to another one: a worker reports new output.
const LIVE_FOR: Duration = Duration::from_secs(30);

/// A program without a lease and without a last report for this time ended with its worker: its log is stored as it is. A live
/// worker sends the last report immediately, and an attempt that a new leader does not know yet is adopted sooner.
const ABANDONED_AFTER: Duration = Duration::from_secs(3);

/// Interval between checks for logs without a lease.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of logs that one coordinator keeps of one job.
const MAX_JOB_LOG_BYTES: u64 = 64 << 20;

/// Jobs whose logs are counted.
const MAX_COUNTED_JOBS: usize = 10_000;

/// Ended attempts that are remembered for clients that follow; a client that is further behind reads all logs again.
const MAX_ENDED: usize = 4_096;

/// An attempt at a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskAttempt {
    pub(crate) job: JobId,
    pub(crate) task: u64,
    pub(crate) id: AttemptId,
}

/// The stderr of programs that run or have just ended.
#[derive(Debug, Default)]
pub(crate) struct TaskLogs(Mutex<Logs>);

/// A changed log.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The log of a running program.
    Live(api::TaskLog),
    /// The log was stored.
    Stored(TaskAttempt),
}

#[derive(Debug, Default)]
struct Logs {
    live: HashMap<TaskAttempt, Live>,
    /// Bytes that are kept of each job.
    kept: HashMap<JobId, u64>,
    /// The latest attempts that ended, with the number of the change.
    ended: VecDeque<(u64, TaskAttempt)>,
    /// The attempts of `ended`: a worker that does not know of the end reports once more.
    stored: HashSet<TaskAttempt>,
    /// Attempts whose logs are on their way into the store.
    storing: HashSet<TaskAttempt>,
    /// The newest change that is no longer in `ended`.
    forgotten: u64,
    newest: u64,
    followers: HashMap<JobId, watch::Sender<()>>,
    /// The latest attempts whose logs were stored without a last report: a worker that was wrongly taken for lost may still
    /// send one.
    abandoned: VecDeque<TaskAttempt>,
}

#[derive(Debug)]
struct Live {
    changed: u64,
    worker: String,
    offset: u64,
    text: String,
    seen_at: Instant,
    /// The time since which its attempt is known to hold no lease.
    unleased_since: Option<Instant>,
}

/// Stores the logs of attempts that ended without a last report: their worker was killed or lost. Runs for ever.
pub(crate) async fn keep_abandoned(logs: Arc<TaskLogs>, store: Arc<Store>, driver: Arc<Driver>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (attempt, live) in logs.take_abandoned(&driver, Instant::now()) {
            logs.store_abandoned(attempt, live, &store).await;
        }
    }
}

impl TaskLogs {
    /// Notes the stderr of an attempt; keeps it if the program has ended.
    pub(crate) async fn report(
        &self,
        attempt: TaskAttempt,
        report: LogReport,
        store: &Store,
    ) -> Result<(), WriteError> {
        let LogReport { worker, offset, text, is_final } = report;
        let cut = text.len().saturating_sub(MAX_LOG_BYTES);
        let start = (cut..=text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len());
        let (offset, text, worker) = (offset + start as u64, text[start..].to_owned(), worker.as_str().to_owned());
        if self.logs().has_ended(&attempt) {
            return Ok(());
        }
        if !is_final {
            self.logs().show(attempt, worker, offset, text);
            return Ok(());
        }
        self.store(attempt, worker, offset, text, store).await
    }

    /// Keeps the log of an attempt that has ended.
    async fn store(
        &self,
        attempt: TaskAttempt,
        worker: String,
        omitted_bytes: u64,
        text: String,
        store: &Store,
    ) -> Result<(), WriteError> {
        let bytes = text.len() as u64;
        let Some(_storing) = self.begin_to_store(attempt, bytes)? else { return Ok(()) };
        let (ended_at, TaskAttempt { job, task, id }) = (now().at, attempt);
        let stored =
            store.put_log(store::TaskLog { job, task, attempt: id, worker, ended_at, omitted_bytes, text }).await;
        match &stored {
            Ok(()) => self.logs().note_stored(attempt),
            // The worker may report the log again.
            Err(_) => self.logs().uncount(job, bytes),
        }
        stored
    }

    /// Stores the log of an attempt that ended without a last report. Where nothing can be stored, the next sweep tries again.
    async fn store_abandoned(&self, attempt: TaskAttempt, live: Live, store: &Store) {
        let (worker, text) = (live.worker.clone(), live.text.clone());
        match self.store(attempt, worker, live.offset, text, store).await {
            Ok(()) => self.logs().note_abandoned(attempt),
            Err(error) => {
                debug!(%error, job_id = %attempt.job, task = attempt.task, "the log of a lost attempt is not stored");
                if !matches!(error, WriteError::Refused(_) | WriteError::Corrupt(_)) {
                    self.logs().put_back(attempt, live);
                }
            }
        }
    }

    /// Begins to store a log; `None` for a log that is not to be stored, or not once more.
    ///
    /// # Errors
    /// The log is on its way into the store, which may still fail: its worker has to ask again.
    fn begin_to_store(&self, attempt: TaskAttempt, bytes: u64) -> Result<Option<Storing<'_>>, WriteError> {
        let mut logs = self.logs();
        if logs.storing.contains(&attempt) {
            return Err(WriteError::InDoubt);
        }
        if logs.stored.contains(&attempt) || !logs.is_kept(attempt, bytes) {
            return Ok(None);
        }
        logs.storing.insert(attempt);
        Ok(Some(Storing { logs: self, attempt }))
    }

    /// Takes the logs whose attempts have held no lease for [`ABANDONED_AFTER`].
    fn take_abandoned(&self, driver: &Driver, now: Instant) -> Vec<(TaskAttempt, Live)> {
        let attempts: Vec<TaskAttempt> = self.logs().live.keys().copied().collect();
        if attempts.is_empty() {
            return Vec::new();
        }
        // The engine is read while the logs are not locked.
        let leased: HashSet<AttemptId> = driver.view(|engine| {
            let ids = attempts.iter().map(|attempt| attempt.id);
            ids.filter(|id| engine.is_leased(*id)).collect()
        });
        self.logs().take_unleased(&leased, now)
    }

    /// The stderr of running programs so far, by task.
    pub(crate) fn live(&self, job: JobId, tasks: &Range<u64>) -> Vec<api::TaskLog> {
        let logs = self.logs();
        let mut live: Vec<_> = logs.live_of(job, tasks).map(|(attempt, live)| live.view(*attempt)).collect();
        live.sort_unstable_by_key(|log| (log.task, log.attempt));
        live
    }

    /// The number of the newest change of any job.
    pub(crate) fn newest(&self) -> u64 {
        self.logs().newest
    }

    /// The changes after number `after`, in their order; `None` where some of them are forgotten.
    pub(crate) fn changes(&self, job: JobId, tasks: &Range<u64>, after: u64) -> Option<Vec<(u64, Changed)>> {
        let logs = self.logs();
        if after < logs.forgotten || after > logs.newest {
            return None;
        }
        let live = logs.live_of(job, tasks).filter(|(_, live)| live.changed > after);
        let live = live.map(|(attempt, live)| (live.changed, Changed::Live(live.view(*attempt))));
        let ended = logs.ended.iter().rev().take_while(|(changed, _)| *changed > after);
        let ended = ended.filter(|(_, attempt)| attempt.job == job && tasks.contains(&attempt.task));
        let mut changes: Vec<_> =
            live.chain(ended.map(|(changed, attempt)| (*changed, Changed::Stored(*attempt)))).collect();
        changes.sort_unstable_by_key(|(changed, _)| *changed);
        Some(changes)
    }

    /// Wakes at each change of a job's logs from now on.
    pub(crate) fn follow(&self, job: JobId) -> watch::Receiver<()> {
        let mut logs = self.logs();
        logs.followers.retain(|_, follower| !follower.is_closed());
        logs.followers.entry(job).or_default().subscribe()
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log on its way into the store, until this is dropped.
struct Storing<'a> {
    logs: &'a TaskLogs,
    attempt: TaskAttempt,
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.logs.logs().storing.remove(&self.attempt);
    }
}

impl Logs {
    /// Whether the log of an attempt is stored, or was given up: later reports come too late.
    fn has_ended(&self, attempt: &TaskAttempt) -> bool {
        self.stored.contains(attempt) || self.abandoned.contains(attempt)
    }

    fn live_of(&self, job: JobId, tasks: &Range<u64>) -> impl Iterator<Item = (&TaskAttempt, &Live)> {
        self.live.iter().filter(move |(attempt, _)| attempt.job == job && tasks.contains(&attempt.task))
    }

    fn show(&mut self, attempt: TaskAttempt, worker: String, offset: u64, text: String) {
        if self.live.len() >= MAX_LIVE_LOGS && !self.live.contains_key(&attempt) {
            self.live.retain(|_, live| live.seen_at.elapsed() < LIVE_FOR);
            if self.live.len() >= MAX_LIVE_LOGS {
                return;
            }
        }
        let changed = self.change(attempt.job);
        let unleased_since = self.live.get(&attempt).and_then(|live| live.unleased_since);
        self.live.insert(attempt, Live { changed, worker, offset, text, seen_at: Instant::now(), unleased_since });
    }

    fn take_unleased(&mut self, leased: &HashSet<AttemptId>, now: Instant) -> Vec<(TaskAttempt, Live)> {
        let is_abandoned = |attempt: &TaskAttempt, live: &mut Live| {
            if leased.contains(&attempt.id) {
                live.unleased_since = None;
                return false;
            }
            now.duration_since(*live.unleased_since.get_or_insert(now)) >= ABANDONED_AFTER
        };
        self.live.extract_if(is_abandoned).collect()
    }

    fn note_abandoned(&mut self, attempt: TaskAttempt) {
        if self.abandoned.len() >= MAX_LIVE_LOGS {
            self.abandoned.pop_front();
        }
        self.abandoned.push_back(attempt);
    }

    /// Shows a log again that could not be stored, unless its worker has reported it meanwhile.
    fn put_back(&mut self, attempt: TaskAttempt, live: Live) {
        if self.live.len() < MAX_LIVE_LOGS && !self.has_ended(&attempt) {
            self.live.entry(attempt).or_insert(live);
        }
    }

    /// Whether a log that has ended is to be stored.
    fn is_kept(&mut self, attempt: TaskAttempt, bytes: u64) -> bool {
        self.live.remove(&attempt);
        if self.kept.len() >= MAX_COUNTED_JOBS {
            self.kept.clear();
        }
        let kept = self.kept.entry(attempt.job).or_default();
        let fits = *kept + bytes <= MAX_JOB_LOG_BYTES;
        if fits {
            *kept += bytes;
        }
        fits
    }

    /// Takes back the count of a log that was not stored after all.
    fn uncount(&mut self, job: JobId, bytes: u64) {
        if let Some(kept) = self.kept.get_mut(&job) {
            *kept = kept.saturating_sub(bytes);
        }
    }

    fn note_stored(&mut self, attempt: TaskAttempt) {
        // A report of the running program may have come late.
        self.live.remove(&attempt);
        let changed = self.change(attempt.job);
        self.ended.push_back((changed, attempt));
        self.stored.insert(attempt);
        if self.ended.len() > MAX_ENDED
            && let Some((changed, attempt)) = self.ended.pop_front()
        {
            self.forgotten = changed;
            self.stored.remove(&attempt);
        }
    }

    /// The number of a new change.
    fn change(&mut self, job: JobId) -> u64 {
        self.newest += 1;
        if let Some(follower) = self.followers.get(&job) {
            follower.send_replace(());
        }
        self.newest
    }
}

impl Live {
    fn view(&self, attempt: TaskAttempt) -> api::TaskLog {
        api::TaskLog {
            task: attempt.task,
            attempt: attempt.id,
            worker: self.worker.clone(),
            omitted_bytes: self.offset,
            text: self.text.clone(),
            ended_at: None,
        }
    }
}

#[cfg(test)]
mod tests;
