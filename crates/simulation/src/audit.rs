//! The invariants, from what the parts of a run show: a second bookkeeping beside the engine's and the store's.

mod account;
mod committed;
mod end;
mod fairness;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine::Effect;
use model::{AttemptId, JobId};
use scheduler::{Revocation, WorkerKey};
use store::{Change, ChangeKind};

pub(crate) use account::{Cause, Division};

use crate::coordinator::short;
use crate::plan::{Faults, MS, Micros, SECOND};
use crate::world::World;

/// Longest time for which a reachable worker may go on with an attempt that lost its lease.
const STOP_WITHIN: Micros = 5 * SECOND;

#[derive(Debug, Default)]
pub(crate) struct Audit {
    account: account::Account,
    /// Every attempt that was ever leased.
    attempts: BTreeSet<AttemptId>,
    /// Attempts whose failure at their tasks was counted by this coordinator.
    failed: BTreeSet<AttemptId>,
    /// Counted outcomes by the numbers of their changes.
    outcomes: BTreeMap<AttemptId, u64>,
    last_completed: u64,
    durable: u64,
    ledgers: BTreeMap<JobId, Ledger>,
    /// Times that workers began each task.
    starts: BTreeMap<(JobId, u64), u32>,
    /// Jobs of which a second attempt outran the first.
    outrun: BTreeSet<JobId>,
    overtaken: BTreeMap<JobId, Overtaken>,
    /// Whether a worker or a lease was lost: tasks may have run again.
    pub(crate) is_lossy: bool,
    insisted_at: Micros,
    /// Start of the time in which workers hold attempts that the engine does not know.
    void_since: BTreeMap<AttemptId, Micros>,
}

/// Work time that other jobs got since the last lease of a waiting job.
#[derive(Clone, Copy, Debug, Default)]
struct Overtaken {
    /// The duration of the job's own last lease.
    own: Micros,
    others: Micros,
    longest: Micros,
}

/// The committed state of a job, task by task.
#[derive(Debug, Default)]
struct Ledger {
    done: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
    /// Tasks that are done without a worker.
    skipped: BTreeSet<u64>,
    /// Failed attempts at tasks that have attempts left.
    failures: BTreeMap<u64, u32>,
    /// Attempts that have ended.
    attempts: u64,
    value: u128,
    is_over: bool,
    is_succeeded: bool,
}

impl Audit {
    pub(crate) fn coordinator_starts(&mut self) {
        self.account.coordinator_starts();
        self.outcomes.clear();
        self.failed.clear();
        self.overtaken.clear();
        self.void_since.clear();
        self.durable = 0;
    }

    pub(crate) fn recorded(&mut self, number: u64, change: &Change) {
        self.account.recorded(number);
        if let ChangeKind::Completed { .. } | ChangeKind::Checked { .. } = &change.kind {
            self.last_completed = number;
        }
    }

    /// Whether the failure of an attempt is counted for the first time, if it is counted.
    pub(crate) fn task_failure_counted(&mut self, attempt: AttemptId, is_counted: bool) -> bool {
        !is_counted || self.failed.insert(attempt)
    }

    /// Whether an outcome counts but is not durable.
    pub(crate) fn is_pending(&self, attempt: AttemptId) -> bool {
        self.outcomes.get(&attempt).is_some_and(|number| *number > self.durable)
    }
}

impl World {
    pub(crate) fn audit_effects(&mut self, effects: &[Effect]) {
        self.account_unstored(effects);
        self.account_divided();
        self.account_listed();
        for effect in effects {
            match effect {
                Effect::Send(order) => {
                    let slot = Some((order.worker, order.slot));
                    self.account_leased(order.attempt, order.job, order.tasks.clone(), slot, None);
                    self.audit_lease(order.attempt, order.job, &order.tasks);
                    self.audit_settled(&order.settled);
                }
                Effect::Deliver { claim, lease } => {
                    let puller = self.coordinator.as_ref().and_then(|found| {
                        let (puller, _) = found.claims.get(claim)?;
                        found.pullers.get(puller).map(|known| known.key)
                    });
                    self.account_leased(lease.attempt, lease.job, lease.tasks.clone(), None, puller);
                    self.audit_lease(lease.attempt, lease.job, &lease.tasks);
                }
                Effect::Revoke { attempt, reason, .. } => {
                    if *reason == Revocation::OutrunBySecondAttempt {
                        let job = self.held_attempt_job(*attempt);
                        self.audit.outrun.extend(job);
                    }
                    self.account_revoked(*attempt, *reason);
                }
                Effect::Store(change) => self.account_change(change.job, &change.kind),
                Effect::Answer { .. } | Effect::Suspended { .. } | Effect::Lacks { .. } | Effect::Compose { .. } => (),
            }
        }
        self.check_account_of_input();
    }

    fn held_attempt_job(&self, attempt: AttemptId) -> Option<JobId> {
        self.workers.iter().find_map(|worker| worker.held.get(&attempt)).map(|held| held.order.job)
    }

