//! The state machine: jobs, the workers that may serve them, and the leases between the two.

mod adopt;
#[cfg(any(test, feature = "invariants"))]
mod check;
mod choice;
mod claim;
mod idle;
mod limits;
mod outcome;
mod timeouts;
mod view;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, TaskCounts};

use crate::event::{Event, JobError};
use crate::figures::{Figures, JobFigures};
use crate::id_map::IdMap;
use crate::job::Job;
use crate::lease::{Lane, Revocation, UnknownJob, WorkerKey};
use crate::patience::Patience;
use crate::queue::{ClassId, Queue};
use crate::spec::{History, JobSpec, OnExhausted, Policy};
use crate::stragglers::Stragglers;
use crate::tasks::Run;
use crate::workers::Workers;

/// The job cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The id belongs to another job.
    #[error("a job of this id is there already")]
    Duplicate,
    /// The job has no tasks.
    #[error("a job has at least one task")]
    NoTasks,
}

#[derive(Debug)]
struct LeaseRecord {
    job: JobId,
    run: Run,
    lane: Lane,
    claimed_at: Instant,
    /// Leases of a slot run in the order of these instants.
    queued_at: Instant,
    /// Whether the lease has waited for another lease of its slot, and its time limit allows for the longest wait.
    has_waited: bool,
    /// Whether a lease that was given later has ended first.
    was_overtaken: bool,
    /// Whether the lease was adopted by a report and its worker has reported nothing since.
    is_silent: bool,
    expires_at: Instant,
    /// Instant at which the tasks' own time limit is reached.
    limit_at: Option<Instant>,
    late_at: Option<Instant>,
    /// Expected time before the first task.
    setup: Duration,
    /// The other attempt at the same run, where there are two.
    rival: Option<AttemptId>,
}

/// Jobs, workers and leases. See the crate's description for the contract of every method.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    jobs: IdMap<JobId, Job>,
    queue: Queue,
    workers: Workers,
    leases: IdMap<AttemptId, LeaseRecord>,
    expiries: BTreeSet<(Instant, AttemptId)>,
    deadlines: BTreeSet<(Instant, JobId)>,
    /// Instants at which a run stops being held back from the worker that had it last.
    holds: BTreeSet<(Instant, JobId)>,
    stragglers: Stragglers,
    patience: Patience,
    /// The job that each lane walks.
    walks: BTreeMap<Lane, JobId>,
    /// The slot that [`Self::next_idle`] offered last.
    offered: Option<Lane>,
    last_turn: u64,
    /// Recent duration of each class's tasks in multiples of their estimate, and the worker that showed it.
    paces: IdMap<ClassId, (WorkerKey, f64)>,
    figures: Figures,
    events: VecDeque<Event>,
    /// The last counts of jobs that have failed, until they are taken.
    failed_counts: BTreeMap<JobId, TaskCounts>,
}

