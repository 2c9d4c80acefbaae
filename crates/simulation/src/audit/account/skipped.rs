//! Checks of tasks that a client skips: only those that no worker holds and that are not over, each once.

use std::collections::BTreeSet;
use std::ops::Range;

use engine::SkipError;
use model::{JobId, JobKind};

use super::Account;
use crate::world::World;

impl Account {
    /// Counts a task as done if the present input skips it. Returns whether it does.
    pub(super) fn take_skipped(&mut self, id: JobId, tasks: &Range<u64>) -> bool {
        let Some((of, skipping)) = &mut self.skipping else { return false };
        let is_skipped = *of == id && tasks.end - tasks.start == 1 && skipping.remove(&tasks.start);
        if is_skipped && let Some(job) = self.jobs.get_mut(&id) {
            job.attempts += 1;
            job.done.insert(tasks.start);
            job.failures.remove(&tasks.start);
        }
        is_skipped
    }
}

impl World {
    /// Skips tasks of a job. Returns those that are skipped.
    pub(crate) fn skip(&mut self, job: usize, tasks: &[u64]) -> Vec<u64> {
        let id = self.jobs[job].new.id;
        let expected = self.expected_skips(job, tasks);
        self.audit.account.skipping = expected.as_ref().ok().map(|tasks| (id, tasks.iter().copied().collect()));
        let Some(skipped) = self.input(|engine, now| engine.skip(id, tasks, now)) else { return Vec::new() };
        let left = self.audit.account.skipping.take();
        self.note("client", format_args!("skips tasks {tasks:?} of job {job}: {skipped:?}"));
        if skipped != expected || left.is_some_and(|(_, left)| !left.is_empty()) {
            self.violate(format!("of tasks {tasks:?} of job {job}, {skipped:?} are skipped, and must be {expected:?}"));
        }
        skipped.unwrap_or_default()
    }

    fn expected_skips(&self, job: usize, tasks: &[u64]) -> Result<Vec<u64>, SkipError> {
        let (new, account) = (&self.jobs[job].new, &self.audit.account);
        let known = account.jobs.get(&new.id).ok_or(SkipError::Unknown(scheduler::UnknownJob))?;
        if new.kind != JobKind::TASKS {
            return Err(SkipError::Kind(new.kind));
        }
        let leases = account.leases.values().filter(|lease| lease.job == new.id);
        let held: BTreeSet<u64> = leases.flat_map(|lease| lease.tasks.clone()).collect();
        let is_open = |task: &u64| {
            *task < new.tasks && !held.contains(task) && !known.done.contains(task) && !known.given_up.contains(task)
        };
        let mut seen = BTreeSet::new();
        Ok(tasks.iter().copied().filter(|task| is_open(task) && seen.insert(*task)).collect())
    }

    /// Checks that skipped tasks whose client is told so are done on the disk.
    pub(crate) fn check_skipped(&mut self, job: usize, tasks: &[u64]) {
        let ledger = self.audit.ledgers.get(&self.jobs[job].new.id);
        let lost = tasks.iter().find(|task| !ledger.is_some_and(|ledger| ledger.skipped.contains(task)));
        if let Some(lost) = lost.copied() {
            self.violate(format!("task {lost} of job {job} is skipped, and this is not on the disk"));
        }
    }
}
