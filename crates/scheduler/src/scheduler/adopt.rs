//! Leases of attempts that run already: a coordinator that starts takes them over from the workers that report them.

use std::ops::Range;
use std::time::Instant;

use model::{AttemptId, JobId};

use super::Scheduler;
use super::claim::Start;
use crate::lease::{AdoptError, Lane, Lease};
use crate::spec::Order;

impl Scheduler {
    /// Leases exactly these tasks to an attempt that runs them already, as if it had claimed them at `claimed_at`. All of
    /// them must be open; the failures of their earlier attempts still count. The worker may be suspended or retired. Of
    /// the leases of one slot the one that runs is to be adopted first: the time limit of the other is that of both.
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
        claimed_at: Instant,
        now: Instant,
    ) -> Result<Lease, AdoptError> {
        if self.leases.contains_key(&attempt) {
            return Err(AdoptError::AttemptInUse);
        }
        let worker = self.workers.get(lane.worker).ok_or(AdoptError::UnknownWorker)?;
        let may_walk = worker.standing == crate::workers::Standing::Active;
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
        // It has waited for one other lease of its slot at most, which was adopted before it.
        let rounds = self.leases_ahead(lane).min(1);
        let start = Start { claimed_at: claimed_at.min(now), continues: false, rounds, is_pushed: true };
        let lease = self.start(job, run, lane, attempt, start);
        self.refresh(job);
        Ok(lease)
    }
}
