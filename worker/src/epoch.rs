//! The highest epoch that any coordinator has shown.

use std::sync::atomic::{AtomicU64, Ordering};

/// Fences coordinators that no longer lead. Epochs are those of one grid: they grow with each owner of its store.
#[derive(Debug, Default)]
pub(crate) struct Epoch(AtomicU64);

/// A coordinator of a lower epoch than the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is of epoch {given}, but this worker has seen a coordinator of epoch {highest}")]
pub(crate) struct StaleEpoch {
    given: u64,
    highest: u64,
}

impl Epoch {
    /// Remembers an epoch.
    ///
    /// # Errors
    /// A higher one has been seen.
    pub(crate) fn see(&self, given: u64) -> Result<(), StaleEpoch> {
        let highest = self.0.fetch_max(given, Ordering::Relaxed);
        if given < highest { Err(StaleEpoch { given, highest }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_counts_until_a_higher_one_has_been_seen() {
        let epoch = Epoch::default();
        assert_eq!((epoch.see(0), epoch.see(3), epoch.see(3)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(epoch.see(2), Err(StaleEpoch { given: 2, highest: 3 }));
    }
}
