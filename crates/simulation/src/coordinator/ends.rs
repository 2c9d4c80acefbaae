//! The ends of leases at the coordinator: answers, reports and broken connections.

use std::time::Duration;

use engine::{CompleteError, HeldLease, HeldState, Holding, LeaseFailure, NamedLease};
use model::AttemptId;
use scheduler::{AttemptFailure, WorkerKey};

use super::short;
use crate::audit::Cause;
use crate::outcome::{Answer, SimOutcome};
use crate::world::World;

impl World {
    /// Closes the request of a lease. Returns whether it was open.
    fn take_sent(&mut self, run: u64, attempt: AttemptId) -> bool {
        let coordinator = self.coordinator.as_mut().filter(|coordinator| coordinator.run == run);
        coordinator.is_some_and(|coordinator| coordinator.sent.remove(&attempt).is_some())
    }

    pub(crate) fn lease_undeliverable(&mut self, run: u64, attempt: AttemptId) {
        if self.take_sent(run, attempt) {
            self.note("coordinator", format_args!("cannot deliver {}", short(attempt)));
            self.account_return(attempt);
            self.input(|engine, now| engine.fail(attempt, LeaseFailure::Undeliverable, now));
        }
    }

    pub(crate) fn lease_broken(&mut self, run: u64, attempt: AttemptId) {
        if self.take_sent(run, attempt) {
            self.note("coordinator", format_args!("connection of {} broke", short(attempt)));
            self.input(|engine, now| engine.connection_broke(attempt, now));
        }
    }

    pub(crate) fn lease_answered(&mut self, run: u64, attempt: AttemptId, answer: Answer) {
        if !self.take_sent(run, attempt) {
            return;
        }
        let failure = match answer {
            Answer::Ended(outcome) => {
                self.count(attempt, Some(outcome), true);
                return;
            }
            Answer::HandedBack => {
                self.account_return(attempt);
                LeaseFailure::HandedBack
            }
            Answer::Refused(why) => {
                self.account_failure(attempt, Cause::Refused);
                LeaseFailure::WorkerFailed(AttemptFailure::Refused(why.to_owned()))
            }
        };
        self.note("coordinator", format_args!("{} failed: {failure:?}", short(attempt)));
        self.input(|engine, now| engine.fail(attempt, failure, now));
    }

    /// Counts the outcome of an attempt, or gives it back where there is none. Returns whether it holds a lease.
    pub(crate) fn count(&mut self, attempt: AttemptId, report: Option<SimOutcome>, is_pushed: bool) -> bool {
        let Some(report) = report else {
            self.note("coordinator", format_args!("{} is given back", short(attempt)));
            self.account_return(attempt);
            return self.input(|engine, now| engine.release(attempt, now)).is_some_and(|released| released.is_ok());
        };
        match report.report() {
            Some((report, busy)) => {
                let now = self.clock();
                let was_pending = self.audit.is_pending(attempt);
                let lease = self.coordinator.as_ref().and_then(|found| found.engine.lease(attempt, now));
                let is_stored = lease.is_some_and(|(job, ..)| self.by_id.contains_key(&job));
                let holds_lease = self.account_outcome(attempt);
                let counted = self.input(|engine, now| engine.complete(attempt, report, busy, now));
                self.note("coordinator", format_args!("{} completed: {counted:?}", short(attempt)));
                if let Some(Err(CompleteError::Invalid(error))) = &counted {
                    self.violate(format!("an honest report is refused: {error}"));
                }
                let is_counted = counted.is_some_and(|counted| counted.is_ok());
                if holds_lease && !is_counted {
                    self.violate(format!("the outcome of {} does not count", short(attempt)));
                }
                if is_counted && !was_pending {
                    self.audit_counted(attempt, is_stored);
                }
                is_counted
            }
            None => {
                let failure = LeaseFailure::TaskFailed("as planned".to_owned());
                self.account_failure(attempt, Cause::Tasks);
                let failed = self.input(|engine, now| engine.fail(attempt, failure, now));
                self.note("coordinator", format_args!("{} failed at its tasks: {failed:?}", short(attempt)));
                let is_first = self.audit.task_failure_counted(attempt, failed == Some(Ok(())));
                if !is_first {
                    self.violate(format!("one failure of {} counts twice (pushed: {is_pushed})", short(attempt)));
                }
                failed == Some(Ok(()))
            }
        }
    }

    /// Whether a report's attempt holds the lease that the report names. An attempt whose tasks are open takes its lease up again.
    pub(crate) fn hold(&mut self, key: WorkerKey, named: &NamedLease, lease: &HeldLease) -> bool {
        let attempt = lease.attempt;
        match self.input(|engine, now| engine.hear(attempt, Some(named), now)) {
            Some(Holding::Held(_)) => {
                self.account_heard(attempt);
                // An adopted lease has the tasks that its first report named.
                if self.coordinator.as_ref().is_some_and(|found| !found.engine.has_made(attempt)) {
                    self.divide_at_named(attempt, named.tasks.end);
                }
                return true;
            }
            Some(Holding::Unknown) => (),
            Some(Holding::Other) => {
                self.violate(format!("an honest report on {} names another lease", short(attempt)));
                return false;
            }
            Some(Holding::Ended) | None => return false,
        }
        let held = HeldLease { slot: 0, age: Duration::ZERO, state: HeldState::Running, ..lease.clone() };
        let is_held = self.input(|engine, now| engine.adopt_reported(key, &held, now)).unwrap_or(false);
        let is_pushed = self.registered.contains_key(&key);
        self.account_adopted(key, &held, is_pushed);
        self.note("coordinator", format_args!("{} takes its lease up: {is_held}", short(attempt)));
        is_held
    }
}
