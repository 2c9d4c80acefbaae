//! The committed state of jobs, from the entries that the store has committed.

use std::ops::Range;

use model::{JobId, JobState};
use store::{Answer, ChangeKind, Entry, Submission};

use super::Ledger;
use crate::world::World;

impl Ledger {
    /// Counts tasks as done; returns the number of those that were done before.
    fn complete(&mut self, tasks: &Range<u64>) -> usize {
        self.attempts += 1;
        self.failures.retain(|task, _| !tasks.contains(task));
        tasks.clone().filter(|task| !self.done.insert(*task)).count()
    }

    /// Counts an attempt whose tasks have no attempts left.
    fn give_up(&mut self, tasks: &Range<u64>) {
        self.attempts += 1;
        self.failures.retain(|task, _| !tasks.contains(task));
        self.given_up.extend(tasks.clone());
    }
}

impl World {
    /// Checks the store's answer to a submission: a job is new only once.
    fn audit_submitted(&mut self, job: JobId, answer: &Answer) {
        if !matches!(answer, Answer::Submitted(Submission::New)) {
            return;
        }
        if self.audit.ledgers.insert(job, Ledger::default()).is_some() {
            self.violate("a job is accepted twice");
        }
    }

    /// Checks an entry that the store has committed: each task counts once, and a job that is over stays as it is. `number` is
    /// that of a recorded change.
    pub(crate) fn audit_committed(&mut self, entry: &Entry, number: u64, answer: &Answer) {
        let change = match entry {
            Entry::Change(change) => change,
            Entry::Submission(new) => return self.audit_submitted(new.id, answer),
            Entry::Housekeeping(_)
            | Entry::Advance(_)
            | Entry::Program(_)
            | Entry::Log(_)
            | Entry::Drain(_)
            | Entry::Nothing => return,
        };
        let Some(ledger) = self.audit.ledgers.get_mut(&change.job) else {
            return self.violate("a change names a job that was not accepted");
        };
        match &change.kind {
            ChangeKind::Retried if !ledger.is_succeeded => {
                ledger.is_over = false;
                ledger.given_up.clear();
                ledger.failures.clear();
            }
            // The outcome came during the commit of its job's end: it does not count, and may count after a retry.
            ChangeKind::Completed { .. } | ChangeKind::Checked { .. } if ledger.is_over => {
                self.audit.outcomes.retain(|_, counted| *counted != number);
            }
            _ if ledger.is_over => (),
            ChangeKind::Completed { tasks, value, outcome, .. } => {
                if outcome.as_ref().is_some_and(|outcome| outcome.worker.is_none()) {
                    ledger.skipped.extend(tasks.clone());
                }
                let again = ledger.complete(tasks);
                ledger.value = ledger.value.wrapping_add(*value);
                if again > 0 {
                    self.violate(format!("tasks {tasks:?} count twice"));
                }
            }
            ChangeKind::Checked { tasks, .. } => {
                if ledger.complete(tasks) > 0 {
                    self.violate(format!("tasks {tasks:?} count twice"));
                }
            }
            ChangeKind::Reopened { tasks, value, .. } => {
                ledger.value = ledger.value.wrapping_sub(*value);
                if tasks.iter().flat_map(Clone::clone).any(|task| !ledger.done.remove(&task)) {
                    self.violate(format!("tasks {tasks:?} are opened again and were not done"));
                }
            }
            ChangeKind::AttemptFailed { tasks, failures, .. } => {
                ledger.attempts += 1;
                ledger.failures.extend(tasks.clone().map(|task| (task, *failures)));
                self.account_committed(number);
            }
            ChangeKind::TasksFailed { tasks, .. } => {
                ledger.give_up(tasks);
                self.account_committed(number);
            }
            ChangeKind::Canceled => ledger.is_over = true,
            ChangeKind::Ended { state, .. } => {
                (ledger.is_over, ledger.is_succeeded) = (true, *state == JobState::Succeeded);
            }
            ChangeKind::Compared { others, .. } => ledger.attempts += others.len() as u64,
            ChangeKind::Started
            | ChangeKind::Paused
            | ChangeKind::Resumed
            | ChangeKind::Progress
            | ChangeKind::WorkDone { .. }
            | ChangeKind::Retried => (),
        }
    }
}
