//! The shell around the scheduling core: owns its lock, its clock and its timers, brings its events to those who wait for
//! them and what must last to the store. No policy is here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api::Work;
use jiff::Timestamp;
use model::{
    AttemptId, JobId, JobKind, JobOptions, JobState, JobWork, NumberRange, Requirements, TaskCounts, WorkerId,
};
use scheduler::{
    Event, Failure, History, JobError, JobSpec, Lane, Lease, LeaseSize, Outcome, Policy, Scheduler, StaleAttempt,
    UnknownJob, WaitReason, WorkerKey, WorkerSpec,
};
use serde_json::value::RawValue;
use store::{Change, ResultBody, Store, UnfinishedJob};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use crate::plan::Plan;
use crate::rates::{Rate, Throughput};

/// Changes that may wait for the disk before no more work is given out.
const MAX_BACKLOG: u64 = 50_000;

/// Why a job has no answer.
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
    pub(crate) tasks: Range<u64>,
    /// Numbers to search, for kinds with a range.
    pub(crate) numbers: Option<NumberRange>,
    /// The largest value that the outcome can have.
    pub(crate) max_value: u128,
    pub(crate) expires_at: Instant,
}

/// A lease that a worker fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
    pub(crate) plan: Plan,
    pub(crate) tasks: Range<u64>,
    /// The task before which its lane will probably stop.
    pub(crate) horizon: u64,
    pub(crate) expires_at: Instant,
}

/// Resolves with `Ok` when an attempt lost its lease and its worker should stop.
pub(crate) type Revoked = oneshot::Receiver<()>;

/// How an attempt ended, as far as its worker's answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Completed(Outcome),
    HandedBack,
    /// It never came to its worker.
    Undeliverable,
    /// The task failed, by no fault of its worker.
    TaskFailed(Failure),
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

/// A stored job whose individual answers have to be put together before it has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Composing(pub(crate) JobId);

/// What there is to know of a job that the grid works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveJob {
    pub(crate) counts: TaskCounts,
    pub(crate) attempts: u64,
    pub(crate) tasks_per_second: Option<f64>,
    pub(crate) numbers_done: Option<u128>,
}

/// Individual tasks that are with a worker.
#[derive(Clone, Debug)]
pub(crate) struct HeldTasks {
    pub(crate) tasks: Range<u64>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) allocated_at: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Grid {
    core: Mutex<Core>,
    store: Arc<Store>,
    chunk_size: NonZeroU64,
    /// How long a job whose client waits for it waits for a first worker.
    worker_wait: Duration,
    last_worker: AtomicU64,
    /// Wakes the dispatcher: there is more work, or another free slot.
    work: Notify,
    /// Wakes the workers that wait for a task.
    fetch: Notify,
    /// Wakes the timer: the next deadline came nearer.
    deadline: Notify,
}

#[derive(Debug)]
struct Core {
    scheduler: Scheduler,
    jobs: HashMap<JobId, Live>,
    leases: HashMap<AttemptId, Held>,
    workers: HashMap<WorkerKey, WorkerId>,
    composing: mpsc::UnboundedSender<Composing>,
    /// Stored jobs with tasks done since the last tick.
    progressed: HashSet<JobId>,
    throughput: Throughput,
    armed_for: Option<Instant>,
}

#[derive(Debug)]
struct Live {
    plan: Plan,
    keeper: Keeper,
    attempts: u64,
    rate: Rate,
}

/// Who a job is for.
#[derive(Debug)]
enum Keeper {
    /// A client that waits; nothing of it is stored.
    Client(oneshot::Sender<Answer>),
    /// The store.
    Store,
}

#[derive(Debug)]
struct Held {
    worker: WorkerKey,
    tasks: Range<u64>,
    job: JobId,
    allocated_at: Timestamp,
    /// A worker that was sent its lease is told when it ends; one that fetched it finds out.
    revoke: Option<oneshot::Sender<()>>,
}

impl Grid {
    pub(crate) fn new(
        policy: Policy,
        chunk_size: NonZeroU64,
        worker_wait: Duration,
        store: Arc<Store>,
    ) -> (Self, mpsc::UnboundedReceiver<Composing>) {
        let (composing, to_compose) = mpsc::unbounded_channel();
        let core = Core {
            scheduler: Scheduler::new(policy),
            jobs: HashMap::new(),
            leases: HashMap::new(),
            workers: HashMap::new(),
            composing,
            progressed: HashSet::new(),
            throughput: Throughput::new(Instant::now()),
            armed_for: None,
        };
        let grid = Self {
            core: Mutex::new(core),
            store,
            chunk_size,
            worker_wait,
            last_worker: AtomicU64::new(0),
            work: Notify::new(),
            fetch: Notify::new(),
            deadline: Notify::new(),
        };
        (grid, to_compose)
    }

