//! The shell around the scheduling core: owns its lock, its clock and its timers, and brings its events to those who
//! wait for them. No policy is here.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use protocol::{AttemptId, JobId, NumberRange, Split, Work};
use scheduler::{
    Event, Failure, JobError, JobSpec, Lease, Outcome, Policy, Progress, Scheduler, StaleAttempt, WorkerKey,
};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

/// Why a job has no sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobFailure {
    #[error(transparent)]
    Scheduler(#[from] JobError),
    #[error("the coordinator is stopping")]
    Stopping,
}

type Answer = Result<u128, JobFailure>;

/// A lease on its way to a worker.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
    pub(crate) numbers: NumberRange,
    pub(crate) tasks: u64,
    pub(crate) expires_at: Instant,
}

/// Resolves with `Ok` when an attempt lost its lease and its worker should stop.
pub(crate) type Revoked = oneshot::Receiver<()>;

/// How an attempt ended, as far as its worker's answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Completed(Outcome),
    HandedBack,
    Failed(Failure),
}

/// A job that somebody waits for; dropping it cancels the job.
#[derive(Debug)]
pub(crate) struct JobHandle {
    grid: Arc<Grid>,
    job: JobId,
    pub(crate) tasks: u64,
    answer: oneshot::Receiver<Answer>,
}

#[derive(Debug)]
pub(crate) struct Grid {
    core: Mutex<Core>,
    chunk_size: NonZeroU64,
    /// Wakes the dispatcher: there is more work, or another free slot.
    work: Notify,
    /// Wakes the timer: the next deadline came nearer.
    deadline: Notify,
}

#[derive(Debug)]
struct Core {
    scheduler: Scheduler,
    jobs: HashMap<JobId, Awaited>,
    revocations: HashMap<AttemptId, oneshot::Sender<()>>,
    armed_for: Option<Instant>,
}

#[derive(Debug)]
struct Awaited {
    split: Split,
    answer: oneshot::Sender<Answer>,
}

impl Grid {
    pub(crate) fn new(policy: Policy, chunk_size: NonZeroU64) -> Self {
        let scheduler = Scheduler::new(policy, Instant::now());
        let core = Core { scheduler, jobs: HashMap::new(), revocations: HashMap::new(), armed_for: None };
        Self { core: Mutex::new(core), chunk_size, work: Notify::new(), deadline: Notify::new() }
    }

    /// Takes a job: the sum over `range`.
    pub(crate) fn submit(self: &Arc<Self>, range: NumberRange) -> JobHandle {
        let (job, split) = (JobId(Uuid::now_v7()), Split::new(range, self.chunk_size));
        let (sender, answer) = oneshot::channel();
        self.change(|core| {
            let spec = JobSpec { tasks: split.tasks(), setup: Work::SumOfPrimes(range).setup_estimate() };
            core.scheduler.submit(job, spec, Instant::now()).expect("a new id, and a range has a task");
            core.jobs.insert(job, Awaited { split, answer: sender });
        });
        JobHandle { grid: Arc::clone(self), job, tasks: split.tasks(), answer }
    }

    /// The best lease for a worker now, if there is one for it.
    pub(crate) fn claim(&self, worker: WorkerKey) -> Option<(Assignment, Revoked)> {
        let mut core = self.lock();
        let lease = core.scheduler.claim(worker, Instant::now()).ok().flatten()?;
        let numbers = core.jobs[&lease.job].split.numbers(&lease.tasks);
        let (sender, revoked) = oneshot::channel();
        core.revocations.insert(lease.attempt, sender);
        self.rearm(&mut core);
        let tasks = lease.tasks.end - lease.tasks.start;
        let Lease { attempt, job, expires_at, .. } = lease;
        Some((Assignment { job, attempt, numbers, tasks, expires_at }, revoked))
    }

    /// Tells the core how an attempt ended.
    pub(crate) fn report(&self, attempt: AttemptId, end: LeaseEnd) -> Result<(), StaleAttempt> {
        self.change(|core| {
            core.revocations.remove(&attempt);
            match end {
                LeaseEnd::Completed(outcome) => core.scheduler.complete(attempt, outcome),
                LeaseEnd::HandedBack => core.scheduler.hand_back(attempt),
                LeaseEnd::Failed(cause) => core.scheduler.fail(attempt, cause),
            }
        })
    }

