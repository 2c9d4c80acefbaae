//! The effect of a change on a job: spans, counts, states, events and rows. Pure code that all stores share, so that they decide
//! alike. A change is applied as a whole or refused as a whole.

mod effects;
mod failures;
mod ledger;
mod ledgers;
mod pieces;

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use model::{AttemptId, Counts, EventKind, JobState};

use crate::change::{Change, ChangeKind, CompletedAttempt, ResultBody};
use crate::retention::{EVENT_BYTES, failure_bytes, outcome_bytes};
use crate::spans::Spans;
use crate::statistics::Subject;
use crate::verified::Verified;

pub use effects::{
    AttemptRow, Effects, EventRow, FailureRow, ResultEffect, RowTasks, canceled_unread, result_bytes, submitted,
    without_effect,
};
pub use failures::{KeptFailure, OmittedFailures, omit_failures};
pub use ledgers::Ledgers;
pub use pieces::{ATTEMPT_TASKS, pieces};

/// Kept failures of the attempts that begin at the same task: the first of them.
pub const FIRST_FAILURES: usize = 1;
/// The last of them. A task that fails for ever takes no more room than these.
pub const LAST_FAILURES: usize = 8;

/// Bytes of an entry for a worker that was set aside in the job's row, beside its name.
const SET_ASIDE_BYTES: u64 = 128;
/// Bytes of an attempt in the job's list of timed-out attempts.
const TIMED_OUT_BYTES: u64 = 40;

/// State of a run of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanKind {
    /// The tasks succeeded.
    Done,
    /// The tasks are out of attempts.
    Failed,
    /// The tasks will be tried again after some failures.
    Retry,
}

/// A store's knowledge of a job that it changes.
#[derive(Clone, Debug)]
pub struct JobLedger {
    /// Key of the job's figures in the statistics.
    pub subject: Subject,
    /// Whether the job's attempts are kept.
    pub is_individual: bool,
    /// State of the job.
    pub state: JobState,
    /// Number of tasks.
    pub tasks: u64,
    /// Sum of the tasks' values, modulo 2^128.
    pub value: u128,
    /// Sum of the values of repeated computations, modulo 2^128.
    pub check: u128,
    /// Attempts that have ended.
    pub attempts: u64,
    /// Time of the first lease.
    pub started_at: Option<Timestamp>,
    /// Time of the end.
    pub finished_at: Option<Timestamp>,
    /// Time of the last retry.
    pub retried_at: Option<Timestamp>,
    /// Error of a failed job; of any other job, a fault that did not end it.
    pub error: Option<String>,
    /// Figures that the job's next event adds to the statistics.
    pub uncounted: Counts,
    /// Verification of the job, and its attempts that reached their time limit.
    pub verified: Verified,
    bytes: u64,
    done: Spans,
    failed: Spans,
    retries: Spans,
}

