//! What comes of a lease: done, failed, handed back, renewed, revoked.

use std::time::Instant;

use model::AttemptId;

use super::{Held, Scheduler, times};
use crate::event::{Event, JobError};
use crate::lease::{Counted, Failure, Outcome, StaleAttempt};
use crate::pool::Standing;
use crate::spec::OnExhausted;

/// A task whose attempts ended with their workers this many times has killed them.
const MAX_KILLS: u32 = 3;

impl Scheduler {
    /// Counts an outcome. If the run had a second attempt, that one loses its lease.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn complete(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<Counted, StaleAttempt> {
        let held = self.end_lease(attempt)?;
        if let Some(rival) = held.rival {
            self.revoke(rival);
        }
        let still_here = self.pool.get(held.lane.worker).is_some();
        let job = self.job_mut(held.job);
        if still_here {
            job.learn_pace(held.lane.worker, held.run.len(), outcome.busy, held.setup);
        }
        job.tasks.finish(&held.run);
        job.total += outcome.value;
        self.refresh(held.job);
        self.end_if_over(held.job);
        Ok(Counted { job: held.job, tasks: held.run.tasks })
    }

    /// Takes the tasks of a failed attempt back, or ends them when it was the last attempt allowed. What a retired
    /// worker loses does not count as an attempt: a lease may have been on its way when it left.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn fail(&mut self, attempt: AttemptId, cause: Failure) -> Result<(), StaleAttempt> {
        let is_leaving = self.is_leaving(attempt)?;
        let held = self.end_lease(attempt)?;
        if is_leaving && cause == Failure::WorkerLost {
            self.return_unharmed(held);
        } else {
            self.return_failed(held, cause);
        }
        Ok(())
    }

    /// Takes the tasks of an attempt back that its worker gives up. From a retired worker it does not count as an
    /// attempt; any other has no reason to.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn hand_back(&mut self, attempt: AttemptId) -> Result<(), StaleAttempt> {
        let is_leaving = self.is_leaving(attempt)?;
        let held = self.end_lease(attempt)?;
        if is_leaving {
            self.return_unharmed(held);
        } else {
            self.return_failed(held, Failure::Refused("its worker handed it back".to_owned()));
        }
        Ok(())
    }

    /// Takes the tasks of an attempt back that never came to its worker: they were not tried.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn undeliverable(&mut self, attempt: AttemptId) -> Result<(), StaleAttempt> {
        let held = self.end_lease(attempt)?;
        self.return_unharmed(held);
        Ok(())
    }

    /// Lets a lease last for another [`crate::Policy::lease_timeout`] from now, but no longer than its job's timeout for an
    /// attempt allows. Returns when it ends.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn renew(&mut self, attempt: AttemptId, now: Instant) -> Result<Instant, StaleAttempt> {
        let held = self.leases.get_mut(&attempt).ok_or(StaleAttempt)?;
        let limit =
            self.jobs[&held.job].spec.task_timeout.map(|timeout| held.claimed_at + times(timeout, held.run.len()));
        let until = (now + self.policy.lease_timeout).max(held.expires_at);
        let until = limit.map_or(until, |limit| until.min(limit));
        self.expiries.remove(&(held.expires_at, attempt));
        held.expires_at = until;
        self.expiries.insert((until, attempt));
        Ok(until)
    }

    /// Whether the attempt's worker is retired.
    fn is_leaving(&self, attempt: AttemptId) -> Result<bool, StaleAttempt> {
        let worker = self.leases.get(&attempt).ok_or(StaleAttempt)?.lane.worker;
        Ok(self.pool.get(worker).is_some_and(|worker| worker.standing == Standing::Retired))
    }

    /// Ends a lease whose worker may be alive.
    pub(super) fn end_lease(&mut self, attempt: AttemptId) -> Result<Held, StaleAttempt> {
        let held = self.take_lease(attempt).ok_or(StaleAttempt)?;
        self.drop_if_drained(held.lane.worker);
        Ok(held)
    }

    /// Ends a lease, and tells its worker.
    pub(super) fn revoke(&mut self, attempt: AttemptId) -> Option<Held> {
        let held = self.end_lease(attempt).ok()?;
        self.events.push_back(Event::LeaseRevoked { attempt });
        Some(held)
    }

    /// Removes every trace of a lease but the tasks, which the caller puts in their place. A rival goes on alone.
    pub(super) fn take_lease(&mut self, attempt: AttemptId) -> Option<Held> {
        let held = self.leases.remove(&attempt)?;
        self.expiries.remove(&(held.expires_at, attempt));
        self.stragglers.forget(attempt, held.late_at);
        self.pool.let_go(held.lane.worker, attempt);
        if let Some((id, rival)) = held.rival.and_then(|id| Some((id, self.leases.get_mut(&id)?))) {
            rival.rival = None;
            // It is as late as it was, and may get another second attempt.
            rival.late_at.into_iter().for_each(|late_at| self.stragglers.watch(id, late_at));
        }
        Some(held)
    }

    pub(super) fn return_unharmed(&mut self, held: Held) {
        if held.rival.is_none() {
            self.job_mut(held.job).tasks.give_back(held.run);
            self.refresh(held.job);
        }
    }

    pub(super) fn return_failed(&mut self, held: Held, cause: Failure) {
        let Held { job: id, mut run, lane, rival, .. } = held;
        if let Some(rival) = rival.and_then(|rival| self.leases.get_mut(&rival)) {
            // Another attempt at the same run goes on: nothing is lost yet, but this worker has had its chance.
            rival.run.failures += 1;
            rival.run.last_worker = Some(lane.worker);
            let (tasks, failures, worker) = (run.tasks, rival.run.failures, lane.worker);
            return self.events.push_back(Event::AttemptFailed { job: id, tasks, failures, worker, cause });
        }
        run.failures += 1;
        run.kills += u32::from(cause == Failure::WorkerLost);
        run.last_worker = Some(lane.worker);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let is_exhausted = run.failures >= job.spec.max_attempts || run.kills >= MAX_KILLS;
        let (tasks, failures, worker) = (run.tasks.clone(), run.failures, lane.worker);
        match job.spec.on_exhausted {
            OnExhausted::FailJob if is_exhausted => {
                return self.fail_job(id, JobError::AttemptsExhausted { tasks, attempts: failures, cause });
            }
            // Which of several tasks is to blame shows when each is tried alone.
            OnExhausted::SkipTask if is_exhausted && run.len() == 1 => {
                job.tasks.give_up(run);
                self.events.push_back(Event::TasksFailed { job: id, tasks, failures, worker, cause });
            }
            OnExhausted::FailJob | OnExhausted::SkipTask => {
                job.tasks.give_back(run);
                self.events.push_back(Event::AttemptFailed { job: id, tasks, failures, worker, cause });
            }
        }
        self.refresh(id);
        self.end_if_over(id);
    }
}