    /// How a new job divides.
    pub(crate) fn plan(&self, work: JobWork) -> Plan {
        Plan::new(work, self.chunk_size)
    }

    /// How a stored job divides: as it did when it was accepted.
    pub(crate) fn stored_plan(&self, work: JobWork, options: &JobOptions) -> Plan {
        Plan::new(work, options.chunk_size.unwrap_or(self.chunk_size))
    }

    /// Numbers from a new task's first to its last.
    pub(crate) fn chunk_size(&self) -> NonZeroU64 {
        self.chunk_size
    }

    /// Takes a job that lives as long as its handle.
    pub(crate) fn submit(self: &Arc<Self>, work: JobWork, options: &JobOptions) -> JobHandle {
        let (job, plan) = (JobId(Uuid::now_v7()), self.plan(work));
        let (sender, answer) = oneshot::channel();
        let spec = JobSpec { worker_wait: Some(self.worker_wait), ..plan.spec(options) };
        self.change(|core| {
            core.jobs.insert(job, Live::new(plan, Keeper::Client(sender)));
            let taken = core.scheduler.submit(job, spec, &History::default(), Instant::now());
            taken.expect("a new id, and a range has a task");
        });
        JobHandle { grid: Arc::clone(self), job, tasks: plan.tasks(), answer }
    }

    /// Works on a stored job from where it stands; its time runs from `since`. One that is here already stays as it is.
    pub(crate) fn take_up(&self, job: UnfinishedJob, since: Timestamp) {
        let (id, plan) = (job.record.id, self.stored_plan(job.work, &job.record.options));
        let mut spec = plan.spec(&job.record.options);
        spec.deadline = deadline(&job, since);
        let history = History {
            over: job.done,
            failed: job.failed,
            retries: job.retries,
            total: job.record.value,
            has_started: job.record.started_at.is_some(),
            is_paused: job.record.state == JobState::Paused,
        };
        self.change(|core| {
            if core.jobs.contains_key(&id) {
                return;
            }
            core.jobs.insert(id, Live::new(plan, Keeper::Store));
            let taken = core.scheduler.submit(id, spec, &history, Instant::now());
            taken.expect("it was not here, and a stored job has tasks");
        });
    }

    /// The best lease for a slot now, if there is one for it.
    pub(crate) fn claim(&self, lane: Lane) -> Option<(Assignment, Revoked)> {
        let (sender, revoked) = oneshot::channel();
        let Fetched { job, attempt, plan, tasks, expires_at, horizon } =
            self.lease(lane, LeaseSize::Fitting, Some(sender))?;
        let work = plan.work(&tasks, horizon).expect("a worker is sent only the kinds that it runs");
        let (numbers, max_value) = (plan.numbers(&tasks), plan.max_value(&tasks));
        Some((Assignment { job, attempt, work, tasks, numbers, max_value, expires_at }, revoked))
    }

    /// The best tasks for a worker that fetches them itself, `max_tasks` at most.
    pub(crate) fn fetch(&self, worker: WorkerKey, max_tasks: u64) -> Option<Fetched> {
        self.lease(Lane { worker, slot: 0 }, LeaseSize::AtMost(max_tasks), None)
    }

    /// Like [`Self::fetch`], for a worker in this process that is told when it loses the lease.
    pub(crate) fn fetch_revocable(&self, worker: WorkerKey) -> Option<(Fetched, Revoked)> {
        let (sender, revoked) = oneshot::channel();
        let fetched = self.lease(Lane { worker, slot: 0 }, LeaseSize::AtMost(1), Some(sender))?;
        Some((fetched, revoked))
    }

    fn lease(&self, lane: Lane, size: LeaseSize, revoke: Option<oneshot::Sender<()>>) -> Option<Fetched> {
        if self.store.backlog() > MAX_BACKLOG {
            return None;
        }
        let attempt = AttemptId(Uuid::now_v7());
        let mut core = self.lock();
        let lease = core.scheduler.claim(lane, size, attempt, Instant::now()).ok().flatten()?;
        let Lease { attempt, job, tasks, horizon, expires_at } = lease;
        let live = core.jobs.get_mut(&job).expect("a lease's job is there");
        live.attempts += 1;
        let plan = live.plan;
        let allocated_at = Timestamp::now();
        let held = Held { worker: lane.worker, tasks: tasks.clone(), job, allocated_at, revoke };
        core.leases.insert(attempt, held);
        core.settle(&self.store);
        self.rearm(&mut core);
        Some(Fetched { job, attempt, plan, tasks, expires_at, horizon })
    }

