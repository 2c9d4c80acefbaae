//! A scheduler with its own time and short names for operations.

use std::ops::Range;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, JobKind, Labels, Resources};
use uuid::Uuid;

use crate::{
    AttemptFailure, ComputedValue, Event, History, JobSpec, Lane, Lease, LeaseSize, Policy, Revocation, Scheduler,
    StaleAttempt, UnknownWorker, WorkerKey, WorkerSpec,
};

pub(super) const POLICY: Policy = Policy {
    lease_target: Duration::from_millis(100),
    lease_timeout: Duration::from_secs(60),
    aging_interval: Duration::from_secs(60),
};

pub(super) const MAX_ATTEMPTS: u32 = 4;

pub(super) const WORKER_WAIT: Duration = Duration::from_secs(10);

/// More attempts than a test makes: a loop over claims that never ends fails instead.
const MOST_ATTEMPTS: u128 = 1_000_000;

/// Duration of a task in these tests, so that a full lease has ten.
pub(super) const TASK_TIME: Duration = Duration::from_millis(10);

pub(super) struct Harness {
    pub(super) scheduler: Scheduler,
    pub(super) now: Instant,
    last_attempt: u128,
}

pub(super) fn job(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

pub(super) fn worker(number: u64) -> WorkerKey {
    WorkerKey(number)
}

/// The first slot of a worker.
pub(super) fn lane(number: u64) -> Lane {
    Lane { worker: worker(number), slot: 0 }
}

pub(super) fn spec(tasks: u64) -> JobSpec {
    JobSpec { worker_wait: Some(WORKER_WAIT), ..JobSpec::new(JobKind::SUM_OF_PRIMES, tasks) }
}

/// A worker that runs every kind.
pub(super) fn slots(slots: u32) -> WorkerSpec {
    WorkerSpec {
        id: "worker".parse().expect("a name"),
        slots,
        kinds: vec![JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES, JobKind::SLEEP, JobKind::TASKS],
        labels: Labels::new(),
        resources: Resources::default(),
        is_reserved: false,
    }
}

pub(super) fn labels(words: &[(&str, &str)]) -> Labels {
    words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Harness {
    pub(super) fn new() -> Self {
        // Some operations look back.
        let now = Instant::now() + Duration::from_hours(1);
        Self { scheduler: Scheduler::new(POLICY), now, last_attempt: 0 }
    }

    /// A harness with workers 1 to `workers` of one slot each.
    pub(super) fn with_workers(workers: u64) -> Self {
        let mut harness = Self::new();
        for number in 1..=workers {
            harness.join(number, slots(1));
        }
        harness
    }

    pub(super) fn join(&mut self, number: u64, spec: WorkerSpec) {
        let id = format!("worker-{number}").parse().expect("a name");
        self.scheduler.worker_joined(worker(number), WorkerSpec { id, ..spec });
    }

    pub(super) fn submit(&mut self, number: u128, tasks: u64) {
        self.submit_spec(number, spec(tasks));
    }

    pub(super) fn submit_spec(&mut self, number: u128, spec: JobSpec) {
        self.scheduler.submit(job(number), spec, &History::default(), self.now).expect("a new job with tasks");
    }

    pub(super) fn claim(&mut self, number: u64) -> Option<Lease> {
        self.try_claim(number).expect("a worker of the pool")
    }

    pub(super) fn try_claim(&mut self, number: u64) -> Result<Option<Lease>, UnknownWorker> {
        self.claim_for(lane(number), LeaseSize::Fitting)
    }

    pub(super) fn claim_for(&mut self, lane: Lane, size: LeaseSize) -> Result<Option<Lease>, UnknownWorker> {
        let attempt = self.next_attempt();
        self.scheduler.claim(lane, size, attempt, self.now)
    }

    pub(super) fn next_attempt(&mut self) -> AttemptId {
        self.last_attempt += 1;
        assert!(self.last_attempt < MOST_ATTEMPTS, "tasks are claimed without end");
        AttemptId(Uuid::from_u128(self.last_attempt))
    }

    /// Claims and returns the tasks.
    pub(super) fn claim_tasks(&mut self, number: u64) -> Option<(JobId, Range<u64>)> {
        self.claim(number).map(|lease| (lease.job, lease.tasks))
    }

    /// Completes the lease with 1 for each task, so that a job's total is its number of tasks.
    pub(super) fn complete(&mut self, lease: &Lease) -> Result<(), StaleAttempt> {
        self.complete_after(lease, TASK_TIME)
    }

    /// Completes the lease, with this time for each task.
    pub(super) fn complete_after(&mut self, lease: &Lease, task_time: Duration) -> Result<(), StaleAttempt> {
        let tasks = lease.tasks.end - lease.tasks.start;
        let busy = task_time * u32::try_from(tasks).expect("few tasks");
        let counted = self.scheduler.complete(lease.attempt, ComputedValue { value: tasks.into(), busy })?;
        assert_eq!((counted.job, &counted.tasks), (lease.job, &lease.tasks));
        Ok(())
    }

    pub(super) fn fail(&mut self, lease: &Lease) -> Result<(), StaleAttempt> {
        self.scheduler.fail(lease.attempt, broken(), self.now)
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.scheduler.handle_timeout(self.now);
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.scheduler.poll_event()).take(100_000).collect()
    }

    /// The events that end something: those of jobs that are over and of leases that were revoked.
    pub(super) fn ends(&mut self) -> Vec<Event> {
        let is_end = |event: &Event| {
            matches!(event, Event::JobSucceeded { .. } | Event::JobFailed { .. } | Event::LeaseRevoked { .. })
        };
        self.events().into_iter().filter(is_end).collect()
    }

    pub(super) fn done(&self, number: u128) -> Option<u64> {
        self.scheduler.progress(job(number)).map(|counts| counts.succeeded)
    }
}

pub(super) fn broken() -> AttemptFailure {
    AttemptFailure::Refused("it answered 500".to_owned())
}

/// The first slot of worker `number` had the lease.
pub(super) fn revoked(lease: &Lease, number: u64, reason: Revocation) -> Event {
    Event::LeaseRevoked { attempt: lease.attempt, job: lease.job, lane: lane(number), reason }
}

pub(super) fn no_such_attempt() -> AttemptId {
    AttemptId(Uuid::max())
}