    pub(crate) fn worker_joined(&self, worker: WorkerKey, slots: u32) {
        self.change(|core| core.scheduler.worker_joined(worker, slots));
    }

    pub(crate) fn worker_suspended(&self, worker: WorkerKey) {
        self.change(|core| core.scheduler.worker_suspended(worker, Instant::now()));
    }

    pub(crate) fn worker_resumed(&self, worker: WorkerKey) {
        self.change(|core| core.scheduler.worker_resumed(worker));
    }

    pub(crate) fn worker_retired(&self, worker: WorkerKey) {
        self.change(|core| core.scheduler.worker_retired(worker, Instant::now()));
    }

    pub(crate) fn worker_lost(&self, worker: WorkerKey) {
        self.change(|core| core.scheduler.worker_lost(worker, Instant::now()));
    }

    /// Leases that a worker holds.
    pub(crate) fn leases_of(&self, worker: WorkerKey) -> usize {
        self.lock().scheduler.leases_of(worker)
    }

    pub(crate) fn unclaimed_tasks(&self) -> u64 {
        self.lock().scheduler.unclaimed_tasks()
    }

    pub(crate) fn has_unclaimed(&self) -> bool {
        self.lock().scheduler.has_unclaimed()
    }

    /// How far every job is.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let core = self.lock();
        core.jobs.keys().filter_map(|job| core.scheduler.progress(*job)).collect()
    }

    /// Ends every job.
    pub(crate) fn stop(&self) {
        self.change(|core| {
            for (job, awaited) in std::mem::take(&mut core.jobs) {
                core.scheduler.cancel(job);
                // Whoever asked may be gone already.
                let _ = awaited.answer.send(Err(JobFailure::Stopping));
            }
        });
    }

    /// Resolves when there may be a slot for some work.
    pub(crate) async fn work_to_give_out(&self) {
        self.work.notified().await;
    }

    /// Says that a slot may have become free.
    pub(crate) fn slots_changed(&self) {
        self.work.notify_one();
    }

    /// Lets the core act on time. Runs for ever.
    pub(crate) async fn run_timers(&self) {
        loop {
            let next = self.lock().armed_for;
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.change(|core| {
                    core.armed_for = None;
                    core.scheduler.handle_timeout(Instant::now());
                }),
                () = self.deadline.notified() => (),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("a scheduler that panicked has no state to go on with")
    }

    fn change<T>(&self, operation: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let result = operation(&mut core);
        core.settle();
        self.rearm(&mut core);
        if core.scheduler.has_unclaimed() {
            self.work.notify_one();
        }
        result
    }

    /// A timer that is armed too early does no harm, and most leases end long before they expire.
    fn rearm(&self, core: &mut Core) {
        let next = core.scheduler.poll_timeout();
        if next.is_some_and(|next| core.armed_for.is_none_or(|armed_for| next < armed_for)) {
            core.armed_for = next;
            self.deadline.notify_one();
        }
    }
}

impl Core {
    fn settle(&mut self) {
        while let Some(event) = self.scheduler.poll_event() {
            match event {
                Event::JobSucceeded { job, total } => self.answer(job, Ok(total)),
                Event::JobFailed { job, error } => self.answer(job, Err(error.into())),
                Event::LeaseRevoked { attempt } => {
                    if let Some(revoke) = self.revocations.remove(&attempt) {
                        // The request may just have ended.
                        let _ = revoke.send(());
                    }
                }
            }
        }
    }

    fn answer(&mut self, job: JobId, answer: Answer) {
        if let Some(awaited) = self.jobs.remove(&job) {
            // Whoever asked may just have gone.
            let _ = awaited.answer.send(answer);
        }
    }
}

impl JobHandle {
    /// Waits for the sum.
    pub(crate) async fn sum(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Err(JobFailure::Stopping))
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.grid.change(|core| {
            if core.jobs.remove(&self.job).is_some() {
                core.scheduler.cancel(self.job);
            }
        });
    }
}
