//! The events that the scheduler reports to its caller, and the reasons why a task waits.

use std::ops::Range;
use std::time::Duration;

use model::{AttemptId, JobId};

use crate::lease::{AttemptFailure, Lane, Revocation};

/// The reason why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A task that the result needs used up its attempts.
    #[error("{} failed {}because {cause}", run_of(tasks), times(*attempts))]
    AttemptsExhausted {
        /// The run of tasks in the last attempt.
        tasks: Range<u64>,
        /// Attempts made.
        attempts: u32,
        /// Failure of the last attempt.
        cause: AttemptFailure,
    },
    /// Every task is over, and some have failed.
    #[error("{}", tasks_failed(*failed, *total))]
    TasksFailed {
        /// Tasks without attempts left.
        failed: u64,
        /// Tasks in all.
        total: u64,
    },
    /// No worker that can run it was ready in time.
    #[error("no worker was ready for {} ms", waited.as_millis())]
    NoWorker {
        /// Time for which the job waited.
        waited: Duration,
    },
    /// The job reached its time limit.
    #[error("it was not done within its timeout")]
    TimedOut,
}

fn run_of(tasks: &Range<u64>) -> String {
    let (first, last) = (tasks.start, tasks.end.saturating_sub(1));
    if first == last { format!("task {first}") } else { format!("tasks {first} to {last}") }
}

fn times(attempts: u32) -> String {
    if attempts == 1 { String::new() } else { format!("{attempts} times, the last time ") }
}

fn tasks_failed(failed: u64, total: u64) -> String {
    if total == 1 { "its only task failed".to_owned() } else { format!("{failed} of {total} tasks failed") }
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
        /// The failure of the attempt.
        cause: AttemptFailure,
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
        /// The failure of the attempt.
        cause: AttemptFailure,
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
        /// The reason of the revocation.
        reason: Revocation,
    },
}

/// The reason why a job's tasks wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// The job is paused.
    #[error("it is paused; resume it to let its tasks run")]
    Paused,
    /// No worker is ready.
    #[error("no worker is ready")]
    NoWorker,
    /// No ready worker can run the job.
    #[error("{} {kind} with what the job requires: {missing}", none_runs(*workers))]
    NoMatch {
        /// Workers that are ready.
        workers: usize,
        /// The job's kind.
        kind: model::JobKind,
        /// The requirement that the closest worker lacks.
        missing: String,
    },
    /// No ready worker runs jobs of this kind.
    #[error("{} jobs of the kind {kind}", none_runs(*workers))]
    NoKind {
        /// Workers that are ready.
        workers: usize,
        /// The job's kind.
        kind: model::JobKind,
    },
    /// Workers may hold the job's tasks since before this coordinator began, and have not listed them yet.
    #[error("its tasks wait until the workers that may hold them already have said so")]
    Recovering,
    /// No slot that could run the job has taken it yet: each slot is busy or has not asked for work.
    #[error("{}; jobs of its priority or above that wait with it: {ahead}", none_asks(*slots, *busy))]
    Busy {
        /// Slots of the workers that can run it.
        slots: u64,
        /// Slots of these workers that have leases.
        busy: u64,
        /// Jobs that go first or take turns with it.
        ahead: usize,
    },
    /// The job's tasks are with workers.
    #[error("{}", at_work(*running, *pending))]
    Running {
        /// Tasks with workers.
        running: u64,
        /// Tasks that wait.
        pending: u64,
    },
}

fn none_runs(workers: usize) -> String {
    if workers == 1 {
        "the only ready worker does not run".to_owned()
    } else {
        format!("none of the {workers} ready workers runs")
    }
}

fn none_asks(slots: u64, busy: u64) -> String {
    if busy < slots {
        "workers that can run it have free slots and have not asked for work".to_owned()
    } else if slots == 1 {
        "the only slot of the worker that can run it is busy".to_owned()
    } else {
        format!("all {slots} slots of the workers that can run it are busy")
    }
}

fn at_work(running: u64, pending: u64) -> String {
    let running = if running == 1 {
        "1 of its tasks is with a worker".to_owned()
    } else {
        format!("{running} of its tasks are with workers")
    };
    match pending {
        0 => running,
        1 => format!("{running}, and 1 waits for its turn"),
        _ => format!("{running}, and {pending} wait for their turn"),
    }
}
