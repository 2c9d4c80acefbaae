//! Jobs at their submission and as they are read.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use model::{AttemptId, JobId, JobKind, JobOptions, JobState, Payloads};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::stored::{InvalidStored, invalid};
use crate::verified::Verified;

/// A job to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Kind of the job.
    pub kind: JobKind,
    /// Whether each task has a state and a result of its own, so that its attempts are kept.
    pub is_individual: bool,
    /// The payloads of the tasks; empty for kinds whose tasks have none.
    pub payloads: Payloads,
    /// Options of the job.
    pub options: JobOptions,
    /// The job's public parameters: `{"count": n}` for individual tasks.
    pub params: Box<RawValue>,
    /// Number of tasks.
    pub tasks: u64,
    /// Hash of the request's body, by which a repetition is distinguished from another job.
    pub fingerprint: [u8; 32],
    /// The client's name for the request.
    pub idempotency_key: Option<String>,
    /// Time of the submission.
    pub submitted_at: Timestamp,
}

impl NewJob {
    /// The job after its acceptance.
    #[must_use]
    pub fn accepted(&self) -> UnfinishedJob {
        let record = JobRecord {
            id: self.id,
            kind: self.kind,
            params: self.params.clone(),
            options: self.options.clone(),
            state: JobState::Queued,
            tasks: self.tasks,
            tasks_done: 0,
            tasks_failed: 0,
            value: 0,
            check: 0,
            submitted_at: self.submitted_at,
            started_at: None,
            finished_at: None,
            retried_at: None,
            attempts: 0,
            error: None,
            verified: Verified::default(),
        };
        UnfinishedJob { record, done: Vec::new(), failed: Vec::new(), retries: Vec::new() }
    }
}

/// Result of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    /// The job is stored.
    New,
    /// The job that was accepted before for the same request.
    Existing(JobId),
}

/// A job as it is stored.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Kind of the job.
    pub kind: JobKind,
    /// The job's public parameters.
    pub params: Box<RawValue>,
    /// Options of the job.
    pub options: JobOptions,
    /// State of the job.
    pub state: JobState,
    /// Number of tasks.
    pub tasks: u64,
    /// Tasks that succeeded.
    pub tasks_done: u64,
    /// Tasks out of attempts.
    pub tasks_failed: u64,
    /// Sum of the tasks' values, modulo 2^128.
    pub value: u128,
    /// Sum of the values of repeated computations, modulo 2^128.
    pub check: u128,
    /// Time of the submission.
    pub submitted_at: Timestamp,
    /// Time of the first lease.
    pub started_at: Option<Timestamp>,
    /// Time of the end.
    pub finished_at: Option<Timestamp>,
    /// Time of the last retry, from which the time limit runs.
    pub retried_at: Option<Timestamp>,
    /// Attempts that have ended, completed or failed.
    pub attempts: u64,
    /// Error of a failed job; of any other job, a fault that did not end it.
    pub error: Option<String>,
    /// Verification of the job, and its attempts that reached their time limit.
    pub verified: Verified,
}

impl JobRecord {
    /// Start of the job's time limit: the last retry, else the submission.
    #[must_use]
    pub fn timed_since(&self) -> Timestamp {
        self.retried_at.unwrap_or(self.submitted_at)
    }

    /// The record, if its counts of tasks are possible: for a store that reads them from columns.
    ///
    /// # Errors
    /// The counts are impossible.
    pub fn checked(self) -> Result<Self, InvalidStored> {
        let (what, Self { tasks, tasks_done, tasks_failed, .. }) = ("a job's number of tasks", &self);
        if *tasks == 0 {
            return Err(invalid(what, "it has none"));
        }
        match tasks_done.checked_add(*tasks_failed) {
            Some(over) if over <= *tasks => Ok(self),
            _ => Err(invalid(what, format!("of {tasks}, {tasks_done} are done and {tasks_failed} failed"))),
        }
    }
}

/// A job that is not over, for a coordinator that takes it up again.
#[derive(Clone, Debug)]
pub struct UnfinishedJob {
    /// The job.
    pub record: JobRecord,
    /// Tasks that succeeded or are out of attempts: disjoint, ascending, never adjacent.
    pub done: Vec<Range<u64>>,
    /// Tasks of `done` that are out of attempts: disjoint, ascending, never adjacent.
    pub failed: Vec<Range<u64>>,
    /// Tasks that will be tried again, with their failures: disjoint, ascending.
    pub retries: Vec<(Range<u64>, u32)>,
}

