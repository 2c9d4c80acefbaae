//! Delivery and ends of leases.

use std::time::{Duration, Instant};

use model::{AttemptId, JobId};
use scheduler::{ActiveLease, AttemptFailure, ComputedValue, Lane, Lease, Revocation, StaleAttempt, WorkerKey};
use store::ChangeKind;
use workloads::{Accepted, InvalidReport, Report};

use crate::effect::{Effect, LeaseOrder, TracedLease};
use crate::engine::Engine;
use crate::standing::Blame;
use crate::time::Now;
use crate::verification::Verdict;

/// The reason why an outcome does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// The attempt holds no lease.
    #[error(transparent)]
    Stale(#[from] StaleAttempt),
    /// The report cannot be one of these tasks. A pulling worker keeps its lease and may report again.
    #[error(transparent)]
    Invalid(#[from] InvalidReport),
}

/// The end of a lease without an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseFailure {
    /// The worker handed the lease back, at no cost to its tasks.
    HandedBack,
    /// The lease never reached the worker.
    Undeliverable,
    /// The worker does not run the kind of the job, though it announced the kind.
    Unsupported,
    /// The tasks failed, through no fault of the worker.
    TaskFailed(String),
    /// The worker failed: it was lost or did not answer as it should.
    WorkerFailed(AttemptFailure),
}

impl Engine {
    /// Counts the outcome of an attempt. Without effect on an outcome that counts already and is not committed yet: its worker
    /// may report it over two connections.
    ///
    /// # Errors
    /// The attempt holds no lease, or the report is invalid. The state is unchanged, except that an invalid report of a pushed
    /// worker fails the lease.
    pub fn complete(
        &mut self,
        attempt: AttemptId,
        report: Report,
        busy: Duration,
        now: Now,
    ) -> Result<(), CompleteError> {
        if self.is_unsettled(attempt) {
            return Ok(());
        }
        let lease = self.scheduler.lease(attempt).ok_or(StaleAttempt)?;
        let ActiveLease { job, tasks, lane, claimed_at, .. } = lease.clone();
        let work = &self.jobs.get(&job).ok_or(StaleAttempt)?.work;
        let accepted = match work.accept(&tasks, report) {
            Ok(accepted) => accepted,
            Err(invalid) => {
                if self.workers.get(&lane.worker).is_some_and(crate::workers::Worker::is_pushed) {
                    let cause =
                        AttemptFailure::Refused(format!("its worker answered a value that cannot be: {invalid}"));
                    // The lease was found just now.
                    let _ = self.fail(attempt, LeaseFailure::WorkerFailed(cause), now);
                }
                return Err(invalid.into());
            }
        };
        let (numbers, weight) = (work.numbers(&tasks), work.weight(&tasks));
        let is_check = work.is_check(&tasks);
        let is_individual = work.profile().is_individual;
        let Verdict::Counts(Accepted { value, check, results }) = self.verify(&lease, accepted, busy, now)? else {
            self.slot_goes_on(&lease, now);
            self.note_completed(lane, &tasks, numbers, busy);
            self.settle(now);
            self.end_at_worker(attempt, lane, now);
            self.dispatch(now);
            return Ok(());
        };
        let counted = self.scheduler.complete(attempt, ComputedValue { value, busy })?;
        self.slot_goes_on(&lease, now);
        self.note_completed(lane, &tasks, numbers, busy);
        if let Some(live) = self.jobs.get_mut(&job) {
            live.ended_attempts += 1;
            live.progress.add(weight);
            live.check = live.check.wrapping_add(check);
            let is_stored = live.is_stored;
            // Most jobs that a client waits for are over with their first lease: those need no rate.
            if is_stored || self.scheduler.progress(job).is_some() {
                self.progressed.insert(job);
            }
            if is_stored {
                let outcome = is_individual.then(|| store::CompletedAttempt {
                    attempt,
                    worker: Some(self.worker_name(lane.worker)),
                    allocated_at: now.calendar(claimed_at),
                    running_at: now.calendar((now.instant.checked_sub(busy).unwrap_or(claimed_at)).max(claimed_at)),
                    completed_at: now.at,
                    results,
                });
                let tasks = counted.tasks;
                let change = if is_check {
                    ChangeKind::Checked { tasks, value: check, busy }
                } else {
                    ChangeKind::Completed { tasks, value, busy, outcome }
                };
                self.record_outcome(job, change, (attempt, lane.worker), now);
            }
        }
        self.settle(now);
        self.end_at_worker(attempt, lane, now);
        self.dispatch(now);
        Ok(())
    }