impl Scheduler {
    /// A scheduler without jobs and workers.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            jobs: IdMap::default(),
            queue: Queue::default(),
            workers: Workers::default(),
            leases: IdMap::default(),
            expiries: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            holds: BTreeSet::new(),
            stragglers: Stragglers::default(),
            patience: Patience::default(),
            walks: BTreeMap::new(),
            offered: None,
            last_turn: 0,
            paces: IdMap::default(),
            figures: Figures::default(),
            events: VecDeque::new(),
            failed_counts: BTreeMap::new(),
        }
    }

    /// Takes a job in the state that its history describes. A job without open tasks ends immediately, and so does a job that
    /// fails with a task that has no attempts left.
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
            self.workers.add_class(class, spec.kind, &spec.requires, now);
            self.queue.set_served(class, self.workers.slots_for(class) > 0);
        }
        self.deadlines.extend(spec.deadline.map(|deadline| (deadline, id)));
        self.last_turn += 1;
        // The failure of such a job's task was stored without the end of the job.
        let failed: u64 = history.failed.iter().map(|tasks| tasks.end - tasks.start).sum();
        let has_failed = failed > 0 && spec.on_exhausted == OnExhausted::FailJob;
        let total = spec.tasks;
        let pace = self.paces.get(&class).filter(|(worker, _)| self.workers.get(*worker).is_some());
        let pace = pace.map(|(_, pace)| *pace);
        self.jobs.insert(id, Job::new(spec, class, self.last_turn, history, pace, now));
        self.refresh(id);
        self.end_if_over(id);
        if has_failed {
            self.fail_job(id, JobError::TasksFailed { failed, total });
        }
        Ok(())
    }

    /// Ends a job without a result and revokes its leases.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn cancel(&mut self, job: JobId) -> Result<(), UnknownJob> {
        if self.remove_job(job) { Ok(()) } else { Err(UnknownJob) }
    }

    /// Leases no tasks of a job until it is resumed, and revokes its leases. Returns whether the job was not paused before.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn pause(&mut self, id: JobId) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if std::mem::replace(&mut job.is_paused, true) {
            return Ok(false);
        }
        for attempt in self.attempts_of(id) {
            if let Some(record) = self.revoke(attempt, Revocation::Paused)
                && record.rival.is_none()
            {
                self.job_mut(id).tasks.give_back(record.run);
            }
        }
        self.refresh(id);
        Ok(true)
    }

    /// Lets a paused job continue. Returns whether the job was paused.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn resume(&mut self, id: JobId, now: Instant) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if !std::mem::replace(&mut job.is_paused, false) {
            return Ok(false);
        }
        self.restart_waiting(id, now);
        self.refresh(id);
        Ok(true)
    }

    /// Lets the open tasks of a job that was held be claimed. Without effect on any other job.
    pub fn release_hold(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let (was_held, class) = (std::mem::replace(&mut job.is_held, false), job.class);
            self.refresh(id);
            // Slots that found nothing before are offered again: its tasks were open all the time.
            if was_held {
                self.workers.note_change(class);
            }
        }
    }

    /// Opens the failed tasks of a job again, whose waiting and time limit count from now on. Returns whether there were any.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn retry(&mut self, id: JobId, now: Instant) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        if let Some(timeout) = job.spec.retry_timeout {
            let deadline = now + timeout;
            if let Some(before) = job.spec.deadline.replace(deadline) {
                self.deadlines.remove(&(before, id));
            }
            self.deadlines.insert((deadline, id));
        }
        if job.tasks.failed() == 0 {
            return Ok(false);
        }
        job.tasks.reopen_failed();
        self.restart_waiting(id, now);
        self.refresh(id);
        Ok(true)
    }

    /// The next event, the oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    fn job_mut(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a lease's job is there")
    }

    fn attempts_of(&self, id: JobId) -> Vec<AttemptId> {
        self.jobs.get(&id).into_iter().flat_map(|job| &job.leases).copied().collect()
    }

    fn restart_waiting(&mut self, id: JobId, now: Instant) {
        self.leave_patience(id);
        let job = self.job_mut(id);
        (job.waiting_since, job.patient_since) = (now, now);
        self.enter_patience(id);
    }

    /// Updates the queue and all figures to the state of the job.
    fn refresh(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (class, due) = (job.class, job.place_due());
        let figures = job.figures(self.policy.lease_target);
        let before = job.counted.replace(figures);
        let has_more = due.is_some() && before.is_none_or(|before| figures.offers_more_than(&before));
        if job.place != due {
            if due.is_none() || job.place.is_none() {
                self.leave_patience(id);
            }
            self.move_job(id);
            self.enter_patience(id);
        }
        self.recount(class, before, Some(figures));
        self.refresh_stragglers(id);
        if has_more {
            self.workers.note_change(class);
        }
    }

    /// Moves a job to the place in the queue that is due.
    fn move_job(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let due = job.place_due();
        let before = std::mem::replace(&mut job.place, due);
        before.into_iter().for_each(|place| self.queue.remove(place));
        due.into_iter().for_each(|place| self.queue.insert(place, id));
        before.into_iter().for_each(|place| self.queue.settle(place));
    }

    fn recount(&mut self, class: ClassId, before: Option<JobFigures>, after: Option<JobFigures>) {
        let is_served = self.workers.slots_for(class) > 0;
        let open = |figures: Option<JobFigures>| figures.map_or(0, |figures| figures.open_tasks());
        if let Some(figures) = before.or(after) {
            self.queue.recount(class, figures.priority, open(before), open(after));
        }
        before.iter().for_each(|before| self.figures.subtract(before, is_served));
        after.iter().for_each(|after| self.figures.add(after, is_served));
    }

    /// Counts a job among those that may get second attempts, if it has late leases and no open tasks.
    fn refresh_stragglers(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let is_ready = self.stragglers.has_late(id) && !job.is_paused && job.tasks.unclaimed() == 0;
        if self.stragglers.set_ready(job.class, id, is_ready) {
            self.workers.note_change(job.class);
        }
    }

    /// Lets a job without open tasks wait no longer than its class is unserved.
    fn enter_patience(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if let (Some(_), Some(wait)) = (job.place, job.spec.worker_wait) {
            self.patience.insert(job.class, wait, job.patient_since, id);
            self.patience.rearm(job.class, self.workers.unserved_since(job.class));
        }
    }

    fn leave_patience(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if let Some(wait) = job.spec.worker_wait {
            self.patience.remove(job.class, wait, job.patient_since, id);
            self.patience.rearm(job.class, self.workers.unserved_since(job.class));
        }
    }

    /// Ends a job without open and held tasks.
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
            self.failed_counts.insert(id, counts);
            let error = JobError::TasksFailed { failed: counts.failed, total: counts.total };
            Event::JobFailed { job: id, error }
        });
    }

    fn fail_job(&mut self, id: JobId, error: JobError) {
        let counts = self.progress(id);
        if self.remove_job(id) {
            // Nothing of it is leased any more.
            let ended =
                |counts: TaskCounts| TaskCounts { pending: counts.pending + counts.running, running: 0, ..counts };
            self.failed_counts.extend(counts.map(|counts| (id, ended(counts))));
            self.events.push_back(Event::JobFailed { job: id, error });
        }
    }

    fn remove_job(&mut self, id: JobId) -> bool {
        if !self.jobs.contains_key(&id) {
            return false;
        }
        for attempt in self.attempts_of(id) {
            self.revoke(attempt, Revocation::JobOver);
        }
        self.leave_patience(id);
        let job = self.jobs.remove(&id).expect("it was just there");
        if let Some(place) = job.place {
            self.queue.remove(place);
            self.queue.settle(place);
        }
        self.stragglers.set_ready(job.class, id, false);
        self.recount(job.class, job.counted, None);
        if let Some(unused) = self.queue.leave(job.class) {
            self.workers.remove_class(unused);
            self.paces.remove(&unused);
        }
        if let Some(deadline) = job.spec.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        true
    }
}

/// The longest that a lease may take, so that no sum of instants overflows.
const MAX_LEASE_TIME: Duration = Duration::from_hours(24 * 366);

/// `timeout` for each of `tasks` tasks.
fn times(timeout: Duration, tasks: u64) -> Duration {
    timeout.saturating_mul(u32::try_from(tasks).unwrap_or(u32::MAX)).min(MAX_LEASE_TIME)
}
