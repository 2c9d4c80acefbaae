//! Checks at the end of a run: every answer is exact, and nothing is left.

use engine::Footprint;
use model::{JobState, Share};

use crate::coordinator::short;
use crate::disk::is_composed;
use crate::plan::{Faults, SECOND};
use crate::world::World;

impl World {
    /// Whether all jobs are over without remains. Clients resume paused jobs and retry failed ones.
    pub(crate) fn is_over(&mut self) -> bool {
        let Some(coordinator) = self.coordinator.as_ref().filter(|found| !found.is_stopping) else { return false };
        if !self.asks_are_over() || !coordinator.disk.is_idle() || !coordinator.locks.is_empty() {
            return false;
        }
        let states: Vec<_> =
            self.jobs.iter().map(|job| coordinator.disk.job(job.new.id).map(|found| found.state)).collect();
        let is_due = self.now > self.audit.insisted_at + 10 * SECOND && self.now > self.plan.busy + 40 * SECOND;
        if !is_due {
            return false;
        }
        self.audit.insisted_at = self.now;
        let mut is_over = true;
        for (job, state) in states.into_iter().enumerate() {
            is_over &= state.is_some_and(|state| !self.insist(job, state)) && self.jobs[job].is_accepted;
        }
        is_over && self.held_attempts().is_empty()
    }

    pub(crate) fn describe_open(&self) -> String {
        let Some(coordinator) = self.coordinator.as_ref() else { return "there is no coordinator".to_owned() };
        let mut open: Vec<String> = Vec::new();
        for (number, job) in self.jobs.iter().enumerate() {
            let state = coordinator.disk.job(job.new.id).map(|found| found.state);
            if state.is_none_or(|state| !state.is_over()) {
                let why = coordinator.engine.explain(job.new.id);
                open.push(format!(
                    "job {number} is {state:?}: {}",
                    why.unwrap_or_else(|| "unknown to the engine".to_owned())
                ));
            }
        }
        open.extend(self.held_attempts().into_iter().map(|attempt| format!("{} is held", short(attempt))));
        open.join("; ")
    }

    /// Checks, once everything is over, that every answer is exact and that nothing is left.
    pub(crate) fn check_end(&mut self) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let mut wrong = Vec::new();
        let left = coordinator.engine.footprint();
        if (Footprint { claims: 0, ..left }) != Footprint::default() || coordinator.engine.unstored() > 0 {
            wrong.push(format!("the engine keeps {left:?} when all is over"));
        }
        for number in 0..self.jobs.len() {
            wrong.extend(self.check_job_end(number).map(|wrong| format!("job {number} {wrong}")));
        }
        wrong.into_iter().for_each(|wrong| self.violate(wrong));
    }

    fn check_job_end(&self, number: usize) -> Option<String> {
        let (job, coordinator) = (&self.jobs[number], self.coordinator.as_ref()?);
        let Some(record) = coordinator.disk.job(job.new.id) else { return Some("was accepted and is lost".to_owned()) };
        let ledger = self.audit.ledgers.get(&job.new.id)?;
        if record.attempts != ledger.attempts {
            return Some(format!("has {} attempts, and {} were counted", record.attempts, ledger.attempts));
        }
        if job.is_canceled && record.state != JobState::Canceled {
            return Some(format!("was canceled and is {}", record.state));
        }
        match record.state {
            JobState::Canceled if job.was_touched => None,
            JobState::Failed if job.is_poisoned => None,
            JobState::Succeeded if job.must_fail(&ledger.skipped) => {
                Some("succeeded with a task that always fails".to_owned())
            }
            JobState::Succeeded => {
                let result = coordinator.disk.result(job.new.id);
                // If only a part is compared, a lie may go unseen. After a seen lie all outcomes of its worker are computed anew.
                let may_lie = job.new.options.verify.is_some_and(|share| share != Share::ALL) && record.error.is_none();
                let expected = job.expected_without(&ledger.skipped);
                if result.as_deref() != Some(&expected) && !may_lie {
                    return Some(format!("has the result {result:?}, not {expected}"));
                }
                if ledger.done.len() as u64 != job.new.tasks {
                    return Some(format!("succeeded with {} of {} tasks", ledger.done.len(), job.new.tasks));
                }
                let is_range = !job.new.is_individual && !is_composed(job.new.kind);
                if is_range && ledger.value != record.value {
                    return Some(format!("adds up to {}, and its tasks to {}", record.value, ledger.value));
                }
                self.check_starts(number)
            }
            other @ (JobState::Queued
            | JobState::Running
            | JobState::Paused
            | JobState::Failed
            | JobState::Canceled) => Some(format!("is {other}: {:?}", record.error)),
        }
    }

    /// Checks that every task ran once where no fault made another run necessary.
    fn check_starts(&self, number: usize) -> Option<String> {
        let job = &self.jobs[number];
        let is_excused = job.new.options.verify.is_some()
            || job.was_touched
            || self.audit.outrun.contains(&job.new.id)
            || self.audit.is_lossy;
        if self.plan.faults == Faults::All || !job.failures.is_empty() || !job.overruns.is_empty() || is_excused {
            return None;
        }
        let starts = |task| self.audit.starts.get(&(job.new.id, task)).copied().unwrap_or(0);
        let skipped = self.audit.ledgers.get(&job.new.id).map(|ledger| &ledger.skipped);
        let is_right = |(task, starts): &(u64, u32)| {
            if skipped.is_some_and(|skipped| skipped.contains(task)) {
                // A coordinator that starts may not know yet that a worker has the task.
                *starts <= u32::from(self.plan.faults != Faults::None)
            } else {
                *starts == 1
            }
        };
        let wrong = (0..job.new.tasks).map(|task| (task, starts(task))).find(|started| !is_right(started));
        wrong.map(|(task, starts)| format!("ran task {task} {starts} times without need"))
    }
}
