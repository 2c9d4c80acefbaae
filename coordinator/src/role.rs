//! Whether this coordinator leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::term::Term;

/// Until when this coordinator may act as the leader, by its monotonic clock. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    origin: Instant,
    /// Microseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Trust {
    /// No other coordinator can take over.
    pub(crate) fn for_ever() -> Self {
        Self { origin: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    pub(crate) fn until(until: Instant) -> Self {
        let trust = Self { origin: Instant::now(), until: Arc::default() };
        trust.renew(until);
        trust
    }

    /// Never shortens it.
    pub(crate) fn renew(&self, until: Instant) {
        self.until.fetch_max(micros(until.saturating_duration_since(self.origin)), Ordering::AcqRel);
    }

    /// Ends it now.
    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    pub(crate) fn holds(&self) -> bool {
        micros(self.origin.elapsed()) < self.until.load(Ordering::Acquire)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The term that runs now, if this coordinator leads.
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

    /// Resolves when this coordinator leads.
    pub(crate) async fn leading(&self) {
        // The sender is a field of this.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_lasts_until_the_latest_renewal_and_ends_for_good() {
        let trust = Trust::until(Instant::now() + Duration::from_secs(60));
        trust.renew(Instant::now());
        assert!(trust.holds());
        trust.end();
        assert!(!trust.holds());
        assert!(!Trust::until(Instant::now()).holds());
        assert!(Trust::for_ever().holds());
    }
}