    /// Ends a lease without an outcome.
    ///
    /// # Errors
    /// The attempt holds no lease: nothing changes.
    pub fn fail(&mut self, attempt: AttemptId, failure: LeaseFailure, now: Now) -> Result<(), StaleAttempt> {
        let lease = self.scheduler.lease(attempt).ok_or(StaleAttempt)?;
        let ActiveLease { job, lane, .. } = lease;
        // The worker is blamed before the tasks are open again, or it could get them.
        match &failure {
            LeaseFailure::Undeliverable | LeaseFailure::HandedBack => self.blame(lane.worker, Blame::Connection, now),
            LeaseFailure::Unsupported => self.note_lacking(lane.worker, job, now),
            LeaseFailure::WorkerFailed(_) => self.blame(lane.worker, Blame::WorkerOrJob(job), now),
            LeaseFailure::TaskFailed(_) => (),
        }
        // A heartbeat that was written before the end may list the attempt. An attempt that could not be delivered may have come
        // to its worker after all.
        let may_be_listed = match &failure {
            LeaseFailure::TaskFailed(_)
            | LeaseFailure::WorkerFailed(_)
            | LeaseFailure::Unsupported
            | LeaseFailure::HandedBack => true,
            LeaseFailure::Undeliverable => false,
        };
        if may_be_listed && self.is_stored(job) {
            self.voided.insert(attempt);
        }
        match failure {
            LeaseFailure::HandedBack => self.scheduler.release(attempt, now.instant)?,
            LeaseFailure::Undeliverable | LeaseFailure::Unsupported => self.scheduler.undeliverable(attempt)?,
            LeaseFailure::TaskFailed(error) => {
                self.scheduler.fail(attempt, AttemptFailure::Refused(error), now.instant)?;
                self.slot_goes_on(&lease, now);
            }
            LeaseFailure::WorkerFailed(cause) => self.scheduler.fail(attempt, cause, now.instant)?,
        }
        self.settle(now);
        self.end_at_worker(attempt, lane, now);
        self.dispatch(now);
        Ok(())
    }

    /// Takes back the tasks of an attempt that its worker hands back, at no cost.
    ///
    /// # Errors
    /// The attempt holds no lease: nothing changes.
    pub fn release(&mut self, attempt: AttemptId, now: Now) -> Result<(), StaleAttempt> {
        let ActiveLease { job, .. } = self.scheduler.lease(attempt).ok_or(StaleAttempt)?;
        // A heartbeat that was written before may list it.
        if self.is_stored(job) {
            self.voided.insert(attempt);
        }
        self.take_back(attempt, now)
    }

    /// Takes the tasks of a lease back at no cost. The attempt may be adopted again.
    pub(crate) fn take_back(&mut self, attempt: AttemptId, now: Now) -> Result<(), StaleAttempt> {
        let ActiveLease { lane, .. } = self.scheduler.lease(attempt).ok_or(StaleAttempt)?;
        self.scheduler.release(attempt, now.instant)?;
        self.settle(now);
        self.end_at_worker(attempt, lane, now);
        self.dispatch(now);
        Ok(())
    }

    /// Takes the tasks from `beyond` on back from a lease of a pulling worker that were not delivered. Returns whether it took
    /// them.
    ///
    /// # Errors
    /// The attempt holds no lease: nothing changes.
    pub fn shorten(&mut self, attempt: AttemptId, beyond: u64, now: Now) -> Result<bool, StaleAttempt> {
        let is_shorter = self.scheduler.shorten(attempt, beyond)?;
        self.settle(now);
        self.dispatch(now);
        Ok(is_shorter)
    }

    /// Takes back the tasks from `beyond` on of a lease whose worker hands them back; no attempt counts. Returns whether the
    /// lease ends at `beyond` or before: a lease that cannot be divided there stays whole.
    ///
    /// # Errors
    /// The attempt holds no lease: nothing changes.
    pub fn release_rest(&mut self, attempt: AttemptId, beyond: u64, now: Now) -> Result<bool, StaleAttempt> {
        let is_shorter = self.scheduler.release_rest(attempt, beyond, now.instant)?;
        self.settle(now);
        self.dispatch(now);
        Ok(is_shorter)
    }

