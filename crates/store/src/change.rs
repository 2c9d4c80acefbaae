//! Changes to jobs after their acceptance.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use model::{AttemptId, JobId, JobState};
use serde_json::value::RawValue;

use crate::verified::SetAsideWorker;

/// A change to one job. A change that follows the job's end, or names no stored job, has no effect.
#[derive(Clone, Debug)]
pub struct Change {
    /// The job.
    pub job: JobId,
    /// Time of the change.
    pub at: Timestamp,
    /// Kind of the change.
    pub kind: ChangeKind,
}

/// Kind of a [`Change`].
#[derive(Clone, Debug)]
pub enum ChangeKind {
    /// The first task was leased.
    Started,
    /// No task runs until the job is resumed.
    Paused,
    /// The job goes on.
    Resumed,
    /// The job was canceled.
    Canceled,
    /// Tasks succeeded. Refused as a whole if one of them was done before.
    Completed {
        /// The tasks.
        tasks: Range<u64>,
        /// Contribution of the tasks to the job's value, modulo 2^128.
        value: u128,
        /// Time that the worker was busy with the tasks.
        busy: Duration,
        /// The stored outcome, for individual tasks.
        outcome: Option<CompletedAttempt>,
    },
    /// A repeated computation of tasks succeeded. Refused as [`Self::Completed`].
    Checked {
        /// The tasks.
        tasks: Range<u64>,
        /// Contribution of the tasks to the value that is compared with the job's, modulo 2^128.
        value: u128,
        /// Time that the worker was busy with the tasks.
        busy: Duration,
    },
    /// Done tasks are open again, since the outcomes of their worker are not trusted. Refused as a whole if one of them is not
    /// done.
    Reopened {
        /// The tasks, as disjoint runs.
        tasks: Vec<Range<u64>>,
        /// The tasks' part of the job's value, modulo 2^128.
        value: u128,
        /// The tasks' part of the value that is compared with the job's, modulo 2^128.
        check: u128,
        /// The reason, for people.
        notice: String,
        /// The worker that is set aside.
        worker: SetAsideWorker,
    },
    /// Two workers have reported the same for a lease that is compared. The attempt whose outcome counts is recorded with the
    /// outcome.
    Compared {
        /// The tasks of the lease.
        tasks: Range<u64>,
        /// The times that the workers of the other attempts were busy with the tasks.
        others: Vec<Duration>,
        /// Whether another worker had reported another outcome.
        is_mismatch: bool,
    },
    /// Tasks failed and will be tried again.
    AttemptFailed {
        /// The tasks.
        tasks: Range<u64>,
        /// Number of failures of the tasks so far.
        failures: u32,
        /// The attempt if it reached its time limit. Its worker may not know this yet.
        timed_out: Option<AttemptId>,
        /// The worker of the attempt.
        worker: String,
        /// The error of the attempt.
        error: String,
    },
    /// Tasks failed and are out of attempts.
    TasksFailed {
        /// The tasks.
        tasks: Range<u64>,
        /// Number of failures of the tasks so far.
        failures: u32,
        /// The attempt if it reached its time limit. Its worker may not know this yet.
        timed_out: Option<AttemptId>,
        /// The worker of the attempt.
        worker: String,
        /// The error of the attempt.
        error: String,
    },
    /// The job's progress is announced as an event.
    Progress,
    /// The work that the job has done, before a change that ends it: for jobs whose tasks differ in their work.
    WorkDone {
        /// The share of the whole in billionths.
        billionths: u32,
    },
    /// Tasks out of attempts become open again, with none used up, and the job goes on. The only change to a job that is
    /// over; without effect on a job that succeeded.
    Retried,
    /// The job is over.
    Ended {
        /// Final state: [`JobState::Succeeded`] only where every task has succeeded.
        state: JobState,
        /// Its result.
        result: Option<ResultBody>,
        /// Error of a failed job.
        error: Option<String>,
    },
}

impl Change {
    /// The object of the result that this change would give the job.
    #[must_use]
    pub fn object(&self) -> Option<&StoredObject> {
        match &self.kind {
            ChangeKind::Ended { result: Some(ResultBody::Object(object)), .. } => Some(object),
            ChangeKind::Ended { .. }
            | ChangeKind::Started
            | ChangeKind::Paused
            | ChangeKind::Resumed
            | ChangeKind::Canceled
            | ChangeKind::Completed { .. }
            | ChangeKind::Checked { .. }
            | ChangeKind::Reopened { .. }
            | ChangeKind::Compared { .. }
            | ChangeKind::AttemptFailed { .. }
            | ChangeKind::TasksFailed { .. }
            | ChangeKind::Progress
            | ChangeKind::WorkDone { .. }
            | ChangeKind::Retried => None,
        }
    }
}

/// An attempt that completed individual tasks, as it is stored.
#[derive(Clone, Debug)]
pub struct CompletedAttempt {
    /// Its id.
    pub attempt: AttemptId,
    /// Its worker; `None` where the tasks were skipped.
    pub worker: Option<String>,
    /// Time of the lease.
    pub allocated_at: Timestamp,
    /// Time at which the worker began.
    pub running_at: Timestamp,
    /// Time at which the tasks were done.
    pub completed_at: Timestamp,
    /// The worker's answers: one for each task, or none at all.
    pub results: Vec<Box<RawValue>>,
}

impl CompletedAttempt {
    /// The worker's name as stores keep it: it is empty where the tasks were skipped.
    #[must_use]
    pub fn worker_column(&self) -> &str {
        self.worker.as_deref().unwrap_or_default()
    }
}

/// A result, on its way into [`ChangeKind::Ended`].
#[derive(Clone, Debug)]
pub enum ResultBody {
    /// Kept in the job's row.
    Inline(Box<RawValue>),
    /// Stored already as an object, which becomes visible by the change that names it.
    Object(StoredObject),
}

/// A result that is stored as an object, under a name that is unique to its composition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name in the object store.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub sha256: [u8; 32],
}
