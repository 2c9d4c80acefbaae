//! What happens to a job after it was accepted.

use std::ops::Range;

use jiff::Timestamp;
use model::{AttemptId, JobId, JobState};
use serde_json::value::RawValue;

/// A change to one job. One that comes after the job's end, or for a job that is not there, has no effect.
#[derive(Clone, Debug)]
pub enum Change {
    /// Its first task was given out.
    Started {
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// Nothing of it runs until it is resumed.
    Paused {
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// It goes on.
    Resumed {
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// It was given up.
    Canceled {
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// Tasks succeeded. Refused whole where one of them was done before.
    Completed {
        /// The job.
        job: JobId,
        /// The tasks.
        tasks: Range<u64>,
        /// What they add to the job's value.
        value: u128,
        /// For individual tasks: what is kept of the attempt.
        outcome: Option<Outcome>,
    },
    /// Tasks failed and will be tried again.
    AttemptFailed {
        /// The job.
        job: JobId,
        /// The tasks.
        tasks: Range<u64>,
        /// How often they have failed by now.
        failures: u32,
        /// When.
        at: Timestamp,
        /// Whose attempt it was.
        worker: String,
        /// Why.
        error: String,
    },
    /// Tasks failed and are out of attempts.
    TasksFailed {
        /// The job.
        job: JobId,
        /// The tasks.
        tasks: Range<u64>,
        /// How often they have failed by now.
        failures: u32,
        /// When.
        at: Timestamp,
        /// Whose attempt it was.
        worker: String,
        /// Why.
        error: String,
    },
    /// Its listeners are to hear how far it is.
    Progress {
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// Tasks out of attempts become open again, with none used up, and the job goes on. The only change to a job that is
    /// over; without effect on one that succeeded.
    Retried {
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// It is over.
    Ended {
        /// The job.
        job: JobId,
        /// How: [`JobState::Succeeded`] only where every task has succeeded.
        state: JobState,
        /// Its result.
        result: Option<ResultBody>,
        /// Why it failed.
        error: Option<String>,
        /// When.
        at: Timestamp,
    },
}

impl Change {
    /// Whose it is.
    #[must_use]
    pub fn job(&self) -> JobId {
        match self {
            Self::Started { job, .. }
            | Self::Paused { job, .. }
            | Self::Resumed { job, .. }
            | Self::Canceled { job, .. }
            | Self::Completed { job, .. }
            | Self::AttemptFailed { job, .. }
            | Self::TasksFailed { job, .. }
            | Self::Progress { job, .. }
            | Self::Retried { job, .. }
            | Self::Ended { job, .. } => *job,
        }
    }
}

/// What is kept of an attempt that completed individual tasks.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its id.
    pub attempt: AttemptId,
    /// Who made it.
    pub worker: String,
    /// When the tasks were given to the worker.
    pub allocated_at: Timestamp,
    /// When the worker began.
    pub running_at: Timestamp,
    /// When they were done.
    pub completed_at: Timestamp,
    /// What the worker answered: one for each task, or none at all.
    pub results: Vec<Box<RawValue>>,
}

/// A result, on its way into [`Change::Ended`].
#[derive(Clone, Debug)]
pub enum ResultBody {
    /// Kept in the job's row.
    Inline(Box<RawValue>),
    /// Stored already, beside the database.
    Object(StoredObject),
}

/// A result that is stored beside the database. Made by the store only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

impl StoredObject {
    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
