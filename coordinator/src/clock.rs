//! The clock of the coordinator: monotonic time, and calendar time that is derived from it and runs forward. Lists, results
//! under one name and retention are ordered by calendar time, so that it must not run backward where the system's clock is
//! set back: it runs at half the speed then until the system's clock has come up to it.
//!
//! Coordinators that share a store follow the store's clock instead of their systems', so that all date alike what happens.

use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::Now;
use jiff::{SignedDuration, Timestamp};
use store::shared::ClockReading;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// The calendar may be off by this much from the system's: less is the rate at which clocks drift.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(20);

/// How often the calendar is set by the clock that it follows.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// A clock that is set back by more than this was wrong before: the calendar is set back with it.
const LONGEST_SLOWDOWN: SignedDuration = SignedDuration::from_hours(2);

static CLOCK: LazyLock<RwLock<Calendar>> = LazyLock::new(|| RwLock::new(Calendar::at_system(Instant::now())));

/// A moment by both clocks, and how fast the calendar goes on from there.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    instant: Instant,
    at: Timestamp,
    is_slow: bool,
}

impl Calendar {
    fn new(instant: Instant, system: Timestamp) -> Self {
        Self { instant, at: system, is_slow: false }
    }

    fn at_system(instant: Instant) -> Self {
        Self::new(instant, Timestamp::now())
    }

    fn at(self, instant: Instant) -> Timestamp {
        let since: Duration = instant.saturating_duration_since(self.instant);
        self.at.saturating_add(if self.is_slow { since / 2 } else { since }).unwrap_or(Timestamp::MAX)
    }

    /// The calendar by what the system's clock shows.
    fn follow(self, instant: Instant, system: Timestamp) -> Self {
        let here = self.at(instant);
        let ahead = here.duration_since(system);
        let (is_close, is_behind) = (ahead.abs() <= TOLERANCE, ahead < SignedDuration::ZERO);
        match self.is_slow {
            false if is_close => self,
            true if is_close => Self { instant, at: here, is_slow: false },
            _ if is_behind || ahead > LONGEST_SLOWDOWN => Self::new(instant, system),
            _ => Self { instant, at: here, is_slow: true },
        }
    }

    /// The calendar after something that has happened at `past`.
    fn after(self, past: Timestamp, instant: Instant) -> Self {
        let ahead = past.duration_since(self.at(instant));
        if ahead <= SignedDuration::ZERO || ahead > LONGEST_SLOWDOWN {
            return self;
        }
        Self { instant, at: past.saturating_add(Duration::from_micros(1)).unwrap_or(past), is_slow: true }
    }
}

/// The present moment.
pub(crate) fn now() -> Now {
    let calendar = *CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    let instant = Instant::now();
    Now { instant, at: calendar.at(instant) }
}

/// Begins with the clock that is followed from now on, before anything is dated by this process's.
pub(crate) fn begin(shared: Option<&watch::Receiver<ClockReading>>) {
    if let Some(shared) = shared {
        let ClockReading { instant, at } = *shared.borrow();
        set(|_| Calendar::new(instant, at));
    }
}

/// Follows the clock of the store that is shared, or without one the system's. While the store's clock cannot be read the
/// calendar goes on by the monotonic clock. Runs for ever.
pub(crate) async fn run(shared: Option<watch::Receiver<ClockReading>>) {
    let mut ticks = interval(FOLLOW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        match &shared {
            None => set(|calendar| calendar.follow(Instant::now(), Timestamp::now())),
            Some(shared) => {
                let reading = *shared.borrow();
                if last.replace(reading) != Some(reading) {
                    set(|calendar| calendar.follow(reading.instant, reading.at));
                }
            }
        }
    }
}

/// Something was stored at `past`, by another process whose clock may have been ahead of this one's.
pub(crate) fn go_on_after(past: Timestamp) {
    set(|calendar| calendar.after(past, Instant::now()));
}

fn set(change: impl FnOnce(Calendar) -> Calendar) {
    let mut calendar = CLOCK.write().unwrap_or_else(PoisonError::into_inner);
    *calendar = change(*calendar);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time of this century")
    }

    #[test]
    fn a_clock_that_is_set_back_by_an_hour_is_awaited_at_half_the_speed_and_never_followed_back() {
        let start = Instant::now();
        let mut calendar = Calendar::new(start, at(0));
        let mut last = calendar.at(start);
        // From the tenth second on the system's clock is an hour behind.
        for second in 1..=7_300 {
            let instant = start + SECOND * second;
            let system = at(i64::from(second)) - SignedDuration::from_hours(i64::from(second >= 10));
            calendar = calendar.follow(instant, system);
            let now = calendar.at(instant);
            assert!(now > last, "after {second} s");
            let is_caught_up = second >= 10 + 7_200;
            assert_eq!(now.duration_since(system).abs() <= TOLERANCE, second < 10 || is_caught_up, "after {second} s");
            last = now;
        }
        assert!(!calendar.is_slow);
    }

    #[test]
    fn a_clock_that_was_set_forward_or_is_far_behind_is_followed_at_once() {
        let start = Instant::now();
        let calendar = Calendar::new(start, at(0));
        assert_eq!(calendar.follow(start + SECOND, at(500)).at(start + SECOND), at(500));
        let month = at(31 * 24 * 3_600);
        let jumped = calendar.follow(start, month);
        assert_eq!(jumped.follow(start + SECOND, at(1)).at(start + SECOND), at(1));
    }

    #[test]
    fn what_another_process_has_stored_is_earlier_than_all_that_follows() {
        let start = Instant::now();
        let calendar = Calendar::new(start, at(0));
        let behind = calendar.after(at(3_600), start);
        assert!(behind.at(start) > at(3_600));
        assert_eq!(calendar.after(at(-1), start).at(start), at(0));
        let implausible = at(31 * 24 * 3_600);
        assert_eq!(calendar.after(implausible, start).at(start), at(0));
    }
}
