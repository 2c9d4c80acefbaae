//! The clock of the coordinator: monotonic time, and calendar time that is derived from it, so that what happened later
//! never has an earlier calendar time unless the calendar itself was set back.

use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::Now;
use jiff::{SignedDuration, Timestamp};

/// The calendar may be off by this much from the system's: less is the rate at which clocks drift.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(20);

static CLOCK: LazyLock<RwLock<Anchor>> = LazyLock::new(|| RwLock::new(Anchor::read()));

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    instant: Instant,
    at: Timestamp,
}

impl Anchor {
    fn read() -> Self {
        Self { instant: Instant::now(), at: Timestamp::now() }
    }

    fn at(self, instant: Instant) -> Timestamp {
        let since: Duration = instant.saturating_duration_since(self.instant);
        self.at.saturating_add(since).unwrap_or(Timestamp::MAX)
    }
}

/// The present moment.
pub(crate) fn now() -> Now {
    let anchor = *CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    let instant = Instant::now();
    Now { instant, at: anchor.at(instant) }
}

/// Follows the system's calendar; to be called every second.
pub(crate) fn follow_calendar() {
    let (here, system) = (now(), Timestamp::now());
    if here.at.duration_since(system).abs() > TOLERANCE {
        *CLOCK.write().unwrap_or_else(PoisonError::into_inner) = Anchor::read();
    }
}
