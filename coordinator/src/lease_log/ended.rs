//! The leases that have ended, in chunks that a copy shares with the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Logged;

/// Leases of a chunk: as many are copied when a lease ends for the first time after somebody has taken a copy.
pub(super) const CHUNK: usize = 500;
const MAX_CHUNKS: usize = 100;

/// Leases that are kept one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    chunks: VecDeque<Arc<Vec<Logged>>>,
    /// Whether earlier leases were dropped.
    is_cut: bool,
}

impl Ended {
    /// Adds a lease. Drops the oldest chunk if there are too many.
    pub(super) fn push(&mut self, lease: Logged) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            if self.chunks.len() == MAX_CHUNKS {
                self.chunks.pop_front();
                self.is_cut = true;
            }
            self.chunks.push_back(Arc::new(Vec::with_capacity(CHUNK)));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            Arc::make_mut(chunk).push(lease);
        }
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = Logged> {
        self.chunks.iter().rev().flat_map(|chunk| chunk.iter().rev()).copied()
    }

    /// The time since which every lease is kept; `None`: since the start.
    pub(super) fn complete_since(&self) -> Option<Instant> {
        let oldest = self.chunks.front().filter(|_| self.is_cut)?.first()?;
        oldest.end.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{JobId, JobKind};
    use uuid::Uuid;

    use super::super::End;
    use super::*;

    fn filled(count: usize, start: Instant) -> Ended {
        let mut ended = Ended::default();
        for (slot, milliseconds) in (0..count).zip(0..) {
            let end = Some((start + Duration::from_millis(milliseconds), End::Done));
            let (job, kind) = (JobId(Uuid::nil()), JobKind::SLEEP);
            ended.push(Logged { slot, job, kind, tasks: 1, start, end, is_second: false });
        }
        ended
    }

    #[test]
    fn a_copy_has_its_full_chunks_in_common_with_the_log() {
        let mut ended = filled(2 * CHUNK + 1, Instant::now());
        let copy = ended.clone();
        for lease in copy.newest_first().take(CHUNK) {
            ended.push(lease);
        }
        let shared = copy.chunks.iter().zip(&ended.chunks).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert_eq!((shared, copy.newest_first().count(), ended.newest_first().count()), (2, 1001, 1501));
        let slots: Vec<_> = copy.newest_first().map(|lease| lease.slot).collect();
        assert!(slots.into_iter().eq((0..1001).rev()));
    }

    #[test]
    fn the_oldest_leases_go_and_the_rest_is_complete_since_the_end_of_the_first() {
        let start = Instant::now();
        let full = filled(CHUNK * MAX_CHUNKS, start);
        assert_eq!((full.newest_first().count(), full.complete_since()), (CHUNK * MAX_CHUNKS, None));
        let cut = filled(CHUNK * MAX_CHUNKS + 1, start);
        assert_eq!(cut.newest_first().count(), CHUNK * (MAX_CHUNKS - 1) + 1);
        assert_eq!(cut.complete_since(), Some(start + Duration::from_millis(500)));
    }
}