/// A change that contradicts stored state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl JobLedger {
    /// Makes a change, and returns the rows that it brings.
    ///
    /// # Errors
    /// The change contradicts stored state: nothing has changed.
    pub fn apply<'a>(&mut self, change: &'a Change) -> Result<Effects<'a>, Refused> {
        let at = change.at;
        if self.state.is_over() && !matches!(change.kind, ChangeKind::Retried) {
            return Ok(without_effect(change));
        }
        match &change.kind {
            ChangeKind::Started => Ok(self.started(at)),
            ChangeKind::Paused if self.state == JobState::Paused => Ok(Effects::default()),
            ChangeKind::Paused => {
                self.state = JobState::Paused;
                Ok(self.event(EventKind::Paused, at, None))
            }
            ChangeKind::Resumed if self.state != JobState::Paused => Ok(Effects::default()),
            ChangeKind::Resumed => {
                self.state = self.going_on();
                Ok(self.event(EventKind::Resumed, at, None))
            }
            ChangeKind::Canceled => Ok(self.end(JobState::Canceled, at, None)),
            ChangeKind::Completed { tasks, value, busy, outcome } => {
                self.completed(tasks, *value, *busy, outcome.as_ref())
            }
            ChangeKind::Checked { tasks, value, busy } => {
                self.demand_open(tasks)?;
                self.check = self.check.wrapping_add(*value);
                self.note_done(tasks, *busy);
                Ok(Effects::default())
            }
            ChangeKind::Reopened { tasks, value, check, notice, worker } => {
                let effects = self.reopened(tasks, (*value, *check), notice, at)?;
                if self.verified.set_aside(worker) {
                    self.bytes += worker.id.as_str().len() as u64 + SET_ASIDE_BYTES;
                }
                Ok(effects)
            }
            ChangeKind::Compared { tasks, others, is_mismatch } => {
                self.compared(tasks, others, *is_mismatch);
                Ok(Effects::default())
            }
            ChangeKind::AttemptFailed { tasks, failures, timed_out, worker, error } => {
                let (tasks, failures) = (tasks.clone(), *failures);
                self.failed(FailureRow { tasks, failures, at, worker, error, given_up: false }, *timed_out)
            }
            ChangeKind::TasksFailed { tasks, failures, timed_out, worker, error } => {
                let (tasks, failures) = (tasks.clone(), *failures);
                self.failed(FailureRow { tasks, failures, at, worker, error, given_up: true }, *timed_out)
            }
            ChangeKind::Progress => Ok(self.event(EventKind::Progress, at, None)),
            ChangeKind::WorkDone { billionths } => {
                self.verified.work_done = Some(*billionths);
                Ok(Effects::default())
            }
            ChangeKind::Retried => Ok(self.retried(at)),
            ChangeKind::Ended { state, result, error } => self.ended(*state, result.as_ref(), error.as_deref(), at),
        }
    }

    fn going_on(&self) -> JobState {
        if self.started_at.is_some() { JobState::Running } else { JobState::Queued }
    }

    fn started(&mut self, at: Timestamp) -> Effects<'static> {
        if self.started_at.is_some() {
            return Effects::default();
        }
        self.started_at = Some(at);
        if self.state == JobState::Queued {
            self.state = JobState::Running;
        }
        self.uncounted.jobs_started += 1;
        self.uncounted.waiting.record(between(self.subject.submitted_at, at));
        self.event(EventKind::Started, at, None)
    }

    /// Refuses tasks that are not open tasks of the job.
    fn demand_open(&self, tasks: &Range<u64>) -> Result<(), Refused> {
        let refused = |what: &str| Err(Refused(format!("tasks {} to {} {what}", tasks.start, tasks.end)));
        if tasks.is_empty() || tasks.end > self.tasks {
            return refused("are not tasks of the job");
        }
        if self.done.overlaps(tasks) {
            return refused("are done in part");
        }
        if self.failed.overlaps(tasks) {
            return refused("are out of attempts in part");
        }
        Ok(())
    }

    fn completed<'a>(
        &mut self,
        tasks: &Range<u64>,
        value: u128,
        busy: Duration,
        outcome: Option<&'a CompletedAttempt>,
    ) -> Result<Effects<'a>, Refused> {
        self.demand_open(tasks)?;
        if let Some(outcome) = outcome {
            let answers = outcome.results.len();
            if answers != 0 && answers as u64 != tasks.end - tasks.start {
                return Err(Refused(format!("{answers} results for tasks {} to {}", tasks.start, tasks.end)));
            }
            let mut results = outcome.results.chunks(ATTEMPT_TASKS as usize);
            let of_piece =
                |_| outcome_bytes(self.subject.kind, outcome.worker_column(), results.next().unwrap_or_default());
            self.bytes += pieces(tasks).map(of_piece).sum::<u64>();
        }
        self.value = self.value.wrapping_add(value);
        self.note_done(tasks, busy);
        let attempt = outcome.map(|outcome| AttemptRow::Completed { tasks: tasks.clone(), outcome });
        Ok(Effects { attempt, ..Effects::default() })
    }

    /// Counts the attempts at a lease that was compared, but for the one whose outcome counts.
    fn compared(&mut self, tasks: &Range<u64>, others: &[Duration], is_mismatch: bool) {
        self.verified.compared += 1;
        self.verified.mismatches += u64::from(is_mismatch);
        let count = others.len() as u64;
        self.attempts += count;
        self.uncounted.attempts += count;
        self.uncounted.task_starts += count * tasks.end.saturating_sub(tasks.start);
        others.iter().for_each(|busy| self.uncounted.computing.record(*busy));
    }

    fn note_done(&mut self, tasks: &Range<u64>, busy: Duration) {
        let count = self.attempted(tasks);
        self.uncounted.tasks_succeeded += count;
        self.uncounted.tasks_pending -= signed(count);
        self.uncounted.computing.record(busy);
        self.retries.remove(tasks);
        self.done.insert(tasks.clone(), 0);
    }

    fn reopened<'a>(
        &mut self,
        tasks: &[Range<u64>],
        (value, check): (u128, u128),
        notice: &'a str,
        at: Timestamp,
    ) -> Result<Effects<'a>, Refused> {
        let mut done = self.done.clone();
        let before = done.tasks();
        for run in tasks {
            if run.is_empty() || !done.covers(run) {
                return Err(Refused(format!("tasks {} to {} are not done", run.start, run.end)));
            }
            done.remove(run);
        }
        let reopened = before - done.tasks();
        self.verified.recomputed_tasks += reopened;
        self.uncounted.tasks_retried += reopened;
        self.uncounted.tasks_pending += signed(reopened);
        self.done = done;
        self.value = self.value.wrapping_sub(value);
        self.check = self.check.wrapping_sub(check);
        // The text stands in the job's row, too.
        self.bytes += notice.len() as u64;
        self.error = Some(notice.to_owned());
        Ok(self.event(EventKind::Progress, at, Some(notice)))
    }

    /// Counts an attempt that has ended. Returns its number of tasks.
    fn attempted(&mut self, tasks: &Range<u64>) -> u64 {
        let count = tasks.end - tasks.start;
        self.attempts += 1;
        self.uncounted.attempts += 1;
        self.uncounted.task_starts += count;
        self.uncounted.tasks_started += count - self.retries.count_of(tasks);
        count
    }

    fn failed<'a>(&mut self, failure: FailureRow<'a>, timed_out: Option<AttemptId>) -> Result<Effects<'a>, Refused> {
        self.demand_open(&failure.tasks)?;
        if timed_out.is_some_and(|attempt| self.verified.time_out(attempt)) {
            self.bytes += TIMED_OUT_BYTES;
        }
        let count = self.attempted(&failure.tasks);
        self.uncounted.attempts_failed += 1;
        let mut effects = Effects::default();
        if failure.given_up {
            self.uncounted.tasks_failed += count;
            self.uncounted.tasks_pending -= signed(count);
            self.retries.remove(&failure.tasks);
            self.failed.insert(failure.tasks.clone(), 0);
            effects = self.event(EventKind::TaskFailed, failure.at, Some(failure.error));
        } else {
            self.retries.insert(failure.tasks.clone(), failure.failures);
        }
        if self.is_individual {
            let rows = pieces(&failure.tasks).count() as u64;
            self.bytes += rows * failure_bytes(failure.worker.len() as u64, failure.error.len() as u64);
            effects.attempt = Some(AttemptRow::Failed(failure));
        }
        Ok(effects)
    }

    fn retried(&mut self, at: Timestamp) -> Effects<'static> {
        if self.state == JobState::Succeeded {
            return Effects::default();
        }
        let mut reopened = self.tasks_failed();
        if self.state.is_over() {
            self.state = self.going_on();
            reopened = self.tasks - self.tasks_done();
            self.uncounted.jobs_pending += 1;
        }
        self.uncounted.jobs_retried += 1;
        self.uncounted.tasks_retried += reopened;
        self.uncounted.tasks_pending += signed(reopened);
        self.failed.clear();
        self.retries.clear();
        self.verified.work_done = None;
        self.finished_at = None;
        self.retried_at = Some(at);
        self.error = None;
        Effects { result: ResultEffect::Drop, ..self.event(EventKind::Retried, at, None) }
    }

    fn ended<'a>(
        &mut self,
        state: JobState,
        result: Option<&'a ResultBody>,
        error: Option<&'a str>,
        at: Timestamp,
    ) -> Result<Effects<'a>, Refused> {
        if !state.is_over() {
            return Err(Refused(format!("a job cannot end as {state}")));
        }
        let (done, tasks) = (self.tasks_done(), self.tasks);
        if state == JobState::Succeeded && done != tasks {
            return Err(Refused(format!("{done} of {tasks} tasks are done: the job has not succeeded")));
        }
        if state == JobState::Succeeded {
            // The job cannot be retried, so none of its attempts can count again.
            let timed_out = std::mem::take(&mut self.verified.timed_out);
            self.freed(TIMED_OUT_BYTES * timed_out.len() as u64);
        }
        let mut effects = self.end(state, at, error);
        if let Some(result) = result {
            self.bytes += result_bytes(result);
            effects.result = ResultEffect::Put(result);
        }
        Ok(effects)
    }

    fn end<'a>(&mut self, state: JobState, at: Timestamp, error: Option<&'a str>) -> Effects<'a> {
        self.state = state;
        self.finished_at = Some(at);
        // An earlier fault stays unless the end has an error.
        self.error = error.map(str::to_owned).or_else(|| self.error.take());
        // The text stands in the job's row, too.
        self.bytes += error.map_or(0, str::len) as u64;
        let open = self.tasks - self.tasks_done() - self.tasks_failed();
        let counts = &mut self.uncounted;
        counts.jobs_pending -= 1;
        counts.tasks_canceled += open;
        counts.tasks_pending -= signed(open);
        if let Some(started_at) = self.started_at {
            counts.running.record(between(self.retried_at.map_or(started_at, |at| at.max(started_at)), at));
        }
        let (kind, ended) = match state {
            JobState::Succeeded => (EventKind::Succeeded, &mut counts.jobs_succeeded),
            JobState::Canceled => (EventKind::Canceled, &mut counts.jobs_canceled),
            JobState::Queued | JobState::Running | JobState::Paused | JobState::Failed => {
                (EventKind::Failed, &mut counts.jobs_failed)
            }
        };
        *ended += 1;
        self.event(kind, at, error)
    }

    fn event<'a>(&mut self, kind: EventKind, at: Timestamp, error: Option<&'a str>) -> Effects<'a> {
        self.bytes += EVENT_BYTES + error.map_or(0, str::len) as u64;
        let counts = std::mem::take(&mut self.uncounted);
        let (tasks_done, tasks_total) = (self.tasks_done(), self.tasks);
        let event = EventRow { kind, at, tasks_done, tasks_total, error, source: None, counts };
        Effects { event: Some(event), ..Effects::default() }
    }
}

/// A number of tasks as a change of the pending tasks. A job has at most 2^53 tasks.
fn signed(tasks: u64) -> i64 {
    i64::try_from(tasks).unwrap_or(i64::MAX)
}

/// The time between two moments; zero if the clock was set back.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
