//! The number of entries of a batch. A store may have room on its disk, or memory, for some changes but not for all that wait:
//! after a refusal the first half of them is tried alone, and each batch that is written lets the next one be a little longer.

use crate::error::WriteError;
use crate::queue::{BATCH_LIMIT, Group};

/// Growth after a batch that was written, as a part of the size: a store that is short of room refuses, and so pauses the writer,
/// once in several batches.
const GROWTH_PART: usize = 4;

pub(super) struct BatchSize {
    most: usize,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { most: BATCH_LIMIT }
    }
}

impl BatchSize {
    /// The entries of the next batch, and those that are left.
    pub(super) fn cut(&self, group: Group) -> (Group, Option<Group>) {
        if group.entries.len() <= self.most {
            return (group, None);
        }
        let (first, rest) = group.split(self.most);
        (first, Some(rest))
    }

    /// A batch of this number of entries was rolled back.
    pub(super) fn refused(&mut self, entries: usize, error: &WriteError) {
        // A store that cannot be reached looks like one whose memory or time does not suffice for the batch.
        if entries > 1 && matches!(error, WriteError::Full(_) | WriteError::Unavailable(_)) {
            self.most = entries / 2;
        }
    }

    pub(super) fn written(&mut self) {
        self.most = (self.most + self.most / GROWTH_PART + 1).min(BATCH_LIMIT);
    }
}
