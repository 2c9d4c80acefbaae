//! Attempts that have failed here: their workers list them until they are told to forget them, and must not get them again.

use std::collections::{HashSet, VecDeque};

use model::AttemptId;

/// Attempts that are remembered: more than fail between two heartbeats of their workers.
const MAX_REMEMBERED: usize = 65_536;

/// The last attempts that failed, so that one failure does not count twice.
#[derive(Debug, Default)]
pub(crate) struct Voided {
    order: VecDeque<AttemptId>,
    attempts: HashSet<AttemptId>,
}

impl Voided {
    pub(crate) fn insert(&mut self, attempt: AttemptId) {
        if !self.attempts.insert(attempt) {
            return;
        }
        self.order.push_back(attempt);
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.attempts.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, attempt: AttemptId) -> bool {
        self.attempts.contains(&attempt)
    }
}
