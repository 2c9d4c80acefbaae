//! Applies an operation to the scheduler and to the model.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::harness::{broken, job, lane, worker};
use super::operations::{JobOperation, KINDS, LeaseOperation, Operation, WorkerOperation, shaped, shaped_worker};
use super::{Known, Model};
use crate::{ActiveLease, Lane, LeaseSize};

impl Model {
    pub(super) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::GiveOut => self.give_out(),
            Operation::Wait { ms } => self.grid.wait(Duration::from_millis(ms)),
            Operation::Job(operation) => self.apply_to_job(operation),
            Operation::Worker(operation) => self.apply_to_worker(operation),
            Operation::Lease(operation) => self.apply_to_lease(operation),
        }
        self.settle();
    }

    fn apply_to_job(&mut self, operation: JobOperation) {
        match operation {
            JobOperation::Submit { tasks, shape, priority } => {
                self.next += 1;
                let spec = shaped(tasks, shape, priority);
                self.grid.submit_spec(self.next.into(), spec.clone());
                let done = vec![false; usize::try_from(tasks).expect("few")];
                let is_last_open = !spec.last_task_waits || tasks == 1;
                let known = Known { spec, done, failed: BTreeSet::new(), is_paused: false, is_last_open };
                self.jobs.insert(job(self.next.into()), known);
            }
            JobOperation::Cancel { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    self.grid.scheduler.cancel(id).expect("a live job");
                    self.forget(id);
                }
            }
            JobOperation::Pause { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    let known = self.jobs.get_mut(&id).expect("just picked");
                    let was_paused = std::mem::replace(&mut known.is_paused, true);
                    assert_eq!(self.grid.scheduler.pause(id), Ok(!was_paused));
                    assert_eq!(self.grid.scheduler.progress(id).map(|counts| counts.running), Some(0));
                }
            }
            JobOperation::Continue { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    let known = self.jobs.get_mut(&id).expect("just picked");
                    let was_paused = std::mem::replace(&mut known.is_paused, false);
                    assert_eq!(self.grid.scheduler.resume(id, self.grid.now), Ok(was_paused));
                }
            }
            JobOperation::Retry { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    self.grid.scheduler.retry(id, self.grid.now).expect("a live job");
                    self.jobs.get_mut(&id).expect("just picked").failed.clear();
                    assert_eq!(self.grid.scheduler.progress(id).map(|counts| counts.failed), Some(0));
                }
            }
            JobOperation::Reopen { pick } => {
                if let Some(id) = self.pick_job(pick) {
                    self.reopen(id);
                }
            }
        }
    }

    fn apply_to_worker(&mut self, operation: WorkerOperation) {
        match operation {
            WorkerOperation::Join { slots, shape } => {
                self.next += 1;
                self.grid.join(self.next, shaped_worker(slots, shape));
                self.specs.insert(self.next, shaped_worker(slots, shape));
                self.workers.push(self.next);
            }
            WorkerOperation::Lose { pick } => {
                if let Some(lost) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_lost(worker(lost), self.grid.now);
                    self.forget_worker(lost);
                }
            }
            WorkerOperation::Retire { pick } => {
                if let Some(leaving) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_retired(worker(leaving), self.grid.now);
                    self.forget_worker(leaving);
                }
            }
            WorkerOperation::Suspend { pick } => {
                if let Some(idle) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_suspended(worker(idle), self.grid.now);
                }
            }
            WorkerOperation::Resume { pick } => {
                if let Some(back) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_resumed(worker(back));
                }
            }
            WorkerOperation::SetAside { pick } => {
                if let Some(liar) = self.pick_worker(pick) {
                    self.grid.scheduler.worker_set_aside(worker(liar), self.grid.now);
                    self.forget_worker(liar);
                }
            }
            WorkerOperation::Lack { pick, kind } => {
                if let Some(lacking) = self.pick_worker(pick) {
                    let kind = KINDS[kind];
                    self.grid.scheduler.worker_lacks(worker(lacking), kind, self.grid.now);
                    let spec = self.specs.get_mut(&lacking).expect("a worker of the pool");
                    spec.kinds.retain(|known| *known != kind);
                }
            }
            WorkerOperation::Idle { pick, slot } => {
                if let Some(waiting) = self.pick_worker(pick) {
                    let lane = Lane { slot, ..lane(waiting) };
                    if !self.is_busy(lane) {
                        self.grid.scheduler.slot_idle(lane);
                        self.idle.insert(lane);
                    }
                }
            }
            WorkerOperation::Gone { pick, slot } => {
                if let Some(waiting) = self.pick_worker(pick) {
                    let lane = Lane { slot, ..lane(waiting) };
                    self.grid.scheduler.slot_gone(lane);
                    self.idle.remove(&lane);
                }
            }
        }
    }

    fn apply_to_lease(&mut self, operation: LeaseOperation) {
        match operation {
            LeaseOperation::Claim { pick, slot, size } => {
                if let Some(claimant) = self.pick_worker(pick) {
                    let size = size.map_or(LeaseSize::Fitting, LeaseSize::AtMost);
                    self.claim(Lane { slot, ..lane(claimant) }, size);
                }
            }
            LeaseOperation::Renew { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.renew(lease.attempt, self.grid.now);
                }
            }
            LeaseOperation::RestartLimit { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.restart_limit(lease.attempt, self.grid.now);
                }
            }
            LeaseOperation::Overtake { pick, other, age_ms } => {
                if let (Some(running), Some(waiting)) = (self.pick_lease(pick), self.pick_lease(other)) {
                    let (scheduler, now) = (&mut self.grid.scheduler, self.grid.now);
                    let begun_at =
                        now.checked_sub(Duration::from_millis(age_ms)).expect("the clock has run for longer");
                    scheduler.note_order(running.attempt, begun_at, waiting.attempt, now);
                    if let Some(ActiveLease { lane, claimed_at, .. }) = scheduler.lease(running.attempt) {
                        scheduler.note_overtaken(lane, claimed_at, now);
                    }
                }
            }
            LeaseOperation::DemandRenewals { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.demand_renewals(lease.attempt, self.grid.now);
                }
            }
            LeaseOperation::Report { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    self.grid.scheduler.note_report(lease.attempt);
                }
            }
            LeaseOperation::Complete { pick } => {
                if let Some(lease) = self.pick_lease(pick)
                    && self.grid.complete(&lease).is_ok()
                {
                    self.count(&lease);
                }
            }
            LeaseOperation::Fail { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.fail(lease.attempt, broken(), self.grid.now);
                }
            }
            LeaseOperation::Release { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    let _ = self.grid.scheduler.release(lease.attempt, self.grid.now);
                }
            }
            LeaseOperation::Shorten { pick, tasks } => {
                if let Some(lease) = self.pick_lease(pick) {
                    self.shorten(&lease, lease.tasks.start + tasks, pick.is_multiple_of(2));
                }
            }
            LeaseOperation::Contest { pick } => {
                if let Some(lease) = self.pick_lease(pick) {
                    self.contest(&lease);
                }
            }
            LeaseOperation::Adopt { pick, worker, from, tasks, age_ms } => {
                if let (Some(id), Some(worker)) = (self.pick_job(pick), self.pick_worker(worker)) {
                    self.adopt(lane(worker), id, from..from + tasks, Duration::from_millis(age_ms));
                }
            }
        }
    }
}
