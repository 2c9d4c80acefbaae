//! Bounds how far a waiting job is overtaken by jobs that are no more urgent.

use model::JobState;

use super::Overtaken;
use crate::jobs::SimJob;
use crate::world::World;

/// Leases that jobs of no higher priority get while a job of the same kind has tasks that wait, beyond as much as its own
/// last lease: the bound of fairness. Each is as long as the longest of them or a task of its own: shares are shares of time.
const MAX_OVERTAKEN: u64 = 64;

impl World {
    /// Checks that jobs of its kind that are no more urgent do not overtake a waiting job for ever.
    pub(super) fn audit_fairness(&mut self, leased: usize, tasks: u64) {
        let (kind, priority) = (self.jobs[leased].new.kind, self.jobs[leased].new.options.priority);
        let (id, own) = (self.jobs[leased].new.id, tasks * self.jobs[leased].task_time);
        self.audit.overtaken.insert(id, Overtaken { own, ..Overtaken::default() });
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let now = self.clock();
        let waits = |job: &&SimJob| {
            let is_rival = job.new.kind == kind && job.new.options.priority >= priority && job.paused_since.is_none();
            let Some(live) = coordinator.engine.job(job.new.id) else { return false };
            let counts = live.counts;
            // The last task waits for the others.
            let waits = u64::from(job.fold_input.is_some() && counts.succeeded + 1 < counts.total);
            // Tasks with one attempt left wait up to a minute for a worker that has not failed at them.
            let held_back = coordinator.engine.held_back_tasks(job.new.id, now);
            // Tasks whose outcomes are compared may wait for a certain worker.
            let are_compared = live.verification.is_some_and(|verification| verification.waiting > 0);
            is_rival
                && !are_compared
                && counts.pending > held_back + waits
                && coordinator.disk.job(job.new.id).is_some_and(|found| found.state != JobState::Paused)
        };
        let rivals = self.jobs.iter().enumerate().filter(|(number, job)| *number != leased && waits(job));
        let rivals: Vec<_> = rivals.map(|(number, job)| (number, job.new.id, job.task_time)).collect();
        // Each of these jobs may have had as much as the job itself.
        let sharers = self.jobs.iter().filter(|job| job.new.kind == kind).count() as u64;
        for (number, id, rival_time) in rivals {
            let overtaken = self.audit.overtaken.entry(id).or_default();
            overtaken.others += own;
            overtaken.longest = overtaken.longest.max(own).max(rival_time);
            if overtaken.others > overtaken.own * sharers + MAX_OVERTAKEN * overtaken.longest {
                let microseconds = overtaken.others;
                self.violate(format!("job {number} is overtaken by {microseconds} us of jobs that are no more urgent"));
            }
        }
    }
}
