//! A scheduler with its own time and short names for what tests do with it.

use std::ops::Range;
use std::time::{Duration, Instant};

use protocol::{AttemptId, JobId};
use uuid::Uuid;

use crate::{Event, Failure, JobSpec, Lease, Outcome, Policy, Scheduler, StaleAttempt, WorkerKey};

pub(super) const POLICY: Policy = Policy {
    max_attempts: 4,
    lease_target: Duration::from_millis(100),
    lease_timeout: Duration::from_secs(60),
    no_worker_timeout: Duration::from_secs(10),
};

/// What a task takes in these tests, so that a full lease has ten.
pub(super) const TASK_TIME: Duration = Duration::from_millis(10);

pub(super) struct Harness {
    pub(super) scheduler: Scheduler,
    pub(super) now: Instant,
}

pub(super) fn job(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

pub(super) fn worker(number: u64) -> WorkerKey {
    WorkerKey(number)
}

pub(super) fn spec(tasks: u64) -> JobSpec {
    JobSpec { tasks, setup: Duration::ZERO }
}

impl Harness {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { scheduler: Scheduler::new(POLICY, now), now }
    }

    /// With workers 1 to `workers` of one slot each.
    pub(super) fn with_workers(workers: u64) -> Self {
        let mut harness = Self::new();
        for number in 1..=workers {
            harness.scheduler.worker_joined(worker(number), 1);
        }
        harness
    }

    pub(super) fn submit(&mut self, number: u128, tasks: u64) {
        self.scheduler.submit(job(number), spec(tasks), self.now).expect("a new job with tasks");
    }

    pub(super) fn claim(&mut self, number: u64) -> Option<Lease> {
        self.scheduler.claim(worker(number), self.now).expect("a worker of the pool")
    }

    /// Claims and tells which tasks came.
    pub(super) fn claim_tasks(&mut self, number: u64) -> Option<(JobId, Range<u64>)> {
        self.claim(number).map(|lease| (lease.job, lease.tasks))
    }

    /// Completes with one for each task, so that a job's total is its number of tasks.
    pub(super) fn complete(&mut self, lease: &Lease) -> Result<(), StaleAttempt> {
        let tasks = lease.tasks.end - lease.tasks.start;
        let busy = TASK_TIME * u32::try_from(tasks).expect("few tasks");
        self.scheduler.complete(lease.attempt, Outcome { value: tasks.into(), busy })
    }

    pub(super) fn fail(&mut self, lease: &Lease) -> Result<(), StaleAttempt> {
        self.scheduler.fail(lease.attempt, broken())
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.scheduler.handle_timeout(self.now);
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.scheduler.poll_event()).collect()
    }
}

pub(super) fn broken() -> Failure {
    Failure::Refused("it answered 500".to_owned())
}

pub(super) fn revoked(lease: &Lease) -> Event {
    Event::LeaseRevoked { attempt: lease.attempt }
}

pub(super) fn no_such_attempt() -> AttemptId {
    AttemptId(u64::MAX)
}
