//! Whether this coordinator leads, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::Epoch;
use tokio::sync::watch;

use crate::term::Term;

/// The value of `until` of a trust that was ended.
const ENDED: u64 = 0;

/// The time until which this coordinator may act as the leader, by its monotonic clock. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    epoch: Epoch,
    origin: Instant,
    /// Microseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Trust {
    /// A trust without an end: no other coordinator can take over.
    pub(crate) fn for_ever() -> Self {
        Self { epoch: Epoch::default(), origin: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    pub(crate) fn until(epoch: Epoch, until: Instant) -> Self {
        let origin = Instant::now();
        let until = Arc::new(AtomicU64::new(micros(until.saturating_duration_since(origin))));
        Self { epoch, origin, until }
    }

    /// The epoch of the trust.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Prolongs the trust. Never shortens it, and does not revive an ended one.
    pub(crate) fn renew(&self, until: Instant) {
        let until = micros(until.saturating_duration_since(self.origin));
        // The trust was ended: nothing changes.
        let _ = self
            .until
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| (old != ENDED).then_some(old.max(until)));
    }

    /// Ends the trust now, for good.
    pub(crate) fn end(&self) {
        self.until.store(ENDED, Ordering::Release);
    }

    pub(crate) fn holds(&self) -> bool {
        micros(self.origin.elapsed()) < self.until.load(Ordering::Acquire)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The present term, if this coordinator leads.
#[derive(Debug)]
pub(crate) struct Role(watch::Sender<Option<Arc<Term>>>);

impl Default for Role {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Role {
    /// The term, while this coordinator may act as the leader.
    pub(crate) fn term(&self) -> Option<Arc<Term>> {
        self.0.borrow().as_ref().filter(|term| term.trust.holds()).cloned()
    }

    pub(crate) fn begin(&self, term: Arc<Term>) {
        self.0.send_replace(Some(term));
    }

    pub(crate) fn end(&self) -> Option<Arc<Term>> {
        self.0.send_replace(None)
    }

    /// Resolves when the term of `epoch` is over.
    pub(crate) async fn term_over(&self, epoch: u64) {
        let is_over = |term: &Option<Arc<Term>>| term.as_ref().is_none_or(|term| term.epoch != epoch);
        let _ = self.0.subscribe().wait_for(is_over).await;
    }

    /// Resolves when this coordinator leads.
    pub(crate) async fn leading(&self) {
        // The sender is a field of this role and never closes.
        let leads = |term: &Option<Arc<Term>>| term.as_ref().is_some_and(|term| term.trust.holds());
        let _ = self.0.subscribe().wait_for(leads).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_lasts_until_the_latest_renewal_and_ends_for_good() {
        let trust = Trust::until(Epoch(1), Instant::now() + Duration::from_secs(60));
        trust.renew(Instant::now());
        assert!(trust.holds());
        trust.end();
        trust.renew(Instant::now() + Duration::from_secs(60));
        assert!(!trust.holds());
        assert!(!Trust::until(Epoch(1), Instant::now()).holds());
        assert!(Trust::for_ever().holds());
    }
}
