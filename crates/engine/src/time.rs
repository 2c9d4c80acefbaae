//! The two clocks that an input carries.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The present moment. Durations and deadlines follow `instant`; `at` is stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The time of the monotonic clock.
    pub instant: Instant,
    /// The time of the calendar.
    pub at: Timestamp,
}

impl Now {
    /// The calendar time of an instant that has passed.
    pub(crate) fn calendar(self, then: Instant) -> Timestamp {
        let ago = self.instant.saturating_duration_since(then);
        self.at.saturating_sub(ago).unwrap_or(self.at)
    }

    /// The instant of a calendar time, by the age that the calendar gives it; no later than now.
    pub(crate) fn instant_of(self, then: Timestamp) -> Instant {
        let ago = Duration::try_from(self.at.duration_since(then)).unwrap_or_default();
        self.instant.checked_sub(ago).unwrap_or(self.instant)
    }
}
