//! The latest attempts with a remembered property, such as a failure: their workers list them until the coordinator settles
//! them, and must not get them again.

use std::collections::VecDeque;

use model::AttemptId;
use scheduler::IdSet;

/// Attempts that are remembered: more than fail between two heartbeats of their workers.
const MAX_REMEMBERED: usize = 65_536;

/// A set of attempts that forgets the oldest.
#[derive(Debug, Default)]
pub(crate) struct RecentAttempts {
    order: VecDeque<AttemptId>,
    attempts: IdSet<AttemptId>,
}

impl RecentAttempts {
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