    /// Tells the core how an attempt ended, with what the worker answered to each individual task.
    pub(crate) fn report(
        &self,
        attempt: AttemptId,
        end: LeaseEnd,
        results: Vec<Box<RawValue>>,
    ) -> Result<(), StaleAttempt> {
        match end {
            // What is done leaves nothing behind for those who wait for a task, and its slot goes on by itself.
            LeaseEnd::Completed(outcome) => {
                let mut core = self.lock();
                let counted = core.complete(attempt, outcome, results, &self.store);
                core.settle(&self.store);
                self.rearm(&mut core);
                counted
            }
            LeaseEnd::HandedBack => self.change(|core| core.scheduler.release(attempt, Instant::now())),
            LeaseEnd::Undeliverable => self.change(|core| core.scheduler.undeliverable(attempt)),
            LeaseEnd::TaskFailed(cause) | LeaseEnd::Failed(cause) => {
                self.change(|core| core.scheduler.fail(attempt, cause, Instant::now()))
            }
        }
    }

    /// What an attempt that a worker fetched is for, and how long it has been held.
    pub(crate) fn held(&self, attempt: AttemptId) -> Option<(Plan, Range<u64>, Duration)> {
        let core = self.lock();
        let held = core.leases.get(&attempt)?;
        let age = Duration::try_from(Timestamp::now().duration_since(held.allocated_at)).unwrap_or_default();
        Some((core.jobs.get(&held.job)?.plan, held.tasks.clone(), age))
    }

    /// Jobs by state, and leases in all.
    pub(crate) fn jobs_and_leases(&self) -> (BTreeMap<String, u64>, u64) {
        let core = self.lock();
        let mut jobs = BTreeMap::new();
        for id in core.jobs.keys() {
            if let Some(state) = core.scheduler.state(*id) {
                *jobs.entry(state.to_string()).or_default() += 1;
            }
        }
        (jobs, core.leases.len() as u64)
    }

    /// Lets a lease last longer; returns until when.
    pub(crate) fn renew(&self, attempt: AttemptId) -> Result<Instant, StaleAttempt> {
        self.change(|core| core.scheduler.renew(attempt, Instant::now()))
    }

    /// Ends a stored job here.
    pub(crate) fn cancel(&self, job: JobId) {
        self.change(|core| {
            core.jobs.remove(&job);
            // It may be over since.
            let _ = core.scheduler.cancel(job);
        });
    }

    pub(crate) fn pause(&self, job: JobId) -> Result<bool, UnknownJob> {
        self.change(|core| core.scheduler.pause(job))
    }

    pub(crate) fn resume(&self, job: JobId) -> Result<bool, UnknownJob> {
        self.change(|core| core.scheduler.resume(job, Instant::now()))
    }

    /// Opens what has failed of a stored job again, here and in the store, which must hear of it in the same order as
    /// of the tasks that fail meanwhile.
    pub(crate) fn retry(&self, job: JobId) -> Result<(), UnknownJob> {
        self.change(|core| {
            core.scheduler.retry(job, Instant::now())?;
            self.store.record(Change::Retried { job, at: Timestamp::now() });
            Ok(())
        })
    }

