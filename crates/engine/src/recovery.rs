//! Jobs of the last coordinator. Their tasks wait until the workers that may hold them have listed their leases.

use std::collections::BTreeSet;

use model::{InvalidJob, JobId, WorkerId};
use store::UnfinishedJob;

use crate::engine::Engine;
use crate::time::Now;

impl Engine {
    /// Takes up a part of the last coordinator's jobs. Tasks of jobs that had started wait for [`crate::Settings::recovery`], so
    /// that the workers that hold them can list them. Returns the jobs that cannot be read.
    pub fn recover(&mut self, jobs: Vec<UnfinishedJob>, now: Now) -> Vec<(JobId, InvalidJob)> {
        self.recover_jobs(jobs, false, now)
    }

    /// Like [`Self::recover`], for a coordinator that led until a moment ago: it may have leased tasks of any job before the
    /// store has a record of that. All of them wait.
    pub fn take_over(&mut self, jobs: Vec<UnfinishedJob>, now: Now) -> Vec<(JobId, InvalidJob)> {
        self.recover_jobs(jobs, true, now)
    }

    fn recover_jobs(&mut self, jobs: Vec<UnfinishedJob>, holds_all: bool, now: Now) -> Vec<(JobId, InvalidJob)> {
        let (mut held, mut unreadable) = (Vec::new(), Vec::new());
        for job in jobs {
            let (id, has_started) = (job.record.id, job.record.started_at.is_some());
            let is_held = (holds_all || has_started) && !self.settings.recovery.is_zero();
            match self.insert_stored(job, is_held, now) {
                Ok(()) => held.extend(is_held.then_some(id)),
                Err(error) => unreadable.push((id, error)),
            }
        }
        if !held.is_empty() {
            let end = now.instant + self.settings.recovery;
            let (until, jobs) = self.recovering.get_or_insert_with(|| (end, Vec::new()));
            *until = end;
            jobs.extend(held);
        }
        self.settle(now);
        self.dispatch(now);
        unreadable
    }

    /// Waits for the lists of these workers, which live and may hold leases of the last coordinator: tasks stay held until each
    /// worker has listed its leases, and not at all without workers.
    pub fn await_lists(&mut self, workers: BTreeSet<WorkerId>, now: Now) {
        self.awaited = workers;
        if self.awaited.is_empty() {
            self.end_wait_for_lists();
            self.dispatch(now);
        }
    }

    /// Notes that a worker has listed its leases and takes no lease of an epoch below `seen_epoch` any more: a list from before
    /// the worker saw this coordinator's epoch may be incomplete.
    pub fn listed(&mut self, worker: &WorkerId, seen_epoch: u64, now: Now) {
        if seen_epoch >= self.settings.epoch && self.awaited.remove(worker) && self.awaited.is_empty() {
            self.end_wait_for_lists();
            self.dispatch(now);
        }
    }

    /// Opens the tasks that no list has named. Pulling workers send no lists and name a lease when they renew it: the jobs
    /// that only they run wait to the end of [`crate::Settings::recovery`].
    fn end_wait_for_lists(&mut self) {
        let Some((until, jobs)) = self.recovering.take() else { return };
        let is_pulled_only = |kind| workloads::kind(kind).is_ok_and(|kind| !kind.is_pushed());
        let is_pulled = |job: &JobId| self.jobs.get(job).is_some_and(|live| is_pulled_only(live.kind));
        let (pulled, listed): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_pulled);
        for job in listed {
            self.scheduler.release_hold(job);
        }
        self.recovering = (!pulled.is_empty()).then_some((until, pulled));
    }

    pub(crate) fn end_recovery(&mut self) {
        for job in self.recovering.take().into_iter().flat_map(|(_, jobs)| jobs) {
            self.scheduler.release_hold(job);
        }
    }
}
