//! The shell around the scheduling core: owns its lock, its clock and its timers, and brings its events to those who
//! wait for them. No policy is here.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::{AttemptId, JobId, JobOptions, JobWork, NumberRange, TaskCounts, Work};
use scheduler::{
    Event, Failure, History, JobError, JobSpec, Lane, Lease, LeaseSize, Outcome, Policy, Scheduler, StaleAttempt,
    WorkerKey, WorkerSpec,
};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::plan::Plan;

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
    pub(crate) work: Work,
    pub(crate) tasks: u64,
    /// Numbers to search, for kinds with a range.
    pub(crate) numbers: Option<NumberRange>,
    /// The largest value that the outcome can have.
    pub(crate) max_value: u128,
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
    /// How long a job whose client waits for it waits for a first worker.
    worker_wait: Duration,
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
    plan: Plan,
    answer: oneshot::Sender<Answer>,
}

impl Grid {
    pub(crate) fn new(policy: Policy, chunk_size: NonZeroU64, worker_wait: Duration) -> Self {
        let scheduler = Scheduler::new(policy, Instant::now());
        let core = Core { scheduler, jobs: HashMap::new(), revocations: HashMap::new(), armed_for: None };
        Self { core: Mutex::new(core), chunk_size, worker_wait, work: Notify::new(), deadline: Notify::new() }
    }

    /// Takes a job that lives as long as its handle.
    pub(crate) fn submit(self: &Arc<Self>, work: JobWork, options: &JobOptions) -> JobHandle {
        let (job, plan) = (JobId(Uuid::now_v7()), Plan::new(work, self.chunk_size));
        let (sender, answer) = oneshot::channel();
        let spec = JobSpec { worker_wait: Some(self.worker_wait), ..plan.spec(options) };
        self.change(|core| {
            let taken = core.scheduler.submit(job, spec, &History::default(), Instant::now());
            taken.expect("a new id, and a range has a task");
            core.jobs.insert(job, Awaited { plan, answer: sender });
        });
        JobHandle { grid: Arc::clone(self), job, tasks: plan.tasks(), answer }
    }

    /// The best lease for a slot now, if there is one for it.
    pub(crate) fn claim(&self, lane: Lane) -> Option<(Assignment, Revoked)> {
        let attempt = AttemptId(Uuid::now_v7());
        let mut core = self.lock();
        let lease = core.scheduler.claim(lane, LeaseSize::Fitting, attempt, Instant::now()).ok().flatten()?;
        let Lease { attempt, job, tasks, horizon, expires_at } = lease;
        let plan = core.jobs[&job].plan;
        let (sender, revoked) = oneshot::channel();
        core.revocations.insert(attempt, sender);
        core.settle();
        self.rearm(&mut core);
        let work = plan.work(&tasks, horizon).expect("a worker gets only the kinds that it runs");
        let (numbers, max_value) = (plan.numbers(&tasks), plan.max_value(&tasks));
        let tasks = tasks.end - tasks.start;
        Some((Assignment { job, attempt, work, tasks, numbers, max_value, expires_at }, revoked))
    }

    /// Tells the core how an attempt ended.
    pub(crate) fn report(&self, attempt: AttemptId, end: LeaseEnd) -> Result<(), StaleAttempt> {
        self.change(|core| {
            core.revocations.remove(&attempt);
            match end {
                LeaseEnd::Completed(outcome) => core.scheduler.complete(attempt, outcome).map(drop),
                LeaseEnd::HandedBack => core.scheduler.hand_back(attempt),
                LeaseEnd::Failed(cause) => core.scheduler.fail(attempt, cause),
            }
        })
    }

    pub(crate) fn worker_joined(&self, worker: WorkerKey, spec: WorkerSpec) {
        self.change(|core| core.scheduler.worker_joined(worker, spec));
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

    /// Tasks of all jobs by where they are.
    pub(crate) fn counts(&self) -> TaskCounts {
        self.lock().scheduler.counts()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.lock().scheduler.has_work()
    }

    /// How far every job is.
    pub(crate) fn progress(&self) -> Vec<TaskCounts> {
        let core = self.lock();
        core.jobs.keys().filter_map(|job| core.scheduler.progress(*job)).collect()
    }

    /// Ends every job.
    pub(crate) fn stop(&self) {
        self.change(|core| {
            for (job, awaited) in std::mem::take(&mut core.jobs) {
                // It may be over since.
                let _ = core.scheduler.cancel(job);
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
        if core.scheduler.has_work() {
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
                Event::JobStarted { .. } | Event::AttemptFailed { .. } | Event::TasksFailed { .. } => (),
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
                // It may be over since.
                let _ = core.scheduler.cancel(self.job);
            }
        });
    }
}
