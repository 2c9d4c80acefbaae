//! The clock of the coordinator: monotonic time, and calendar time that is derived from it and runs forward. Lists, results
//! under one name and retention are ordered by calendar time. Where the system's clock is set back, the calendar runs at half
//! speed until the system's clock has caught up. A clock that leaps far ahead is followed after it has stayed there for some
//! minutes: entries dated by a wrong clock would stand before all later ones.
//!
//! Coordinators that share a store follow the store's clock instead of their systems', so that all of them date events alike.

use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::Now;
use jiff::{SignedDuration, Timestamp};
use store::shared::ClockReading;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// The largest difference between calendar and system that is not corrected: clocks drift by less.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(20);

/// Interval at which the calendar is set by the clock that it follows.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// A clock that is set back by more than this was wrong before: the calendar is set back with it.
const LONGEST_SLOWDOWN: SignedDuration = SignedDuration::from_hours(2);

/// A clock that is further ahead than this may be wrong.
const LONGEST_STEP: SignedDuration = SignedDuration::from_mins(10);

/// Shortest time that a clock must stay far ahead, by monotonic time, before it is followed.
const CONFIRMATION: Duration = Duration::from_mins(10);

static CLOCK: LazyLock<RwLock<Calendar>> = LazyLock::new(|| RwLock::new(Calendar::at_system(Instant::now())));

/// A moment by both clocks, and how fast the calendar goes on from there.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    instant: Instant,
    at: Timestamp,
    is_slow: bool,
    /// The clock that is followed, as it was when it was first seen far ahead.
    leap: Option<Now>,
}

impl Calendar {
    fn new(instant: Instant, system: Timestamp) -> Self {
        Self { instant, at: system, is_slow: false, leap: None }
    }

    fn at_system(instant: Instant) -> Self {
        Self::new(instant, Timestamp::now())
    }

    fn at(self, instant: Instant) -> Timestamp {
        let since: Duration = instant.saturating_duration_since(self.instant);
        self.at.saturating_add(if self.is_slow { since / 2 } else { since }).unwrap_or(Timestamp::MAX)
    }

    /// The calendar corrected by the reading of the system's clock.
    fn follow(self, instant: Instant, system: Timestamp) -> Self {
        let here = self.at(instant);
        let ahead = here.duration_since(system);
        if ahead < -LONGEST_STEP {
            return self.await_leap(Now { instant, at: system });
        }
        let (is_close, is_behind) = (ahead.abs() <= TOLERANCE, ahead < SignedDuration::ZERO);
        match self.is_slow {
            false if is_close => Self { leap: None, ..self },
            true if is_close => Self::new(instant, here),
            _ if is_behind || ahead > LONGEST_SLOWDOWN => Self::new(instant, system),
            _ => Self { instant, at: here, is_slow: true, leap: None },
        }
    }

    /// The calendar while the clock is far ahead: it goes on unchanged until the clock has stayed there.
    fn await_leap(self, seen: Now) -> Self {
        let is_as_before = |leap: &Now| {
            let expected = leap.at.saturating_add(seen.instant.saturating_duration_since(leap.instant));
            expected.is_ok_and(|expected| seen.at.duration_since(expected).abs() <= LONGEST_STEP)
        };
        let leap = self.leap.filter(is_as_before).unwrap_or(seen);
        if seen.instant.saturating_duration_since(leap.instant) >= CONFIRMATION {
            return Self::new(seen.instant, seen.at);
        }
        Self { leap: Some(leap), ..Self::new(seen.instant, self.at(seen.instant)) }
    }

    /// The calendar after an event at `past`.
    fn after(self, past: Timestamp, instant: Instant) -> Self {
        let ahead = past.duration_since(self.at(instant));
        if ahead <= SignedDuration::ZERO || ahead > LONGEST_SLOWDOWN {
            return self;
        }
        let at = past.saturating_add(Duration::from_micros(1)).unwrap_or(past);
        Self { instant, at, is_slow: true, leap: None }
    }
}

/// The present moment.
pub(crate) fn now() -> Now {
    let calendar = *CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    let instant = Instant::now();
    Now { instant, at: calendar.at(instant) }
}

/// Begins with the clock that is followed from now on, before this process dates anything.
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
            None => follow(Instant::now(), Timestamp::now()),
            Some(shared) => {
                let reading = *shared.borrow();
                if last.replace(reading) != Some(reading) {
                    follow(reading.instant, reading.at);
                }
            }
        }
    }
}

fn follow(instant: Instant, clock: Timestamp) {
    let (before, after) = set(|calendar| calendar.follow(instant, clock));
    if before.leap.is_none() && after.leap.is_some() {
        let seconds = clock.duration_since(after.at(instant)).as_secs();
        warn!(seconds, "the clock has leapt ahead: it is followed once it has stayed there for ten minutes");
    }
}

/// Moves the calendar past an event that was stored at `past` by another process, whose clock may have been ahead.
pub(crate) fn go_on_after(past: Timestamp) {
    set(|calendar| calendar.after(past, Instant::now()));
}

/// Changes the calendar. Returns the calendar before and after the change.
fn set(change: impl FnOnce(Calendar) -> Calendar) -> (Calendar, Calendar) {
    let mut calendar = CLOCK.write().unwrap_or_else(PoisonError::into_inner);
    let (before, after) = (*calendar, change(*calendar));
    *calendar = after;
    (before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MONTH: i64 = 31 * 24 * 3_600;

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
    fn a_clock_that_was_set_forward_by_minutes_or_is_far_behind_is_followed_at_once() {
        let start = Instant::now();
        let calendar = Calendar::new(start, at(0));
        assert_eq!(calendar.follow(start + SECOND, at(500)).at(start + SECOND), at(500));
        let wrong = Calendar::new(start, at(MONTH));
        assert_eq!(wrong.follow(start + SECOND, at(1)).at(start + SECOND), at(1));
    }

    #[test]
    fn a_clock_that_leaps_ahead_for_a_minute_moves_nothing_and_one_that_stays_there_is_followed() {
        let start = Instant::now();
        let mut calendar = Calendar::new(start, at(0));
        for second in 1..=130 {
            let (instant, real) = (start + SECOND * second, i64::from(second));
            let leap = if (10..70).contains(&second) { MONTH } else { 0 };
            calendar = calendar.follow(instant, at(real + leap));
            assert_eq!((calendar.at(instant), calendar.leap.is_some()), (at(real), leap > 0), "after {second} s");
        }
        for second in 131..=800 {
            let (instant, real) = (start + SECOND * second, i64::from(second));
            calendar = calendar.follow(instant, at(real + MONTH));
            let is_believed = second >= 131 + 600;
            assert_eq!(calendar.at(instant), at(real + if is_believed { MONTH } else { 0 }), "after {second} s");
        }
    }

    #[test]
    fn a_clock_that_leaps_on_and_on_is_not_followed() {
        let start = Instant::now();
        let mut calendar = Calendar::new(start, at(0));
        for minute in 1..=30 {
            let instant = start + 60 * SECOND * minute;
            calendar = calendar.follow(instant, at(i64::from(minute) * MONTH));
            assert_eq!(calendar.at(instant), at(i64::from(minute) * 60), "after {minute} min");
        }
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
