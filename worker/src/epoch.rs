//! The highest epoch that any coordinator has shown.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// Shortest time until an epoch is forgotten: heartbeats are a second apart, and a leader may miss some of them.
const LEAST_TIMEOUT: Duration = Duration::from_secs(10);

/// Refused epochs that are remembered: more than a grid has coordinators.
const MAX_REFUSED: usize = 16;

/// Fences coordinators that no longer lead. Epochs are those of one grid: they grow with each owner of its store.
///
/// An epoch that no coordinator shows for the orphan timeout, ten seconds at least, is forgotten: a grid that starts anew, such
/// as with an empty data directory, begins with a low epoch.
#[derive(Debug)]
pub(crate) struct EpochFence {
    timeout: Duration,
    highest: Mutex<Highest>,
}

#[derive(Debug)]
struct Highest {
    epoch: u64,
    seen_at: Instant,
    /// The lower epochs that were refused lately.
    refused: VecDeque<u64>,
}

impl Highest {
    /// Whether an epoch is refused for the first time.
    fn is_news(&mut self, refused: u64) -> bool {
        if self.refused.contains(&refused) {
            return false;
        }
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(refused);
        true
    }
}

/// The error of a coordinator whose epoch is lower than the highest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is of epoch {given}, but this worker has seen a coordinator of epoch {highest}")]
pub(crate) struct StaleEpoch {
    given: u64,
    highest: u64,
}

impl EpochFence {
    pub(crate) fn new(orphan_timeout: Duration) -> Self {
        let timeout = orphan_timeout.max(LEAST_TIMEOUT);
        Self { timeout, highest: Mutex::new(Highest { epoch: 0, seen_at: Instant::now(), refused: VecDeque::new() }) }
    }

    /// Remembers an epoch.
    ///
    /// # Errors
    /// A higher epoch has been seen.
    pub(crate) fn see(&self, given: u64) -> Result<(), StaleEpoch> {
        self.see_at(given, Instant::now())
    }

    /// The highest epoch that was seen; 0 before the first.
    pub(crate) fn highest(&self) -> u64 {
        self.highest.lock().unwrap_or_else(PoisonError::into_inner).epoch
    }

    fn see_at(&self, given: u64, now: Instant) -> Result<(), StaleEpoch> {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        let Highest { epoch, seen_at, .. } = *highest;
        if given < epoch {
            if now.saturating_duration_since(seen_at) < self.timeout {
                if highest.is_news(given) {
                    warn!(
                        epoch,
                        given, "refusing a coordinator of a lower epoch: restart this worker if the store was restored"
                    );
                }
                return Err(StaleEpoch { given, highest: epoch });
            }
            warn!(epoch, given, "no coordinator shows the highest epoch any more: a lower one leads");
        }
        (highest.epoch, highest.seen_at) = (given, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn an_epoch_counts_until_a_higher_one_has_been_seen() {
        let epoch = EpochFence::new(TIMEOUT);
        assert_eq!((epoch.see(0), epoch.see(3), epoch.see(3)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(epoch.see(2), Err(StaleEpoch { given: 2, highest: 3 }));
    }

    #[test]
    fn an_epoch_that_is_refused_over_and_over_is_told_of_once() {
        let mut highest = Highest { epoch: 90, seen_at: Instant::now(), refused: VecDeque::new() };
        let told = [3, 3, 4, 3, 4].map(|refused| highest.is_news(refused));
        assert_eq!(told, [true, false, true, false, false]);
        assert!((5..90).all(|refused| highest.is_news(refused)));
        assert_eq!(highest.refused.len(), MAX_REFUSED);
    }

    #[test]
    fn an_epoch_that_nobody_shows_any_more_is_forgotten_and_a_refused_one_does_not_keep_it() {
        let (epoch, start) = (EpochFence::new(TIMEOUT), Instant::now());
        assert_eq!(epoch.see_at(7, start), Ok(()));
        assert!(epoch.see_at(1, start + TIMEOUT / 2).is_err());
        assert_eq!(epoch.see_at(7, start + TIMEOUT / 2), Ok(()));
        assert!(epoch.see_at(1, start + TIMEOUT).is_err());
        assert_eq!(epoch.see_at(1, start + TIMEOUT * 3 / 2), Ok(()));
        assert_eq!(epoch.see_at(1, start + TIMEOUT * 3 / 2), Ok(()));
    }
}
