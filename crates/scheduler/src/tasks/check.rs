//! The invariants of a job's tasks, for tests and simulations.

use std::ops::Range;
use std::time::Instant;

use super::{Run, TaskSet, len};

impl TaskSet {
    /// Number of returned tasks that are held back from the worker that had them last.
    pub(crate) fn held_back(&self, now: Instant) -> u64 {
        let held_back = self.returned.iter().filter(|run| run.held_back_until.is_some_and(|until| now < until));
        held_back.map(Run::len).sum()
    }

    /// Checks that every task is in one place only, and that the counters agree with the places.
    pub(crate) fn check(&self, leased: impl Iterator<Item = Range<u64>>) {
        self.open.check();
        assert_eq!(self.returned.iter().map(Run::len).sum::<u64>(), self.returned_tasks);
        assert_eq!(self.returned.iter().filter(|run| run.failures > 0).count(), self.retries);
        assert_eq!(self.returned.iter().filter(|run| run.is_contested()).count(), self.contested);
        assert_eq!(self.failed.iter().map(len).sum::<u64>(), self.failed_tasks);
        let returned = self.returned.iter().map(|run| run.tasks.clone());
        let mut placed: Vec<_> =
            leased.chain(returned).chain(self.open.iter()).chain(self.failed.iter().cloned()).collect();
        placed.sort_by_key(|tasks| tasks.start);
        assert!(placed.iter().all(|tasks| tasks.start < tasks.end && tasks.end <= self.total), "{placed:?}");
        assert!(placed.windows(2).all(|pair| pair[0].end <= pair[1].start), "in two places: {placed:?}");
        assert_eq!(placed.iter().map(len).sum::<u64>() + self.done + self.waiting(), self.total, "a task is lost");
    }
}
