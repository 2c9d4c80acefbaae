//! Views of the scheduler's state. The cost of a method grows only with the values that it returns.

use model::{AttemptId, JobId, JobKind, JobState, TaskCounts};

use super::{LeaseRecord, Scheduler};
use crate::figures::{Demand, JobCounts};
use crate::job::Job;
use crate::lease::{ActiveLease, WorkerKey};

impl Scheduler {
    /// Whether there may be work for a free slot: a waiting task, or a lease that is worth a second attempt.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_servable = |class| self.workers.slots_for(class) > 0;
        !self.queue.runnable_classes().is_empty() || self.stragglers.ready_classes().any(is_servable)
    }

    /// Waiting jobs that no ready worker can serve: the job of each class that has waited for longest, at most `limit`.
    #[must_use]
    pub fn unserved(&self, limit: usize) -> Vec<JobId> {
        let classes = self.queue.waiting_classes().iter().filter(|class| self.workers.slots_for(**class) == 0);
        let oldest = classes.filter_map(|class| {
            let heads = self.queue.lines(*class).filter_map(|(_, line)| line.oldest());
            heads.min().map(|(_, job)| job)
        });
        oldest.take(limit).collect()
    }

    /// Tasks of all jobs by state.
    #[must_use]
    pub fn counts(&self) -> TaskCounts {
        self.figures.counts
    }

    /// Open tasks that an active worker could run, by the priority of their jobs; the first element is priority 1.
    #[must_use]
    pub fn runnable_by_priority(&self) -> [u64; 9] {
        self.figures.runnable
    }

    /// Jobs by state.
    #[must_use]
    pub fn state_counts(&self) -> JobCounts {
        self.figures.jobs
    }

    /// The tasks of all jobs of a kind by whether they can run, and the slots that they could use.
    #[must_use]
    pub fn demand(&self, kind: JobKind) -> Demand {
        self.figures.demand(kind)
    }

    /// Slots that all pending and running work could use now; see [`Demand::wanted_slots`].
    #[must_use]
    pub fn wanted_slots(&self) -> u64 {
        self.figures.demands().fold(0, |sum, demand| sum.saturating_add(demand.wanted_slots))
    }

    /// The tasks of a job by state; `None` when it is over.
    #[must_use]
    pub fn progress(&self, job: JobId) -> Option<TaskCounts> {
        self.jobs.get(&job).map(Job::counts)
    }

    /// The last counts of a job of which [`Event::JobFailed`] tells. To be taken with each of these events.
    ///
    /// [`Event::JobFailed`]: crate::Event::JobFailed
    pub fn take_failed_counts(&mut self, job: JobId) -> Option<TaskCounts> {
        self.failed_counts.remove(&job)
    }

    /// Whether a job is queued, running or paused; `None` when it is over.
    #[must_use]
    pub fn state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(Job::state)
    }

    /// The number of leases in all.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// The number of leases that `worker` holds.
    #[must_use]
    pub fn leases_of(&self, worker: WorkerKey) -> usize {
        self.workers.get(worker).map_or(0, |worker| worker.held.len())
    }

    /// Whether an attempt holds a lease.
    #[must_use]
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.leases.contains_key(&attempt)
    }

    /// The lease that an attempt holds.
    #[must_use]
    pub fn lease(&self, attempt: AttemptId) -> Option<ActiveLease> {
        self.leases.get(&attempt).map(|record| record.view(attempt))
    }

    /// Whether another attempt at the same tasks holds a lease, too.
    #[must_use]
    pub fn has_rival(&self, attempt: AttemptId) -> bool {
        self.leases.get(&attempt).is_some_and(|record| record.rival.is_some())
    }

    /// The leases of a job, by attempt.
    pub fn job_leases(&self, job: JobId) -> impl Iterator<Item = ActiveLease> {
        let attempts = self.jobs.get(&job).into_iter().flat_map(|job| &job.leases);
        attempts.map(|attempt| self.leases[attempt].view(*attempt))
    }

    /// The leases that a worker holds, by attempt.
    pub fn worker_leases(&self, worker: WorkerKey) -> impl Iterator<Item = ActiveLease> {
        let attempts = self.workers.get(worker).into_iter().flat_map(|worker| &worker.held);
        attempts.map(|attempt| self.leases[attempt].view(*attempt))
    }
}

impl LeaseRecord {
    fn view(&self, attempt: AttemptId) -> ActiveLease {
        let Self { job, lane, claimed_at, has_waited, expires_at, .. } = *self;
        ActiveLease { attempt, job, tasks: self.run.tasks.clone(), lane, claimed_at, has_waited, expires_at }
    }
}