    /// Prolongs a lease; returns its new end.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn renew(&mut self, attempt: AttemptId, now: Now) -> Result<Instant, StaleAttempt> {
        self.scheduler.renew(attempt, now.instant)
    }

    /// Restarts the time limit of an attempt whose worker uploads the tasks' outputs, since the rest of the time is the
    /// coordinator's. Leases that wait for the slot get as much more time.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn hands_in(&mut self, attempt: AttemptId, now: Now) -> Result<(), StaleAttempt> {
        self.scheduler.restart_limits_of_slot(attempt, now.instant)
    }

    /// Keeps the lease of an attempt whose worker holds its outcome while nothing can be stored, whatever the time limit of the
    /// tasks.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn outcome_waits(&mut self, attempt: AttemptId, now: Now) -> Result<(), StaleAttempt> {
        self.scheduler.restart_limit(attempt, now.instant)?;
        self.scheduler.renew(attempt, now.instant).map(drop)
    }

    /// Notes that the connection of a pushed lease has broken before its answer. A lease that outlives its connection goes on at
    /// the worker, which lists it in its heartbeats; any other lease has failed.
    pub fn connection_broke(&mut self, attempt: AttemptId, now: Now) {
        let Some(ActiveLease { job, lane, .. }) = self.scheduler.lease(attempt) else { return };
        if self.is_stored(job)
            && let Some(worker) = self.workers.get_mut(&lane.worker)
        {
            worker.detached.insert(attempt, 0);
        } else {
            // The lease was found just now.
            let _ = self.fail(attempt, LeaseFailure::WorkerFailed(AttemptFailure::WorkerLost), now);
        }
    }

    /// The job and tasks of a lease, and how long it has been held.
    #[must_use]
    pub fn lease(&self, attempt: AttemptId, now: Now) -> Option<(JobId, std::ops::Range<u64>, Duration)> {
        let ActiveLease { job, tasks, claimed_at, .. } = self.scheduler.lease(attempt)?;
        Some((job, tasks, now.instant.saturating_duration_since(claimed_at)))
    }

    /// Whether the attempt holds a lease.
    #[must_use]
    pub fn is_leased(&self, attempt: AttemptId) -> bool {
        self.scheduler.lease(attempt).is_some()
    }

    /// The lease of an attempt at a traced job; `None` if the job is not traced or the attempt holds no lease.
    #[must_use]
    pub fn traced_lease(&self, attempt: AttemptId) -> Option<TracedLease> {
        let ActiveLease { job, tasks, lane, claimed_at, .. } = self.scheduler.lease(attempt)?;
        let live = self.jobs.get(&job)?;
        let (parent, worker_id) = (live.trace.clone()?, self.worker_name(lane.worker));
        Some(TracedLease { parent, job, kind: live.kind, tasks, worker_id, claimed_at })
    }

    pub(crate) fn send(&mut self, lane: Lane, lease: Lease) {
        let Lease { attempt, job, tasks, horizon, expires_at } = lease;
        let live = &self.jobs[&job];
        let (kind, work, outlives_connection) = (live.kind, live.work.lease(&tasks, horizon), live.is_stored);
        let (has_results, trace) = (live.work.profile().is_individual, live.trace.clone());
        let Some(worker) = self.workers.get_mut(&lane.worker) else { return };
        self.effects.push(Effect::Send(Box::new(LeaseOrder {
            worker: lane.worker,
            worker_id: worker.id.clone(),
            slot: lane.slot,
            job,
            attempt,
            kind,
            tasks,
            work,
            expires_at,
            outlives_connection,
            has_results,
            settled: worker.take_settled(),
            trace,
        })));
    }

    /// Notes the reason for which the scheduler has revoked a lease.
    pub(crate) fn lease_revoked(&mut self, attempt: AttemptId, job: JobId, lane: Lane, reason: Revocation, now: Now) {
        match reason {
            // A worker that let a lease expire would do so again.
            Revocation::Expired => {
                self.expired.insert(attempt);
                self.blame(lane.worker, Blame::WorkerOrJob(job), now);
            }
            // Its worker may list it once more before it learns that it has failed.
            Revocation::TimedOut => self.voided.insert(attempt),
            Revocation::JobOver | Revocation::Paused | Revocation::OutrunBySecondAttempt | Revocation::SetAside => (),
        }
    }

    /// Records an outcome. Its attempt is settled when that is durable, and so are the attempts that have reported the same.
    fn record_outcome(&mut self, job: JobId, outcome: ChangeKind, (attempt, worker): (AttemptId, WorkerKey), now: Now) {
        let number = self.record(job, outcome, now);
        self.durability.outcome(number, attempt, worker);
        for (other, worker) in std::mem::take(&mut self.agreed) {
            self.durability.outcome(number, other, worker);
        }
    }

    /// Frees the worker's slot of an attempt and fills it again.
    fn end_at_worker(&mut self, attempt: AttemptId, lane: Lane, now: Now) {
        self.free_slot(attempt, lane, now);
        self.fill_slot(lane, now);
    }

    /// Frees the worker's slot of an attempt.
    pub(crate) fn free_slot(&mut self, attempt: AttemptId, lane: Lane, now: Now) {
        if let Some(worker) = self.workers.get_mut(&lane.worker) {
            worker.detached.remove(&attempt);
            if worker.is_pushed() {
                self.scheduler.begin_limits(lane, now.instant);
            }
            self.vacate(lane);
        }
    }

    /// Notes that the worker has ended a lease and runs the next one of the slot. The leases of a worker that pulls wait for no
    /// other.
    fn slot_goes_on(&mut self, ended: &ActiveLease, now: Now) {
        let ActiveLease { lane, claimed_at, has_waited, .. } = *ended;
        if !self.workers.get(&lane.worker).is_some_and(crate::workers::Worker::is_pushed) {
            return;
        }
        self.scheduler.slot_goes_on(lane, claimed_at, now.instant);
        if has_waited {
            self.scheduler.note_overtaken(lane, claimed_at, now.instant);
        }
    }

    fn note_completed(
        &mut self,
        lane: Lane,
        tasks: &std::ops::Range<u64>,
        numbers: Option<model::NumberRange>,
        busy: Duration,
    ) {
        let (count, searched) = (tasks.end - tasks.start, numbers.map_or(0, model::NumberRange::len));
        self.throughput.count(count, searched);
        let Some(worker) = self.workers.get_mut(&lane.worker) else { return };
        worker.completed_tasks += count;
        worker.succeeded();
        if searched > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            worker.speed.learn(searched as f64, busy.as_secs_f64());
        }
    }
}