    /// A key that no worker had before.
    pub(crate) fn next_worker_key(&self) -> WorkerKey {
        WorkerKey(self.last_worker.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn worker_joined(&self, worker: WorkerKey, id: WorkerId, spec: WorkerSpec) {
        self.change(|core| {
            core.workers.insert(worker, id);
            core.scheduler.worker_joined(worker, spec);
        });
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
        self.lock().workers.remove(&worker);
    }

    /// Leases that a worker holds.
    pub(crate) fn leases_of(&self, worker: WorkerKey) -> usize {
        self.lock().scheduler.leases_of(worker)
    }

    /// Tasks of all jobs by where they are.
    pub(crate) fn counts(&self) -> TaskCounts {
        self.lock().scheduler.counts()
    }

    /// Tasks that wait, by the priorities 1 to 9.
    pub(crate) fn pending_by_priority(&self) -> [u64; 9] {
        self.lock().scheduler.pending_by_priority()
    }

    /// Tasks and numbers a second, lately.
    pub(crate) fn throughput(&self) -> (f64, f64) {
        self.lock().throughput.per_second()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.lock().scheduler.has_work()
    }

    /// Changes that wait to be committed, and why they must wait longer than usual.
    pub(crate) fn store_backlog(&self) -> (u64, Option<String>) {
        (self.store.backlog(), self.store.is_failing())
    }

    /// How far every job is.
    pub(crate) fn progress(&self) -> Vec<TaskCounts> {
        let core = self.lock();
        core.jobs.keys().filter_map(|job| core.scheduler.progress(*job)).collect()
    }

    /// How far one job is.
    pub(crate) fn live(&self, job: JobId) -> Option<LiveJob> {
        let core = self.lock();
        let (live, counts) = (core.jobs.get(&job)?, core.scheduler.progress(job)?);
        let numbers_done = live.plan.numbers_in(counts.succeeded);
        let tasks_per_second = live.rate.per_second();
        Some(LiveJob { counts, attempts: live.attempts, tasks_per_second, numbers_done })
    }

    /// The tasks of a job that are with workers, by their numbers.
    pub(crate) fn held_tasks(&self, job: JobId) -> Vec<HeldTasks> {
        let core = self.lock();
        let of_job = core.leases.values().filter(|held| held.job == job);
        let mut held: Vec<_> = of_job
            .map(|held| HeldTasks {
                tasks: held.tasks.clone(),
                worker: core.workers.get(&held.worker).cloned(),
                allocated_at: held.allocated_at,
            })
            .collect();
        held.sort_by_key(|held| held.tasks.start);
        held
    }

    pub(crate) fn explain(&self, job: JobId) -> Option<WaitReason> {
        self.lock().scheduler.explain(job)
    }

    /// What keeps every worker that is there now from running such a job; nothing if one could.
    pub(crate) fn mismatch(&self, kind: JobKind, requires: &Requirements) -> Option<WaitReason> {
        self.lock().scheduler.mismatch(kind, requires)
    }

    /// Ends every job that a client waits for, and gives out nothing more of the others: they go on with the next
    /// coordinator.
    pub(crate) fn stop(&self) {
        self.change(|core| {
            for (job, live) in std::mem::take(&mut core.jobs) {
                // It may be over since.
                let _ = core.scheduler.cancel(job);
                if let Keeper::Client(answer) = live.keeper {
                    // Whoever asked may be gone already.
                    let _ = answer.send(Err(JobFailure::Stopping));
                }
            }
        });
    }

    /// Resolves when there may be a slot for some work.
    pub(crate) async fn work_to_give_out(&self) {
        self.work.notified().await;
    }

    /// Resolves when there may be a task for a worker that fetches; enable it before the fetch that may fail.
    pub(crate) fn work_to_fetch(&self) -> tokio::sync::futures::Notified<'_> {
        self.fetch.notified()
    }

    /// Says that a slot may have become free.
    pub(crate) fn slots_changed(&self) {
        self.work.notify_one();
    }

    /// Takes stock: how fast things go, and for those who follow a job how far it is. To be called every second.
    pub(crate) fn tick(&self) {
        let (now, at) = (Instant::now(), Timestamp::now());
        let mut guard = self.lock();
        let core = &mut *guard;
        core.throughput.tick(now);
        for job in core.progressed.drain() {
            let Some(live) = core.jobs.get_mut(&job) else { continue };
            if let Some(counts) = core.scheduler.progress(job) {
                live.rate.tick(counts.succeeded, now);
                self.store.record(Change::Progress { job, at });
            }
        }
        drop(guard);
        // Work may have been held back while the disk was slow.
        if self.has_work() {
            self.work.notify_one();
            self.fetch.notify_waiters();
        }
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

    /// Changes the core and wakes whoever may have something to do then.
    fn change<T>(&self, operation: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let result = operation(&mut core);
        core.settle(&self.store);
        self.rearm(&mut core);
        let has_work = core.scheduler.has_work();
        drop(core);
        if has_work {
            self.work.notify_one();
            self.fetch.notify_waiters();
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
    /// Counts an outcome, in the core and, for a stored job, in the store, which hears of it in the same order.
    fn complete(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        results: Vec<Box<RawValue>>,
        store: &Store,
    ) -> Result<(), StaleAttempt> {
        let counted = self.scheduler.complete(attempt, outcome)?;
        let held = self.leases.remove(&attempt).expect("a lease of the core is known here");
        let Some(live) = self.jobs.get(&counted.job) else { return Ok(()) };
        let numbers = live.plan.numbers(&counted.tasks).map_or(0, NumberRange::len);
        self.throughput.count(counted.tasks.end - counted.tasks.start, numbers);
        if matches!(live.keeper, Keeper::Store) {
            self.progressed.insert(counted.job);
            let completed_at = Timestamp::now();
            let kept = live.plan.is_individual().then(|| store::Outcome {
                attempt,
                worker: self.workers.get(&held.worker).map_or_else(String::new, ToString::to_string),
                allocated_at: held.allocated_at,
                running_at: completed_at
                    .saturating_sub(outcome.busy)
                    .unwrap_or(held.allocated_at)
                    .max(held.allocated_at),
                completed_at,
                results,
            });
            let (job, tasks, value) = (counted.job, counted.tasks, outcome.value);
            store.record(Change::Completed { job, tasks, value, outcome: kept });
        }
        Ok(())
    }

    /// Acts on what the core says has happened.
    fn settle(&mut self, store: &Store) {
        while let Some(event) = self.scheduler.poll_event() {
            let at = Timestamp::now();
            match event {
                Event::JobStarted { job } => {
                    if self.is_stored(job) {
                        store.record(Change::Started { job, at });
                    }
                }
                Event::AttemptFailed { job, tasks, failures, lane, cause, .. } => {
                    if self.is_stored(job) {
                        let (worker, error) = (self.name(lane.worker), cause.to_string());
                        store.record(Change::AttemptFailed { job, tasks, failures, at, worker, error });
                    }
                }
                Event::TasksFailed { job, tasks, failures, lane, cause, .. } => {
                    if self.is_stored(job) {
                        let (worker, error) = (self.name(lane.worker), cause.to_string());
                        store.record(Change::TasksFailed { job, tasks, failures, at, worker, error });
                    }
                }
                Event::JobSucceeded { job, total } => self.end(job, Ok(total), store),
                Event::JobFailed { job, error } => self.end(job, Err(error), store),
                Event::LeaseRevoked { attempt, .. } => {
                    if let Some(revoke) = self.leases.remove(&attempt).and_then(|held| held.revoke) {
                        // The request may just have ended.
                        let _ = revoke.send(());
                    }
                }
            }
        }
        // Leases that ended without a word: failed, handed back, or with their worker.
        let scheduler = &self.scheduler;
        if self.leases.len() > scheduler.leases() {
            self.leases.retain(|attempt, _| scheduler.holds(*attempt));
        }
    }

    fn end(&mut self, id: JobId, answer: Result<u128, JobError>, store: &Store) {
        let Some(live) = self.jobs.remove(&id) else { return };
        self.progressed.remove(&id);
        match (live.keeper, answer) {
            (Keeper::Client(waiting), answer) => {
                // Whoever asked may just have gone.
                let _ = waiting.send(answer.map_err(JobFailure::from));
            }
            (Keeper::Store, Err(error)) => {
                let (state, error, at) = (JobState::Failed, Some(error.to_string()), Timestamp::now());
                store.record(Change::Ended { job: id, state, result: None, error, at });
            }
            (Keeper::Store, Ok(total)) => match live.plan.result(total) {
                Some(result) => {
                    let (state, result, at) = (JobState::Succeeded, Some(ResultBody::Inline(result)), Timestamp::now());
                    store.record(Change::Ended { job: id, state, result, error: None, at });
                }
                // The other end lives as long as the coordinator.
                None => drop(self.composing.send(Composing(id))),
            },
        }
    }

    fn is_stored(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|live| matches!(live.keeper, Keeper::Store))
    }

    fn name(&self, worker: WorkerKey) -> String {
        self.workers.get(&worker).map_or_else(String::new, ToString::to_string)
    }
}

impl Live {
    fn new(plan: Plan, keeper: Keeper) -> Self {
        Self { plan, keeper, attempts: 0, rate: Rate::default() }
    }
}

/// When a stored job must be over, by this process's clock.
fn deadline(job: &UnfinishedJob, since: Timestamp) -> Option<Instant> {
    let timeout = Duration::from_secs(job.record.options.timeout.job_seconds?.get().into());
    let age = Timestamp::now().duration_since(since);
    let age = Duration::try_from(age).unwrap_or_default();
    Some(Instant::now() + timeout.saturating_sub(age))
}

impl JobHandle {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
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
