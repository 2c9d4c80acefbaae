//! The state machine: jobs, the workers that may serve them, and the leases between the two.

#[cfg(test)]
mod check;
mod claim;
mod outcome;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, JobState, Priority, TaskCounts};

use crate::event::{Event, JobError};
use crate::job::Job;
use crate::lease::{Failure, Lane, UnknownJob, WorkerKey};
use crate::pool::{Pool, Standing};
use crate::queue::{Place, Queue};
use crate::spec::{History, JobSpec, Policy, WorkerSpec};
use crate::stragglers::Stragglers;
use crate::tasks::Run;

/// The job cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// A job of this id is there already.
    #[error("a job of this id is there already")]
    Duplicate,
    /// A job has at least one task.
    #[error("a job has at least one task")]
    NoTasks,
}

#[derive(Debug)]
struct Held {
    job: JobId,
    run: Run,
    lane: Lane,
    claimed_at: Instant,
    expires_at: Instant,
    late_at: Option<Instant>,
    /// What it paid before its first task, about.
    setup: Duration,
    /// The other attempt at the same run, where there are two.
    rival: Option<AttemptId>,
}

/// Jobs, workers and leases. See the crate's description for the contract of every method.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    jobs: HashMap<JobId, Job>,
    queue: Queue,
    pool: Pool,
    leases: HashMap<AttemptId, Held>,
    expiries: BTreeSet<(Instant, AttemptId)>,
    deadlines: BTreeSet<(Instant, JobId)>,
    stragglers: Stragglers,
    /// The job that each lane walks.
    walks: BTreeMap<Lane, JobId>,
    /// Jobs that do not wait for ever for a first worker.
    impatient: BTreeSet<JobId>,
    last_turn: u64,
    /// Tasks of all jobs.
    counts: TaskCounts,
    /// Of these, those that wait, by the priorities 1 to 9 of their jobs.
    pending: [u64; 9],
    events: VecDeque<Event>,
}

