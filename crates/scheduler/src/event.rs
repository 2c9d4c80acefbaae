//! The events that the scheduler reports to its caller, and why a task waits.

use std::ops::Range;
use std::time::Duration;

use model::{AttemptId, JobId};

use crate::lease::{Failure, Lane, Revocation};

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A task that the result needs used up its attempts.
    #[error("{} failed {} because {cause}", run(tasks), times(*attempts))]
    AttemptsExhausted {
        /// The run of tasks in the last attempt.
        tasks: Range<u64>,
        /// Attempts made.
        attempts: u32,
        /// What ended the last one.
        cause: Failure,
    },
    /// Every task is over, and some have failed.
    #[error("{failed} of {total} tasks failed")]
    TasksFailed {
        /// Tasks without attempts left.
        failed: u64,
        /// Tasks in all.
        total: u64,
    },
    /// No worker that can run it was ready in time.
    #[error("no worker was ready for {} ms", waited.as_millis())]
    NoWorker {
        /// How long the job waited.
        waited: Duration,
    },
    /// The job's time was over.
    #[error("it was not done within its timeout")]
    TimedOut,
}

/// A change that the caller has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job's first lease was given out.
    JobStarted {
        /// The job.
        job: JobId,
    },
    /// Tasks failed and will be tried again.
    AttemptFailed {
        /// The job.
        job: JobId,
        /// The tasks.
        tasks: Range<u64>,
        /// Attempts at them that failed.
        failures: u32,
        /// The attempt that failed.
        attempt: AttemptId,
        /// The slot that ran it.
        lane: Lane,
        /// Why.
        cause: Failure,
    },
    /// Tasks have no attempts left.
    TasksFailed {
        /// The job.
        job: JobId,
        /// The tasks.
        tasks: Range<u64>,
        /// Attempts at them that failed.
        failures: u32,
        /// The attempt that failed last.
        attempt: AttemptId,
        /// The slot that ran it.
        lane: Lane,
        /// Why.
        cause: Failure,
    },
    /// Every task is done.
    JobSucceeded {
        /// The job, which the scheduler has forgotten.
        job: JobId,
        /// The sum of all parts, modulo 2^128.
        total: u128,
    },
    /// The job is over without a result.
    JobFailed {
        /// The job, which the scheduler has forgotten.
        job: JobId,
        /// The reason.
        error: JobError,
    },
    /// The attempt has lost its lease while its worker is alive: the worker should stop.
    LeaseRevoked {
        /// The attempt.
        attempt: AttemptId,
        /// The job of its tasks.
        job: JobId,
        /// The slot that runs it.
        lane: Lane,
        /// Why.
        reason: Revocation,
    },
}

fn run(tasks: &Range<u64>) -> String {
    match tasks.end - tasks.start {
        1 => format!("task {}", tasks.start),
        _ => format!("tasks {} to {}", tasks.start, tasks.end - 1),
    }
}

fn times(attempts: u32) -> String {
    match attempts {
        1 => "once,".to_owned(),
        _ => format!("{attempts} times, the last time"),
    }
}

/// Why a job's tasks wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// It is paused.
    #[error("it is paused; resume it to let its tasks run")]
    Paused,
    /// No worker is ready.
    #[error("no worker is ready")]
    NoWorker,
    /// No worker that is ready can run it.
    #[error("none of the {workers} ready workers runs {kind} with what the job requires: {missing}")]
    NoMatch {
        /// Workers that are ready.
        workers: usize,
        /// The job's kind.
        kind: model::JobKind,
        /// What the closest of them lacks.
        missing: String,
    },
    /// Every slot that could run it is busy.
    #[error(
        "all {slots} slots of the workers that can run it are busy; jobs of its priority or above that wait with it: {ahead}"
    )]
    Busy {
        /// Slots of the workers that can run it.
        slots: u64,
        /// Jobs that go first or take turns with it.
        ahead: usize,
    },
    /// Its tasks are with workers.
    #[error("{running} of its tasks are with workers, and {pending} wait for their turn")]
    Running {
        /// Tasks with workers.
        running: u64,
        /// Tasks that wait.
        pending: u64,
    },
}
