//! Leases of attempts that run already: a coordinator that starts takes them over from the workers that report them.

use std::ops::Range;
use std::time::Instant;

use model::{AttemptId, JobId};

use super::claim::Start;
use super::{Scheduler, times};
use crate::lease::{AdoptError, Lane, Lease};
use crate::spec::Order;

impl Scheduler {
    /// Leases exactly these tasks to an attempt that its worker has already, as if it had claimed them at `begun_at`, or now if
    /// it waits for its slot and `begun_at` is `None`. All of the tasks must be open; the failures of their earlier attempts
    /// still count. The worker may be suspended or retired. The attempt that runs in a slot is to be adopted before the attempt
    /// that waits for the slot: the time limit of the latter includes that of both, and begins at the end of the former if that has
    /// none.
    ///
    /// A lease that has expired by now ends at the next timeout unless it is renewed.
    ///
    /// # Errors
    /// Nothing changes if the attempt holds a lease, the worker is unknown, the job is over, unknown or paused, or some of
    /// the tasks are not open.
    pub fn adopt(
        &mut self,
        lane: Lane,
        attempt: AttemptId,
        job: JobId,
        tasks: Range<u64>,
        begun_at: Option<Instant>,
        now: Instant,
    ) -> Result<Lease, AdoptError> {
        if self.leases.contains_key(&attempt) {
            return Err(AdoptError::AttemptInUse);
        }
        let worker = self.workers.get(lane.worker).ok_or(AdoptError::UnknownWorker)?;
        let may_walk = worker.availability == crate::workers::Availability::Active;
        let adopting = self.jobs.get_mut(&job).ok_or(AdoptError::UnknownJob)?;
        if adopting.is_paused {
            return Err(AdoptError::JobPaused);
        }
        let walker = (may_walk && adopting.spec.order == Order::Stripes).then_some(lane);
        let run = adopting.tasks.take_exactly(&tasks, walker).ok_or(AdoptError::TasksNotOpen)?;
        if walker.is_some() {
            self.walk(lane, job);
        }
        self.note_turn(job, lane, now);
        self.workers.slot_gone(lane);
        // A slot runs one lease at a time; the other leases of the slot that a worker lists have ended.
        let rounds = if begun_at.is_none() { self.leases_ahead(lane).min(1) } else { 0 };
        let claimed_at = begun_at.map_or(now, |begun_at| begun_at.min(now));
        let start = Start { claimed_at, continues: false, rounds, is_pushed: true };
        let lease = self.start(job, run, lane, attempt, start);
        self.refresh(job);
        Ok(lease)
    }

    /// Whether an attempt at these tasks that began at `begun_at` is past its time limit, and some of the tasks have failed
    /// before: the end of this attempt may be among these failures.
    #[must_use]
    pub fn may_have_timed_out(&self, job: JobId, tasks: &Range<u64>, begun_at: Instant, now: Instant) -> bool {
        let Some(job) = self.jobs.get(&job) else { return false };
        let Some(limit) = job.spec.task_timeout else { return false };
        let time = times(limit, tasks.end.saturating_sub(tasks.start)).saturating_add(job.spec.lease_slack);
        now.saturating_duration_since(begun_at) >= time && job.tasks.have_failed(tasks)
    }
}
