//! Ends and renewals of leases: completed, failed, released, undeliverable, renewed, revoked.

use std::ops::Range;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, WorkerId};

use super::{LeaseRecord, Scheduler};
use crate::event::{Event, JobError};
use crate::lease::{AttemptFailure, ComputedValue, Counted, Revocation, StaleAttempt, UnknownJob, WorkerKey};
use crate::spec::OnExhausted;
use crate::tasks::{MAX_KILLS, Run};
use crate::workers::Availability;

/// A returned run is held back from the worker that had it last for this many times the lease target: another slot has
/// by then ended the lease that it runs and the one that waits behind it, if these are of the usual length.
const HOLD_TARGETS: u32 = 2;

/// Longest time for which a run is held back from its last worker: a run that was handed back repeatedly, and a run with one
/// attempt left, which a single worker that fails at everything must not use up while the others are busy.
const MAX_HOLD: Duration = Duration::from_mins(1);

impl Scheduler {
    /// Counts an outcome. A second attempt at the run loses its lease.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn complete(&mut self, attempt: AttemptId, outcome: ComputedValue) -> Result<Counted, StaleAttempt> {
        let record = self.end_lease(attempt)?;
        if let Some(rival) = record.rival {
            self.revoke(rival, Revocation::OutrunBySecondAttempt);
        }
        let (id, worker) = (record.job, record.lane.worker);
        let job = self.jobs.get_mut(&id).expect("a lease's job is there");
        if self.workers.get(worker).is_some() {
            job.learn_speed(worker, record.run.len(), outcome.busy, record.setup, &self.workers);
            self.paces.extend(job.pace().map(|pace| (job.class, (worker, pace))));
        }
        job.tasks.finish(&record.run);
        job.total = job.total.wrapping_add(outcome.value);
        self.refresh(id);
        self.end_if_over(id);
        Ok(Counted { job: id, tasks: record.run.tasks })
    }

    /// Counts tasks as done that no attempt has run, if all of them are open. Returns whether they were.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn skip(&mut self, id: JobId, tasks: &Range<u64>) -> Result<bool, UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        let Some(run) = job.tasks.take_exactly(tasks, None) else { return Ok(false) };
        job.tasks.finish(&run);
        self.refresh(id);
        self.end_if_over(id);
        Ok(true)
    }

    /// Ends a lease whose outcome is to be compared: its tasks go, as one run, to a worker with another name than `voter` and the
    /// voters before it.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn contest(&mut self, attempt: AttemptId, voter: WorkerId, busy: Duration) -> Result<(), StaleAttempt> {
        let mut record = self.end_lease(attempt)?;
        if let Some(rival) = record.rival {
            self.revoke(rival, Revocation::OutrunBySecondAttempt);
        }
        let (id, worker) = (record.job, record.lane.worker);
        let job = self.jobs.get_mut(&id).expect("a lease's job is there");
        if self.workers.get(worker).is_some() {
            job.learn_speed(worker, record.run.len(), busy, record.setup, &self.workers);
        }
        let run = &mut record.run;
        (run.releases, run.last_worker, run.held_back_until) = (0, None, None);
        run.voters.push(voter);
        job.tasks.give_back(record.run);
        self.refresh(id);
        Ok(())
    }

    /// Opens done tasks again, and takes their part out of the total.
    ///
    /// # Errors
    /// The job is over or unknown.
    pub fn reopen(&mut self, id: JobId, tasks: &[Range<u64>], value: u128) -> Result<(), UnknownJob> {
        let job = self.jobs.get_mut(&id).ok_or(UnknownJob)?;
        tasks.iter().for_each(|tasks| job.tasks.reopen_done(tasks));
        job.total = job.total.wrapping_sub(value);
        self.refresh(id);
        Ok(())
    }

    /// Takes the tasks of a failed attempt back, or ends them when it was the last attempt allowed. Tasks that a retired
    /// worker loses do not count as an attempt: the lease may have been on its way when the worker left.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn fail(&mut self, attempt: AttemptId, cause: AttemptFailure, now: Instant) -> Result<(), StaleAttempt> {
        let is_retired = self.is_retired(attempt)?;
        let record = self.end_lease(attempt)?;
        if is_retired && cause == AttemptFailure::WorkerLost {
            self.return_unharmed(record);
        } else {
            self.return_failed(attempt, record, cause, now);
        }
        Ok(())
    }

    /// Takes the tasks of an attempt back that its worker gives up, at no cost. Other workers get them first: each time in
    /// a row that a worker hands a run back, it gets that run later again.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn release(&mut self, attempt: AttemptId, now: Instant) -> Result<(), StaleAttempt> {
        let is_retired = self.is_retired(attempt)?;
        let mut record = self.end_lease(attempt)?;
        if !is_retired && record.rival.is_none() {
            self.hold_back_released(record.job, &mut record.run, record.lane.worker, now);
        }
        self.return_unharmed(record);
        Ok(())
    }

    /// Takes back the tasks of an attempt that never reached its worker: the tasks were not tried.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn undeliverable(&mut self, attempt: AttemptId) -> Result<(), StaleAttempt> {
        let record = self.end_lease(attempt)?;
        self.return_unharmed(record);
        Ok(())
    }

    /// Takes the tasks from `beyond` on back from a lease that has just been claimed, because they were not delivered to its
    /// worker: they were not tried. Returns whether it took them; a run that two attempts share stays whole, and so does a run
    /// that is to be compared.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn shorten(&mut self, attempt: AttemptId, beyond: u64) -> Result<bool, StaleAttempt> {
        let Some((id, _, rest)) = self.cut(attempt, beyond)? else { return Ok(false) };
        self.job_mut(id).tasks.give_back(rest);
        self.refresh(id);
        Ok(true)
    }

    /// Takes back the tasks from `beyond` on of a lease whose worker hands them back, on the terms of [`Self::release`]. Returns
    /// whether the lease ends at `beyond` or before: the leases that [`Self::shorten`] leaves whole stay whole here too.
    ///
    /// # Errors
    /// The attempt holds no lease; nothing changes.
    pub fn release_rest(&mut self, attempt: AttemptId, beyond: u64, now: Instant) -> Result<bool, StaleAttempt> {
        let is_retired = self.is_retired(attempt)?;
        // A repeated request changes nothing.
        if self.leases.get(&attempt).is_some_and(|record| record.run.tasks.end <= beyond) {
            return Ok(true);
        }
        let Some((id, worker, mut rest)) = self.cut(attempt, beyond)? else { return Ok(false) };
        if !is_retired {
            self.hold_back_released(id, &mut rest, worker, now);
        }
        self.job_mut(id).tasks.give_back(rest);
        self.refresh(id);
        Ok(true)
    }

    /// Cuts the tasks from `beyond` on off a lease. Returns its job, its worker and the rest; `None` if the lease stays whole.
    fn cut(&mut self, attempt: AttemptId, beyond: u64) -> Result<Option<(JobId, WorkerKey, Run)>, StaleAttempt> {
        let record = self.leases.get_mut(&attempt).ok_or(StaleAttempt)?;
        let tasks = record.run.tasks.clone();
        if record.rival.is_some() || record.run.is_contested() || beyond <= tasks.start || beyond >= tasks.end {
            return Ok(None);
        }
        record.run.tasks.end = beyond;
        let rest = Run { tasks: beyond..tasks.end, ..record.run.clone() };
        Ok(Some((record.job, record.lane.worker, rest)))
    }

    /// Lets a lease last for another [`crate::Policy::lease_timeout`] from now, but no longer than the time limit of its
    /// tasks allows. Returns when it ends.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn renew(&mut self, attempt: AttemptId, now: Instant) -> Result<Instant, StaleAttempt> {
        let record = self.leases.get_mut(&attempt).ok_or(StaleAttempt)?;
        let until = (now + self.policy.lease_timeout).max(record.expires_at);
        let until = record.limit_at.map_or(until, |limit| until.min(limit));
        self.expiries.remove(&(record.expires_at, attempt));
        record.expires_at = until;
        self.expiries.insert((until, attempt));
        Ok(until)
    }

    /// Lets an adopted lease end after [`crate::Policy::lease_timeout`] from now unless its worker renews it, as every worker that
    /// pulls does. The report that the lease was adopted by may be late: until [`Self::note_report`] the end by time is no failed
    /// attempt, since the worker may have ended the lease at another coordinator.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn demand_renewals(&mut self, attempt: AttemptId, now: Instant) -> Result<(), StaleAttempt> {
        let record = self.leases.get_mut(&attempt).ok_or(StaleAttempt)?;
        record.is_silent = true;
        self.expiries.remove(&(record.expires_at, attempt));
        record.expires_at = record.expires_at.min(now + self.policy.lease_timeout);
        self.expiries.insert((record.expires_at, attempt));
        Ok(())
    }

    /// Notes that the worker has reported on its lease after it was adopted.
    pub fn note_report(&mut self, attempt: AttemptId) {
        if let Some(record) = self.leases.get_mut(&attempt) {
            record.is_silent = false;
        }
    }

    /// Whether the attempt's worker is retired.
    fn is_retired(&self, attempt: AttemptId) -> Result<bool, StaleAttempt> {
        let worker = self.leases.get(&attempt).ok_or(StaleAttempt)?.lane.worker;
        Ok(self.workers.get(worker).is_some_and(|worker| worker.availability == Availability::Retired))
    }

    /// Ends a lease whose worker may be alive.
    pub(super) fn end_lease(&mut self, attempt: AttemptId) -> Result<LeaseRecord, StaleAttempt> {
        let record = self.take_lease(attempt).ok_or(StaleAttempt)?;
        self.drop_if_drained(record.lane.worker);
        Ok(record)
    }

    /// Ends a lease, and tells the caller to stop its worker.
    pub(super) fn revoke(&mut self, attempt: AttemptId, reason: Revocation) -> Option<LeaseRecord> {
        let record = self.end_lease(attempt).ok()?;
        self.events.push_back(Event::LeaseRevoked { attempt, job: record.job, lane: record.lane, reason });
        Some(record)
    }

    /// Removes a lease from all indexes but the job's tasks, which the caller returns. A rival continues alone.
    pub(super) fn take_lease(&mut self, attempt: AttemptId) -> Option<LeaseRecord> {
        let record = self.leases.remove(&attempt)?;
        self.expiries.remove(&(record.expires_at, attempt));
        self.stragglers.forget(record.job, attempt, record.late_at);
        self.workers.let_go(record.lane, attempt);
        if let Some(job) = self.jobs.get_mut(&record.job) {
            job.leases.remove(&attempt);
        }
        if let Some((id, rival)) = record.rival.and_then(|id| Some((id, self.leases.get_mut(&id)?))) {
            rival.rival = None;
            // The rival is as late as before, and may get another second attempt.
            rival.late_at.into_iter().for_each(|late_at| self.stragglers.watch(id, late_at));
        }
        self.refresh_stragglers(record.job);
        Some(record)
    }

    pub(super) fn return_unharmed(&mut self, record: LeaseRecord) {
        if record.rival.is_none() {
            self.job_mut(record.job).tasks.give_back(record.run);
        }
        self.refresh(record.job);
    }

    /// Takes the run of a failed attempt back.
    pub(super) fn return_failed(
        &mut self,
        attempt: AttemptId,
        record: LeaseRecord,
        cause: AttemptFailure,
        now: Instant,
    ) {
        let LeaseRecord { job: id, mut run, lane, rival, .. } = record;
        if let Some(rival) = rival.and_then(|rival| self.leases.get_mut(&rival)) {
            // Another attempt at the same run goes on: nothing is lost yet, but this worker has had its chance.
            rival.run.failures += 1;
            rival.run.kills += u32::from(cause == AttemptFailure::WorkerLost);
            rival.run.last_worker = Some(lane.worker);
            let (tasks, failures) = (run.tasks, rival.run.failures);
            self.events.push_back(Event::AttemptFailed { job: id, tasks, failures, attempt, lane, cause });
            return self.refresh(id);
        }
        run.failures += 1;
        run.kills += u32::from(cause == AttemptFailure::WorkerLost);
        run.releases = 0;
        let max_attempts = self.jobs.get(&id).map_or(0, |job| job.spec.max_attempts);
        let is_last_attempt_left = run.failures + 1 == max_attempts || run.kills + 1 == MAX_KILLS;
        let hold = if is_last_attempt_left { MAX_HOLD } else { self.policy.lease_target * HOLD_TARGETS };
        self.hold_back(id, &mut run, lane.worker, hold, now);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let is_exhausted = run.failures >= job.spec.max_attempts || run.kills >= MAX_KILLS;
        let (tasks, failures) = (run.tasks.clone(), run.failures);
        match job.spec.on_exhausted {
            OnExhausted::FailJob if is_exhausted => {
                let error =
                    JobError::AttemptsExhausted { tasks: tasks.clone(), attempts: failures, cause: cause.clone() };
                job.tasks.give_up(run);
                self.events.push_back(Event::TasksFailed { job: id, tasks, failures, attempt, lane, cause });
                return self.fail_job(id, error);
            }
            // Halves of the run are tried apart, which shows the failing task.
            OnExhausted::SkipTask if is_exhausted && run.len() == 1 => {
                job.tasks.give_up(run);
                self.events.push_back(Event::TasksFailed { job: id, tasks, failures, attempt, lane, cause });
            }
            OnExhausted::FailJob | OnExhausted::SkipTask => {
                job.tasks.give_back(run);
                self.events.push_back(Event::AttemptFailed { job: id, tasks, failures, attempt, lane, cause });
            }
        }
        self.refresh(id);
        self.end_if_over(id);
    }

    /// Keeps a run from the worker that hands it back, each time in a row for longer.
    fn hold_back_released(&mut self, job: JobId, run: &mut Run, worker: WorkerKey, now: Instant) {
        run.releases = run.releases.saturating_add(1);
        let hold = self.policy.lease_target * HOLD_TARGETS;
        let hold = hold.saturating_mul(1 << (run.releases - 1).min(16)).min(MAX_HOLD);
        self.hold_back(job, run, worker, hold, now);
    }

    /// Keeps a run from the worker that had it last, so that others get it first.
    fn hold_back(&mut self, job: JobId, run: &mut Run, worker: WorkerKey, hold: Duration, now: Instant) {
        run.last_worker = Some(worker);
        run.held_back_until = None;
        if self.workers.get(worker).is_some() {
            let until = now + hold;
            run.held_back_until = Some(until);
            self.holds.insert((until, job));
        }
    }
}
