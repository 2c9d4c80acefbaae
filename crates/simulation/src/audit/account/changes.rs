//! Checks that each recorded change follows from a cause: outcomes, failures and ends of jobs.

use std::collections::BTreeSet;
use std::ops::Range;

use model::{JobId, JobState, OnExhausted};
use store::ChangeKind;

use super::{Cause, Failed, MAX_KILLS};
use crate::coordinator::short;
use crate::world::World;

impl World {
    /// Checks that a recorded change belongs to a cause, and that a failure counts by its rules.
    pub(in crate::audit) fn account_change(&mut self, id: JobId, kind: &ChangeKind) {
        let failed = match kind {
            ChangeKind::Completed { tasks, .. } | ChangeKind::Checked { tasks, .. } => {
                self.account_completed(id, tasks);
                None
            }
            ChangeKind::AttemptFailed { tasks, failures, .. } => self.account_failed(id, tasks, *failures, false),
            ChangeKind::TasksFailed { tasks, failures, .. } => self.account_failed(id, tasks, *failures, true),
            ChangeKind::Reopened { tasks, .. } => {
                if let Some(job) = self.audit.account.jobs.get_mut(&id) {
                    job.done.retain(|task| !tasks.iter().any(|tasks| tasks.contains(task)));
                }
                None
            }
            ChangeKind::Retried => {
                if let Some(job) = self.audit.account.jobs.get_mut(&id) {
                    job.given_up.clear();
                }
                None
            }
            ChangeKind::Ended { state, .. } => {
                self.account_ended(id, *state);
                None
            }
            ChangeKind::Compared { others, .. } => {
                self.account_compared(id, others.len() as u64);
                None
            }
            ChangeKind::Started
            | ChangeKind::Paused
            | ChangeKind::Resumed
            | ChangeKind::Canceled
            | ChangeKind::Progress
            | ChangeKind::WorkDone { .. } => None,
        };
        self.audit.account.unnumbered.push_back(failed);
    }

    /// The attempts at a compared lease count, but for the one that counts with the outcome.
    fn account_compared(&mut self, id: JobId, others: u64) {
        let Some(job) = self.audit.account.jobs.get_mut(&id) else { return };
        let Some(waiting) = job.waiting.checked_sub(others) else {
            let waiting = job.waiting;
            return self.violate(format!("{others} outcomes of job {} are compared, of {waiting}", self.name(id)));
        };
        (job.waiting, job.attempts) = (waiting, job.attempts + others);
    }

    fn account_completed(&mut self, id: JobId, tasks: &Range<u64>) {
        if self.audit.account.take_skipped(id, tasks) {
            return;
        }
        let reported = self.audit.account.reported.take();
        let reported = reported.filter(|(_, lease)| lease.job == id && lease.tasks == *tasks);
        if reported.is_none() {
            self.violate(format!("tasks {tasks:?} of job {} count without a report", self.name(id)));
        }
        let committed = &self.audit.account.committed;
        let attempt = reported.as_ref().map(|(attempt, _)| *attempt);
        if let Some(attempt) = attempt.filter(|attempt| committed.contains(&(*attempt, Cause::TimeLimit))) {
            self.violate(format!("the outcome of {} counts, and so does its time limit", short(attempt)));
        }
        self.audit.account.counted.extend(reported);
        let Some(job) = self.audit.account.jobs.get_mut(&id) else { return };
        job.attempts += 1;
        job.done.extend(tasks.clone());
        job.failures.retain(|task, _| !tasks.contains(task));
    }

    /// Returns the failure if the attempt may fail so only once, whoever leads.
    fn account_failed(&mut self, id: JobId, tasks: &Range<u64>, failures: u32, is_given_up: bool) -> Option<Failed> {
        let account = &mut self.audit.account;
        let place = account.due.iter().position(|(_, lease)| lease.job == id && lease.tasks == *tasks);
        let Some(place) = place else {
            self.violate(format!("a failure of tasks {tasks:?} of job {} has no cause", self.name(id)));
            return None;
        };
        let ((attempt, cause), _) = account.due.remove(place);
        // A second attempt at the same tasks may still succeed.
        let has_rival = account.leases.values().any(|lease| lease.job == id && lease.tasks == *tasks);
        let sim = &self.jobs[self.by_id[&id]];
        let new = &sim.new;
        let on_exhausted = if sim.goes_on_without() { OnExhausted::SkipTask } else { OnExhausted::FailJob };
        let max_attempts = new.options.max_attempts.get();
        let job = account.jobs.get_mut(&id)?;
        let before: BTreeSet<_> =
            tasks.clone().map(|task| job.failures.get(&task).copied().unwrap_or_default()).collect();
        let (before, kills) = before.last().copied().filter(|_| before.len() == 1).unwrap_or((u32::MAX, 0));
        let kills = kills + u32::from(cause == Cause::WorkerLost);
        let is_alone = tasks.end - tasks.start == 1 || on_exhausted == OnExhausted::FailJob;
        let is_exhausted = !has_rival && is_alone && (failures >= max_attempts || kills >= MAX_KILLS);
        job.attempts += 1;
        for task in tasks.clone() {
            job.failures.insert(task, (failures, kills));
            if is_given_up {
                job.failures.remove(&task);
                job.given_up.insert(task);
            }
        }
        let what = format!("{} failed at tasks {tasks:?} by {cause:?}", short(attempt));
        if failures != before.saturating_add(1) {
            self.violate(format!("{what}: failure {failures} follows after {before}"));
        }
        let is_beyond = on_exhausted == OnExhausted::FailJob && failures > max_attempts;
        if is_exhausted != is_given_up || is_beyond {
            self.violate(format!("{what}: of {max_attempts} attempts {failures} failed, given up: {is_given_up}"));
        }
        let counts_once = match cause {
            Cause::Tasks | Cause::TimeLimit => true,
            // The worker may hold the lease after all, and another coordinator adopt it.
            Cause::Refused | Cause::Expired | Cause::WorkerLost => false,
        };
        counts_once.then_some((attempt, cause))
    }

    /// Checks that a job fails with its first task that is given up, or once all of its tasks are over if they are individual.
    fn account_ended(&mut self, id: JobId, state: JobState) {
        let Some(job) = self.audit.account.jobs.remove(&id) else {
            return self.violate(format!("job {} ends and was not known", self.name(id)));
        };
        let sim = &self.jobs[self.by_id[&id]];
        let are_over = (job.done.len() + job.given_up.len()) as u64 == sim.new.tasks;
        let must_be = match (are_over, job.given_up.is_empty()) {
            (true, true) => Some(JobState::Succeeded),
            (true, false) => Some(JobState::Failed),
            (false, false) if !sim.goes_on_without() => Some(JobState::Failed),
            (false, _) => None,
        };
        if must_be != Some(state) {
            self.violate(format!("job {} is {state}, and must be {must_be:?}", self.name(id)));
        }
    }

    /// A failure is committed.
    pub(in crate::audit) fn account_committed(&mut self, number: u64) {
        let Some((attempt, cause)) = self.audit.account.numbered.remove(&number) else { return };
        let committed = &mut self.audit.account.committed;
        let is_first = committed.insert((attempt, cause));
        if !is_first || (cause != Cause::TimeLimit && committed.contains(&(attempt, Cause::TimeLimit))) {
            self.violate(format!("the failure of {} by {cause:?} counts twice", short(attempt)));
        }
    }
}
