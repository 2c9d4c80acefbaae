//! Results that are put together from the results of single tasks: side by side, each with retries of its own.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use model::JobId;
use scheduler::IdMap;

use crate::effect::Effect;

/// Compositions at the same time: each reads and writes its job's results once.
const MAX_RUNNING: usize = 4;

/// Pause after a first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The reason why a result is late or will never exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComposeFailure {
    /// The store could not be read or written: the caller tries again.
    Unavailable(String),
    /// The results cannot be put together.
    Permanent(String),
}

#[derive(Debug, Default)]
pub(crate) struct Composing {
    jobs: IdMap<JobId, ComposingJob>,
    waiting: VecDeque<JobId>,
    retries: BTreeSet<(Instant, JobId)>,
    running: usize,
}

#[derive(Debug, Default)]
struct ComposingJob {
    is_running: bool,
    /// Whether the running composition was canceled: its outcome is ignored.
    is_canceled: bool,
    /// Whether the result was asked for again since: the composition starts over when the ignored run has ended.
    is_wanted_again: bool,
    failures: u32,
    error: Option<String>,
}

impl Composing {
    pub(crate) fn start(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        match self.jobs.get_mut(&job) {
            Some(progress) if progress.is_running => progress.is_wanted_again = true,
            Some(_) => (),
            None => self.enqueue(job),
        }
        self.start_waiting(effects);
    }

    /// Ends a job's composition. Returns whether there was one.
    pub(crate) fn cancel(&mut self, job: JobId) -> bool {
        let Some(progress) = self.jobs.get_mut(&job) else { return false };
        if progress.is_running {
            // A request since an earlier cancellation is canceled, too.
            let was_wanted = std::mem::take(&mut progress.is_wanted_again);
            return !std::mem::replace(&mut progress.is_canceled, true) || was_wanted;
        }
        self.jobs.remove(&job);
        self.waiting.retain(|waiting| *waiting != job);
        self.retries.retain(|(_, retried)| *retried != job);
        true
    }

    /// A composition has ended. Returns whether its outcome counts: the job was not canceled meanwhile.
    pub(crate) fn ended(&mut self, job: JobId, effects: &mut Vec<Effect>) -> bool {
        let counts = self.take_running(job).is_some();
        self.start_waiting(effects);
        counts
    }

    /// A composition has failed and is tried again after a pause.
    pub(crate) fn failed(&mut self, job: JobId, error: String, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(ComposingJob { failures, .. }) = self.take_running(job) {
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
            self.jobs
                .insert(job, ComposingJob { failures: failures + 1, error: Some(error), ..ComposingJob::default() });
            self.retries.insert((now + pause, job));
        }
        self.start_waiting(effects);
    }

    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    pub(crate) fn start_due(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some((at, job)) = self.retries.first().copied()
            && at <= now
        {
            self.retries.remove(&(at, job));
            self.waiting.push_back(job);
        }
        self.start_waiting(effects);
    }

    /// The error of the job's last failed composition, if any; `None` if no composition of the job is under way.
    pub(crate) fn state(&self, job: JobId) -> Option<Option<&str>> {
        let wanted = self.jobs.get(&job).filter(|progress| !progress.is_canceled || progress.is_wanted_again);
        wanted.map(|progress| progress.error.as_deref())
    }

    /// The jobs whose results are being put together.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        let is_wanted = |progress: &ComposingJob| !progress.is_canceled || progress.is_wanted_again;
        self.jobs.iter().filter(move |(_, progress)| is_wanted(progress)).map(|(id, _)| *id)
    }

    /// The error of the last failed attempt to store a result, while one waits for its retry.
    pub(crate) fn failing(&self) -> Option<&str> {
        self.retries.iter().find_map(|(_, job)| self.jobs.get(job)?.error.as_deref())
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Checks that every composition runs, waits or has a timer, and that few run.
    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn check(&self) {
        let running = self.jobs.values().filter(|progress| progress.is_running).count();
        assert_eq!(running, self.running);
        assert!(running <= MAX_RUNNING);
        for (job, progress) in &self.jobs {
            let is_waiting = self.waiting.contains(job);
            let has_timer = self.retries.iter().any(|(_, retried)| retried == job);
            let ways = [progress.is_running, is_waiting, has_timer].into_iter().filter(|way| *way).count();
            assert_eq!(ways, 1, "the composition of {job} has one way to go on");
        }
        assert!(self.waiting.is_empty() || running == MAX_RUNNING, "a composition waits although it could run");
    }

    fn enqueue(&mut self, job: JobId) {
        self.jobs.insert(job, ComposingJob::default());
        self.waiting.push_back(job);
    }

    /// Takes a composition that has ended, unless it was canceled.
    fn take_running(&mut self, job: JobId) -> Option<ComposingJob> {
        let progress = self.jobs.remove(&job)?;
        if !progress.is_running {
            self.jobs.insert(job, progress);
            return None;
        }
        self.running -= 1;
        if !progress.is_canceled {
            return Some(progress);
        }
        if progress.is_wanted_again {
            self.enqueue(job);
        }
        None
    }

    fn start_waiting(&mut self, effects: &mut Vec<Effect>) {
        while self.running < MAX_RUNNING
            && let Some(job) = self.waiting.pop_front()
        {
            let Some(progress) = self.jobs.get_mut(&job) else { continue };
            progress.is_running = true;
            self.running += 1;
            effects.push(Effect::Compose { job });
        }
    }
}
