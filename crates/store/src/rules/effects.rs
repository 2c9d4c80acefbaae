//! The rows that a change brings, for a store to write.

use std::ops::Range;

use jiff::Timestamp;
use model::{Counts, EventKind, EventSource};

use crate::change::{Change, CompletedAttempt, ResultBody};
use crate::record::NewJob;

/// The rows that a change brings.
#[derive(Debug, Default)]
pub struct Effects<'a> {
    /// An event.
    pub event: Option<EventRow<'a>>,
    /// An attempt, to be cut into [`super::pieces`].
    pub attempt: Option<AttemptRow<'a>>,
    /// Effect on the job's result.
    pub result: ResultEffect<'a>,
}

/// An event, whose number the store gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow<'a> {
    /// Kind of the event.
    pub kind: EventKind,
    /// Time of the event.
    pub at: Timestamp,
    /// Tasks that have succeeded.
    pub tasks_done: u64,
    /// Tasks in all.
    pub tasks_total: u64,
    /// Error of a failure.
    pub error: Option<&'a str>,
    /// The record that submitted the job.
    pub source: Option<&'a EventSource>,
    /// Figures that the event adds to the statistics.
    pub counts: Counts,
}

/// The event of a job that was accepted.
#[must_use]
pub fn submitted(new: &NewJob) -> EventRow<'static> {
    let (at, tasks) = (new.submitted_at, new.tasks);
    let counts = Counts {
        jobs_submitted: 1,
        jobs_pending: 1,
        tasks_submitted: tasks,
        tasks_pending: i64::try_from(tasks).unwrap_or(i64::MAX),
        ..Counts::default()
    };
    let (kind, tasks_done, tasks_total) = (EventKind::Submitted, 0, tasks);
    EventRow { kind, at, tasks_done, tasks_total, error: None, source: None, counts }
}

/// The event of a job that is canceled though it cannot be read, from the counts of tasks in its row and the figures that no
/// event has counted yet.
#[must_use]
pub fn canceled_unread(at: Timestamp, why: &str, tasks: RowTasks, uncounted: Counts) -> EventRow<'_> {
    let RowTasks { done, failed, total } = tasks;
    // Impossible counts are left out.
    let open = done.checked_add(failed).map_or(0, |over| total.saturating_sub(over));
    let counts = Counts {
        jobs_canceled: uncounted.jobs_canceled + 1,
        jobs_pending: uncounted.jobs_pending - 1,
        tasks_canceled: uncounted.tasks_canceled + open,
        tasks_pending: uncounted.tasks_pending - i64::try_from(open).unwrap_or(i64::MAX),
        ..uncounted
    };
    let kind = EventKind::Canceled;
    EventRow { kind, at, tasks_done: done, tasks_total: total, error: Some(why), source: None, counts }
}

/// Numbers of a job's tasks as its row has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTasks {
    /// Tasks that have succeeded.
    pub done: u64,
    /// Tasks that are out of attempts.
    pub failed: u64,
    /// Tasks in all.
    pub total: u64,
}

/// An attempt at individual tasks.
#[derive(Debug)]
pub enum AttemptRow<'a> {
    /// The attempt completed its tasks.
    Completed {
        /// The tasks.
        tasks: Range<u64>,
        /// The stored outcome.
        outcome: &'a CompletedAttempt,
    },
    /// The attempt failed. Only [`super::FIRST_FAILURES`] and [`super::LAST_FAILURES`] of the failures that begin at the same
    /// task are kept.
    Failed(FailureRow<'a>),
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct FailureRow<'a> {
    /// The tasks.
    pub tasks: Range<u64>,
    /// Number of failures of the tasks so far.
    pub failures: u32,
    /// Time of the failure.
    pub at: Timestamp,
    /// The worker of the attempt.
    pub worker: &'a str,
    /// The error of the attempt.
    pub error: &'a str,
    /// Whether the tasks are out of attempts.
    pub given_up: bool,
}

/// Effect on a job's result.
#[derive(Debug, Default)]
pub enum ResultEffect<'a> {
    /// The result stays.
    #[default]
    Keep,
    /// The result is deleted with its object. See [`super::JobLedger::freed`].
    Drop,
    /// This result replaces the old one. Its bytes are counted already; those of the old result are [`super::JobLedger::freed`].
    Put(&'a ResultBody),
    /// This object belongs to no job and is to be deleted: its job was over before.
    Abandon(&'a str),
}

/// Effects of a change to a job that is over or does not exist: only the deletion of its unowned object.
#[must_use]
pub fn without_effect(change: &Change) -> Effects<'_> {
    let result = change.object().map_or(ResultEffect::Keep, |object| ResultEffect::Abandon(&object.name));
    Effects { result, ..Effects::default() }
}

/// Size of a result in bytes, in its row or as an object.
#[must_use]
pub fn result_bytes(result: &ResultBody) -> u64 {
    match result {
        ResultBody::Inline(json) => json.get().len() as u64,
        ResultBody::Object(object) => object.bytes,
    }
}