impl UnfinishedJob {
    /// Checks the runs of tasks: no run is empty, ends beyond the last task or overlaps another one. Call it after
    /// [`Self::add_failed_to_done`].
    ///
    /// # Errors
    /// The runs break a rule.
    pub fn check(&self) -> Result<(), InvalidStored> {
        let what = "a job's runs of tasks";
        let mut runs: Vec<_> = self.done.iter().chain(self.retries.iter().map(|(tasks, _)| tasks)).collect();
        runs.sort_unstable_by_key(|tasks| tasks.start);
        if let Some(run) = runs.iter().find(|run| run.is_empty()) {
            return Err(invalid(what, format!("{run:?} is empty")));
        }
        if let Some(run) = runs.last().filter(|run| run.end > self.record.tasks) {
            return Err(invalid(what, format!("{run:?} is beyond the last task of {}", self.record.tasks)));
        }
        match runs.windows(2).find(|pair| pair[0].end > pair[1].start) {
            Some(pair) => Err(invalid(what, format!("{:?} and {:?} overlap", pair[0], pair[1]))),
            None => Ok(()),
        }
    }

    /// Counts the tasks that are out of attempts as done, too: for a store whose `done` lacks them so far.
    pub fn add_failed_to_done(&mut self) {
        if self.failed.is_empty() {
            return;
        }
        self.done.extend_from_slice(&self.failed);
        self.done.sort_unstable_by_key(|tasks| tasks.start);
        self.done.dedup_by(|next, last| {
            let are_one = next.start == last.end;
            if are_one {
                last.end = next.end;
            }
            are_one
        });
    }
}

/// Most tags in a [`JobFilter`]: as many as a job can have.
pub const MAX_FILTER_TAGS: usize = 32;

/// A filter of jobs. An empty filter finds all jobs.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// States, of which a job must have one.
    pub states: Vec<JobState>,
    /// Kind that a job must have.
    pub kind: Option<JobKind>,
    /// Tags that a job must have, at most [`MAX_FILTER_TAGS`]; a tag without a value matches any value.
    pub tags: Vec<(String, Option<String>)>,
}

/// End of a page of jobs: the next page begins with the job submitted before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Time at which the page's last job was submitted.
    pub submitted_at: Timestamp,
    /// Its id.
    pub id: JobId,
}

/// A text that is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a list of jobs")]
pub struct InvalidCursor;

impl From<&JobRecord> for Cursor {
    fn from(job: &JobRecord) -> Self {
        Self { submitted_at: job.submitted_at, id: job.id }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.submitted_at.as_nanosecond(), self.id.0.simple())
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, id) = text.split_once('.').ok_or(InvalidCursor)?;
        let time = time.parse().ok().and_then(|time| Timestamp::from_nanosecond(time).ok());
        let id = Uuid::try_parse(id).map(JobId).map_err(|_| InvalidCursor)?;
        Ok(Self { submitted_at: time.ok_or(InvalidCursor)?, id })
    }
}

/// An attempt at consecutive individual tasks.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The tasks.
    pub tasks: Range<u64>,
    /// The worker of the attempt; empty where the tasks were skipped.
    pub worker: String,
    /// End of the attempt.
    pub end: AttemptEnd,
}

impl Attempt {
    /// Whether the tasks were skipped: they are done without a worker.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        matches!(self.end, AttemptEnd::Completed { .. }) && self.worker.is_empty()
    }
}

/// End of an attempt.
#[derive(Clone, Debug)]
pub enum AttemptEnd {
    /// The attempt's tasks are done.
    Completed {
        /// Its id.
        attempt: AttemptId,
        /// Time of the lease.
        allocated_at: Timestamp,
        /// Time at which the worker began.
        running_at: Timestamp,
        /// Time at which the tasks were done.
        completed_at: Timestamp,
        /// The worker's answers to the tasks, in order; empty if it had none.
        results: Vec<Box<RawValue>>,
    },
    /// The attempt failed.
    Failed {
        /// Time of the failure.
        at: Timestamp,
        /// The error.
        error: String,
        /// Number of failures of the tasks up to this attempt.
        failures: u32,
        /// Whether they are out of attempts.
        given_up: bool,
        /// Failures before this one that are not kept.
        omitted: u64,
    },
}

/// A job's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// Id of the job.
    pub job: JobId,
    /// The result: JSON in UTF-8.
    pub json: Bytes,
}

/// Amounts that were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs.
    pub jobs: u64,
    /// Bytes of the jobs.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_cursor_is_refused() {
        for text in
            ["", "1", "1.", ".1", "x.0192e4a0000000000000000000000000", "1.0192e4a0", "9999999999999999999999999999.0"]
        {
            assert!(Cursor::from_str(text).is_err(), "{text}");
        }
    }
}
