//! What the core tells its caller.

use std::ops::Range;
use std::time::Duration;

use protocol::{AttemptId, JobId};

use crate::lease::Failure;

/// Why a job has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A task used up its attempts.
    #[error("tasks {} to {} failed {attempts} times, the last time because {cause}", tasks.start, tasks.end - 1)]
    AttemptsExhausted {
        /// The run of tasks in the last attempt.
        tasks: Range<u64>,
        /// Attempts made.
        attempts: u32,
        /// What ended the last one.
        cause: Failure,
    },
    /// The pool stayed empty.
    #[error("no worker was ready for {} ms", waited.as_millis())]
    NoWorker {
        /// How long the job waited.
        waited: Duration,
    },
}

/// What the caller has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every task is done.
    JobSucceeded {
        /// The job, which the core has forgotten.
        job: JobId,
        /// The sum of all parts.
        total: u128,
    },
    /// The job is over without an answer.
    JobFailed {
        /// The job, which the core has forgotten.
        job: JobId,
        /// The reason.
        error: JobError,
    },
    /// The attempt has lost its lease while its worker is alive: its worker should stop.
    LeaseRevoked {
        /// The attempt.
        attempt: AttemptId,
    },
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks in all.
    pub tasks: u64,
    /// Tasks done.
    pub done: u64,
}