    /// A claim that was answered at once.
    pub(crate) fn audit_claim(&mut self, key: WorkerKey, attempt: AttemptId) {
        let now = self.clock();
        let lease = self.coordinator.as_ref().and_then(|found| found.engine.lease(attempt, now));
        match lease {
            Some((job, tasks, _)) => {
                self.account_leased(attempt, job, tasks.clone(), None, Some(key));
                self.audit_lease(attempt, job, &tasks);
            }
            None => self.violate("a claim is answered without a lease"),
        }
    }

    fn audit_lease(&mut self, attempt: AttemptId, job: JobId, tasks: &Range<u64>) {
        if !self.audit.attempts.insert(attempt) {
            self.violate(format!("{} is leased twice", short(attempt)));
        }
        if let Some(number) = self.by_id.get(&job).copied() {
            if self.jobs[number].paused_since.is_some() {
                self.violate(format!("job {number} is paused, and tasks {tasks:?} are leased"));
            }
            if self.jobs[number].is_canceled {
                self.violate(format!("job {number} is canceled, and tasks {tasks:?} are leased"));
            }
            if self.plan.faults == Faults::None {
                self.audit_fairness(number, tasks.end - tasks.start);
            }
        }
    }

    /// An outcome counts.
    pub(crate) fn audit_counted(&mut self, attempt: AttemptId, is_stored: bool) {
        let waits = self.coordinator.as_ref().is_some_and(|found| found.engine.is_compared(attempt));
        if is_stored && !waits && self.audit.outcomes.insert(attempt, self.audit.last_completed).is_some() {
            self.violate(format!("{} counts twice", short(attempt)));
        }
    }

    /// Checks that settled attempts, which their worker forgets, are durable or void.
    pub(crate) fn audit_settled(&mut self, settled: &[AttemptId]) {
        for attempt in settled {
            if self.audit.is_pending(*attempt) {
                self.violate(format!("{} is settled before its outcome is durable", short(*attempt)));
            } else if self.audit.outcomes.contains_key(attempt) {
                self.account_settled(*attempt);
            }
        }
    }

    pub(crate) fn audit_durable(&mut self, number: u64) {
        self.audit.durable = self.audit.durable.max(number);
    }

    pub(crate) fn audit_started(&mut self, job: JobId, tasks: &Range<u64>) {
        if self.by_id.contains_key(&job) {
            for task in tasks.clone() {
                *self.audit.starts.entry((job, task)).or_default() += 1;
            }
        }
    }

    /// A worker hands tasks back that it has not begun.
    pub(crate) fn audit_not_started(&mut self, job: JobId, tasks: &Range<u64>) {
        for task in tasks.clone() {
            if let Some(starts) = self.audit.starts.get_mut(&(job, task)) {
                *starts -= 1;
            }
        }
    }

    pub(crate) fn check_step(&mut self) {
        if let Some(coordinator) = self.coordinator.as_ref() {
            coordinator.engine.check();
        }
        self.check_account();
    }

    /// Checks each second that the engine knows all open stored jobs, with a reason to wait, and that attempts without a lease
    /// end.
    pub(crate) fn check_tick(&mut self) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let mut wrong = Vec::new();
        if coordinator.disk.is_idle() {
            for unfinished in coordinator.disk.unfinished(None) {
                let id = unfinished.record.id;
                let is_asked_for = coordinator.locks.contains_key(&id);
                if !is_asked_for && coordinator.engine.explain(id).is_none() {
                    wrong.push(format!("job {} is not over, and the engine does not know it", self.name(id)));
                }
            }
        }
        let unknown = coordinator.registrations.values().find(|known| coordinator.engine.worker(known.key).is_none());
        wrong.extend(unknown.map(|known| format!("the engine does not know the worker {:?}", known.key)));
        self.check_void(&mut wrong);
        wrong.into_iter().for_each(|wrong| self.violate(wrong));
    }

    fn check_void(&mut self, wrong: &mut Vec<String>) {
        let now = self.clock();
        // A coordinator that stops takes no heartbeats, so its workers get no answers.
        let Some(coordinator) = self.coordinator.as_ref().filter(|found| !found.is_stopping) else { return };
        let reached = self.workers.iter().filter(|worker| worker.is_up && !worker.is_cut);
        // The connection of any other lease may be half open, and its computation then ends by itself.
        let is_stored = |held: &&crate::worker::SimLease| held.order.outlives_connection;
        let held = reached.flat_map(|worker| worker.held.values().filter(is_stored));
        let held = held.map(|held| &held.order.attempt);
        let void = |attempt: &&AttemptId| {
            let is_known = coordinator.engine.is_unsettled(**attempt) || self.audit.is_pending(**attempt);
            coordinator.engine.lease(**attempt, now).is_none() && !is_known
        };
        let void: BTreeSet<_> = held.filter(void).copied().collect();
        self.audit.void_since.retain(|attempt, _| void.contains(attempt));
        for attempt in void {
            let since = *self.audit.void_since.entry(attempt).or_insert(self.now);
            // Messages are lost while there are faults.
            if self.now - since > STOP_WITHIN
                && (self.plan.faults != Faults::All || self.is_calm)
                && self.plan.max_delay < 100 * MS
            {
                wrong.push(format!("{} has no lease, and its worker goes on with it", short(attempt)));
            }
        }
    }
}
