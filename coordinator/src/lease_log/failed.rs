//! The tasks of leases that failed: a later lease of them is a second attempt.

use std::collections::{BTreeMap, VecDeque};

use model::JobId;

/// Failed leases that are remembered.
const MAX_FAILED: usize = 10_000;

/// The tasks of the last failed leases.
#[derive(Debug, Default)]
pub(super) struct Failed {
    /// The end of a failed lease's tasks, by its job and its first task. A lease that begins within an earlier one gets at least
    /// the end of that one: the last entry before a task then tells whether any lease had the task.
    beyond: BTreeMap<(JobId, u64), u64>,
    /// The same jobs and first tasks, the oldest first.
    order: VecDeque<(JobId, u64)>,
}

impl Failed {
    /// Notes the tasks of a failed lease. Forgets those of the oldest one if there are too many.
    pub(super) fn note(&mut self, job: JobId, first: u64, beyond: u64) {
        let beyond = self.end_before(job, first).map_or(beyond, |end| end.max(beyond));
        if let Some(known) = self.beyond.get_mut(&(job, first)) {
            *known = beyond;
            return;
        }
        if self.order.len() == MAX_FAILED
            && let Some(oldest) = self.order.pop_front()
        {
            self.beyond.remove(&oldest);
        }
        self.order.push_back((job, first));
        self.beyond.insert((job, first), beyond);
    }

    /// Whether a lease with this task has failed. A lease that failed is tried again in parts, which begin within it.
    pub(super) fn has(&self, job: JobId, task: u64) -> bool {
        self.end_before(job, task).is_some_and(|end| task < end)
    }

    /// The end of the last failed lease that begins at a task or before it.
    fn end_before(&self, job: JobId, task: u64) -> Option<u64> {
        self.beyond.range((job, 0)..=(job, task)).next_back().map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_tasks_of_failed_leases_are_known_and_the_oldest_are_forgotten() {
        let (one, other) = (JobId(Uuid::from_u128(1)), JobId(Uuid::from_u128(2)));
        let mut failed = Failed::default();
        failed.note(one, 10, 20);
        failed.note(one, 10, 12);
        let known = [9, 10, 19, 20].map(|task| failed.has(one, task));
        assert_eq!((known, failed.has(other, 15)), ([false, true, true, false], false));
        // A part fails again before the rest has its turn.
        failed.note(one, 12, 14);
        assert_eq!([13, 14, 19, 20].map(|task| failed.has(one, task)), [true, true, true, false]);
        for number in (0..).take(MAX_FAILED) {
            failed.note(other, 2 * number, 2 * number + 1);
        }
        assert_eq!((failed.beyond.len(), failed.order.len()), (MAX_FAILED, MAX_FAILED));
        assert_eq!((failed.has(one, 10), failed.has(other, 0), failed.has(other, 1)), (false, true, false));
    }
}
