//! What the core tells its caller.

use std::ops::Range;
use std::time::Duration;

use model::{AttemptId, JobId};

use crate::lease::{Failure, WorkerKey};

/// Why a job has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A task that the job cannot do without used up its attempts.
    #[error("tasks {} to {} failed {attempts} times, the last time because {cause}", tasks.start, tasks.end - 1)]
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
    /// The pool stayed empty.
    #[error("no worker was ready for {} ms", waited.as_millis())]
    NoWorker {
        /// How long the job waited.
        waited: Duration,
    },
    /// The job's time was over.
    #[error("it was not done within its timeout")]
    TimedOut,
}

/// What the caller has to act on.
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
        /// Who failed.
        worker: WorkerKey,
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
        /// Who failed last.
        worker: WorkerKey,
        /// Why.
        cause: Failure,
    },
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

/// Why a job's tasks wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// It is paused.
    #[error("it is paused; resume it to let its tasks run")]
    Paused,
    /// Nobody is there.
    #[error("no worker is ready")]
    NoWorker,
    /// Nobody can run it.
    #[error("none of the {workers} ready workers runs {kind} with what the job requires: {missing}")]
    NoMatch {
        /// Workers that are ready.
        workers: usize,
        /// The job's kind.
        kind: model::JobKind,
        /// What the nearest of them lacks.
        missing: String,
    },
    /// Everything that could run it is busy.
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
