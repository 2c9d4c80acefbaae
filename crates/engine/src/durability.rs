//! Tracks the recorded changes that the store has committed, and the outcomes that wait for their commit.

use std::collections::VecDeque;

use model::AttemptId;
use scheduler::{IdSet, WorkerKey};

/// Recorded changes by the store's numbers: 1, 2, 3 and so on.
#[derive(Debug, Default)]
pub(crate) struct Durability {
    recorded: u64,
    stored: u64,
    /// Outcomes that count but are not committed, by the numbers of their changes.
    outcomes: VecDeque<(u64, AttemptId, WorkerKey)>,
    pending: IdSet<AttemptId>,
}

impl Durability {
    /// Numbers one more recorded change.
    pub(crate) fn recorded(&mut self) -> u64 {
        self.recorded += 1;
        self.recorded
    }

    /// Notes that the outcome of `attempt` is the change of this number.
    pub(crate) fn outcome(&mut self, number: u64, attempt: AttemptId, worker: WorkerKey) {
        self.outcomes.push_back((number, attempt, worker));
        self.pending.insert(attempt);
    }

    /// Whether the attempt's outcome counts but is not committed.
    pub(crate) fn is_pending(&self, attempt: AttemptId) -> bool {
        self.pending.contains(&attempt)
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn pending_outcomes(&self) -> usize {
        assert_eq!(self.outcomes.len(), self.pending.len(), "each pending outcome has one change");
        self.pending.len()
    }

    /// Changes that wait for the store.
    pub(crate) fn unstored(&self) -> u64 {
        self.recorded - self.stored
    }

    /// Notes that the changes up to `number` are committed; returns their outcomes.
    pub(crate) fn stored(&mut self, number: u64) -> Vec<(AttemptId, WorkerKey)> {
        self.stored = self.stored.max(number.min(self.recorded));
        let count = self.outcomes.partition_point(|(change, ..)| *change <= self.stored);
        let settled: Vec<_> = self.outcomes.drain(..count).map(|(_, attempt, worker)| (attempt, worker)).collect();
        for (attempt, _) in &settled {
            self.pending.remove(attempt);
        }
        settled
    }
}