impl Scheduler {
    /// A scheduler without jobs and workers.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            jobs: HashMap::new(),
            queue: Queue::default(),
            pool: Pool::default(),
            leases: HashMap::new(),
            expiries: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            stragglers: Stragglers::default(),
            walks: BTreeMap::new(),
            impatient: BTreeSet::new(),
            last_turn: 0,
            counts: TaskCounts::default(),
            pending: [0; 9],
            events: VecDeque::new(),
        }
    }

    /// Takes a job, with what it has behind it. One that has nothing before it any more ends at once.
    ///
    /// # Errors
    /// The id is in use, or there are no tasks.
    pub fn submit(&mut self, id: JobId, spec: JobSpec, history: &History, now: Instant) -> Result<(), SubmitError> {
        if spec.tasks == 0 {
            return Err(SubmitError::NoTasks);
        }
        if self.jobs.contains_key(&id) {
            return Err(SubmitError::Duplicate);
        }
        let (class, is_new) = self.queue.enter(spec.kind, &spec.requires);
        if is_new {
            self.pool.add_class(class, spec.kind, &spec.requires, now);
        }
        self.deadlines.extend(spec.deadline.map(|deadline| (deadline, id)));
        if spec.worker_wait.is_some() {
            self.impatient.insert(id);
        }
        self.last_turn += 1;
        self.jobs.insert(id, Job::new(spec, class, self.last_turn, history, now));
        self.refresh(id);
        self.end_if_over(id);
        Ok(())
    }

    /// Ends a job without an answer and revokes its leases.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn cancel(&mut self, job: JobId) -> Result<(), UnknownJob> {
        if self.remove_job(job) { Ok(()) } else { Err(UnknownJob) }
    }

    /// Gives out nothing of a job until it is resumed, and revokes its leases. Tells whether that is a change.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn pause(&mut self, id: JobId) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if std::mem::replace(&mut job.is_paused, true) {
            return Ok(false);
        }
        for attempt in self.attempts_of(id) {
            if let Some(held) = self.revoke(attempt)
                && held.rival.is_none()
            {
                self.job_mut(id).tasks.give_back(held.run);
            }
        }
        self.refresh(id);
        Ok(true)
    }

    /// Lets a paused job go on. Tells whether that is a change.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn resume(&mut self, id: JobId, now: Instant) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if !std::mem::replace(&mut job.is_paused, false) {
            return Ok(false);
        }
        job.waiting_since = now;
        self.refresh(id);
        Ok(true)
    }

    /// Opens the failed tasks of a job again. Tells whether there were any.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn retry(&mut self, id: JobId) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        let has_failed = job.tasks.failed() > 0;
        job.tasks.reopen_failed();
        self.refresh(id);
        Ok(has_failed)
    }

    /// Adds a worker.
    pub fn worker_joined(&mut self, worker: WorkerKey, spec: WorkerSpec) {
        self.pool.join(worker, spec, self.queue.classes());
    }

    /// Stops giving leases to a worker until it is resumed; those it holds stay good.
    pub fn worker_suspended(&mut self, worker: WorkerKey, now: Instant) {
        self.pool.deactivate(worker, Standing::Suspended, now);
        self.end_walks(worker);
    }

    /// Gives leases to a suspended worker again.
    pub fn worker_resumed(&mut self, worker: WorkerKey) {
        self.pool.resume(worker);
    }

    /// Stops giving leases to a worker for good; those it holds stay good.
    pub fn worker_retired(&mut self, worker: WorkerKey, now: Instant) {
        self.pool.deactivate(worker, Standing::Retired, now);
        self.end_walks(worker);
        self.drop_if_drained(worker);
    }

    /// Ends a worker and the leases it holds; their tasks are the next to be given out.
    pub fn worker_lost(&mut self, worker: WorkerKey, now: Instant) {
        self.pool.deactivate(worker, Standing::Retired, now);
        let Some(lost) = self.pool.remove(worker) else { return };
        self.end_walks(worker);
        for attempt in lost.held {
            // The first of them may have failed a job and so revoked the others.
            if let Some(held) = self.take_lease(attempt) {
                self.return_failed(held, Failure::WorkerLost);
            }
        }
        self.forget_worker(worker);
    }

    /// When [`Self::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(expires_at, _)| *expires_at);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let give_up = self.impatient.iter().filter_map(|id| self.give_up_at(*id)).min();
        [expiry, deadline, give_up, self.stragglers.next_due()].into_iter().flatten().min()
    }

    /// Ends the leases that have expired, the jobs whose time is over and those that have waited too long for a worker.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((expires_at, attempt)) = self.expiries.first().copied()
            && expires_at <= now
        {
            let held = self.revoke(attempt).expect("an expiry belongs to a lease");
            self.return_failed(held, Failure::Expired);
        }
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.fail_job(id, JobError::TimedOut);
        }
        let waited_out: Vec<_> =
            self.impatient.iter().copied().filter(|id| self.give_up_at(*id).is_some_and(|at| at <= now)).collect();
        for id in waited_out {
            let waited = self.jobs[&id].spec.worker_wait.unwrap_or_default();
            self.fail_job(id, JobError::NoWorker { waited });
        }
        self.stragglers.note_late(now);
    }

    /// What happened since the last poll, the oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether there may be something for a free slot: a task that waits, or one worth a second attempt.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_servable = |class| self.pool.slots_for(class) > 0;
        self.queue.waiting_classes().any(is_servable) || !self.stragglers.is_empty()
    }

    /// Tasks of all jobs by where they are.
    #[must_use]
    pub fn counts(&self) -> TaskCounts {
        self.counts
    }

    /// Tasks that wait, by the priority of their jobs; the first element is priority 1.
    #[must_use]
    pub fn pending_by_priority(&self) -> [u64; 9] {
        self.pending
    }

    /// Leases that `worker` holds.
    #[must_use]
    pub fn leases_of(&self, worker: WorkerKey) -> usize {
        self.pool.get(worker).map_or(0, |worker| worker.held.len())
    }

    /// The tasks of a job by where they are; `None` when it is over.
    #[must_use]
    pub fn progress(&self, job: JobId) -> Option<TaskCounts> {
        self.jobs.get(&job).map(Job::counts)
    }

    /// Whether a job waits, runs or is paused; `None` when it is over.
    #[must_use]
    pub fn state(&self, job: JobId) -> Option<JobState> {
        let job = self.jobs.get(&job)?;
        Some(match (job.is_paused, job.has_started) {
            (true, _) => JobState::Paused,
            (false, true) => JobState::Running,
            (false, false) => JobState::Queued,
        })
    }

    /// Leases in all.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Whether an attempt holds a lease.
    #[must_use]
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.leases.contains_key(&attempt)
    }

    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    fn job_mut(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a lease's job is there")
    }

    /// Brings the queue and the counts up to what the job says.
    fn refresh(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let due = job.place_due();
        if job.place != due {
            job.place.into_iter().for_each(|place: Place| self.queue.remove(place));
            due.into_iter().for_each(|place| self.queue.insert(place, id));
            job.place = due;
        }
        let counts = job.counts();
        let (before, priority) = (std::mem::replace(&mut job.counted, counts), job.spec.priority);
        self.recount(priority, before, counts);
    }

    fn recount(&mut self, priority: Priority, before: TaskCounts, after: TaskCounts) {
        let all = &mut self.counts;
        for (all, before, after) in [
            (&mut all.total, before.total, after.total),
            (&mut all.pending, before.pending, after.pending),
            (&mut all.running, before.running, after.running),
            (&mut all.succeeded, before.succeeded, after.succeeded),
            (&mut all.failed, before.failed, after.failed),
            (&mut self.pending[usize::from(priority.get()) - 1], before.pending, after.pending),
        ] {
            *all = all.wrapping_sub(before).wrapping_add(after);
        }
    }

    /// Ends a job that has nothing before it any more.
    fn end_if_over(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let counts = job.counts();
        if counts.pending > 0 || counts.running > 0 {
            return;
        }
        let total = job.total;
        self.remove_job(id);
        self.events.push_back(if counts.failed == 0 {
            Event::JobSucceeded { job: id, total }
        } else {
            let error = JobError::TasksFailed { failed: counts.failed, total: counts.total };
            Event::JobFailed { job: id, error }
        });
    }

    fn fail_job(&mut self, id: JobId, error: JobError) {
        if self.remove_job(id) {
            self.events.push_back(Event::JobFailed { job: id, error });
        }
    }

    fn remove_job(&mut self, id: JobId) -> bool {
        if !self.jobs.contains_key(&id) {
            return false;
        }
        for attempt in self.attempts_of(id) {
            self.revoke(attempt);
        }
        let job = self.jobs.remove(&id).expect("it was just there");
        job.place.into_iter().for_each(|place| self.queue.remove(place));
        if self.queue.leave(job.class) {
            self.pool.remove_class(job.class);
        }
        if let Some(deadline) = job.spec.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.impatient.remove(&id);
        self.recount(job.spec.priority, job.counted, TaskCounts::default());
        true
    }

    fn attempts_of(&self, id: JobId) -> BTreeSet<AttemptId> {
        self.leases.iter().filter(|(_, held)| held.job == id).map(|(attempt, _)| *attempt).collect()
    }

    fn drop_if_drained(&mut self, worker: WorkerKey) {
        if self.pool.is_drained(worker) {
            self.pool.remove(worker);
            self.forget_worker(worker);
        }
    }

    /// Others may go on where the worker's lanes were.
    fn end_walks(&mut self, worker: WorkerKey) {
        let lanes = Lane { worker, slot: 0 }..=Lane { worker, slot: u32::MAX };
        let ended: Vec<_> = self.walks.range(lanes).map(|(lane, id)| (*lane, *id)).collect();
        for (lane, id) in ended {
            self.walks.remove(&lane);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.tasks.leave(lane);
            }
        }
    }

    fn forget_worker(&mut self, worker: WorkerKey) {
        for job in self.jobs.values_mut() {
            job.forget_worker(worker);
        }
    }

    /// When a job that waits for a first worker stops waiting.
    fn give_up_at(&self, id: JobId) -> Option<Instant> {
        let job = &self.jobs[&id];
        job.place?;
        let since = self.pool.unserved_since(job.class)?;
        Some(since.max(job.submitted_at) + job.spec.worker_wait?)
    }
}

/// The longest that a lease may take, so that no sum of instants overflows.
const MAX_PATIENCE: Duration = Duration::from_hours(24 * 366);

/// `timeout` for each of `tasks` tasks.
fn times(timeout: Duration, tasks: u64) -> Duration {
    timeout.saturating_mul(u32::try_from(tasks).unwrap_or(u32::MAX)).min(MAX_PATIENCE)
}
