//! The calendar by which old jobs are deleted. A system's clock may jump, and a mistaken deletion cannot be undone; so a jump is
//! believed only when the clock has kept to it for a while of monotonic time.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Tolerated difference between the clock and the expected time: more than the corrections of normal operation.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(10);
/// Shortest time that the clock must keep to a jump before the jump is believed.
const CONFIRMATION: Duration = Duration::from_hours(1);

/// The calendar by which old jobs are deleted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calendar {
    /// A moment by both clocks that is believed.
    believed: Option<Moment>,
    /// The moment at which the system's clock jumped, as it was seen after the jump.
    jump: Option<Moment>,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    instant: Instant,
    at: Timestamp,
}

impl Moment {
    /// The calendar time of a later moment.
    fn at(self, instant: Instant) -> Timestamp {
        self.at.saturating_add(instant.saturating_duration_since(self.instant)).unwrap_or(Timestamp::MAX)
    }

    /// By how much the system's clock is ahead.
    fn offset(self, instant: Instant, system: Timestamp) -> SignedDuration {
        system.duration_since(self.at(instant))
    }
}

/// A reading of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The time by which jobs may be deleted.
    pub(crate) at: Timestamp,
    /// Difference by which the system's clock is ahead of the believed time, while a jump is not confirmed.
    pub(crate) jump: Option<SignedDuration>,
    /// Whether the jump is seen for the first time.
    pub(crate) is_new: bool,
}

impl Calendar {
    /// Whether the calendar has been read.
    pub(crate) fn is_set(&self) -> bool {
        self.believed.is_some()
    }

    /// Believes a time: that of the newest stored event, which a correct clock is not far ahead of.
    pub(crate) fn set(&mut self, instant: Instant, at: Timestamp) {
        self.believed = Some(Moment { instant, at });
    }

    /// Reads the system's clock.
    pub(crate) fn read(&mut self, instant: Instant, system: Timestamp) -> Reading {
        let here = Moment { instant, at: system };
        let believed = *self.believed.get_or_insert(here);
        let offset = believed.offset(instant, system);
        let was_new = self.jump.is_none();
        if offset.abs() <= TOLERANCE {
            (self.believed, self.jump) = (Some(here), None);
            return Reading { at: system, jump: None, is_new: false };
        }
        // Another jump on top of the first is confirmed anew.
        let jump = self.jump.filter(|jump| jump.offset(instant, system).abs() <= TOLERANCE).unwrap_or(here);
        if instant.saturating_duration_since(jump.instant) >= CONFIRMATION {
            (self.believed, self.jump) = (Some(here), None);
            return Reading { at: system, jump: None, is_new: false };
        }
        self.jump = Some(jump);
        // The earlier time, which deletes less.
        Reading { at: system.min(believed.at(instant)), jump: Some(offset), is_new: was_new }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minutes).expect("a time of this century")
    }

    /// The calendar with what it reads while the system's clock is so many minutes ahead of the real one.
    struct Clocks {
        calendar: Calendar,
        start: Instant,
    }

    impl Clocks {
        fn new() -> Self {
            let mut clocks = Self { calendar: Calendar::default(), start: Instant::now() };
            assert_eq!(clocks.read(0, 0), (0, None));
            clocks
        }

        fn read(&mut self, minute: u64, ahead: i64) -> (i64, Option<i64>) {
            let real = i64::try_from(minute).expect("small");
            let reading = self.calendar.read(self.start + Duration::from_mins(minute), at(real + ahead));
            let ahead_of_real = reading.at.duration_since(at(real)).as_mins();
            (ahead_of_real, reading.jump.map(|jump| jump.as_mins()))
        }
    }

    #[test]
    fn a_clock_that_is_corrected_a_little_at_a_time_is_followed() {
        let mut clocks = Clocks::new();
        for (minute, ahead) in [(1, 0), (2, 9), (3, 18), (4, 12), (500, 3)] {
            assert_eq!(clocks.read(minute, ahead), (ahead, None), "{minute}");
        }
    }

    #[test]
    fn a_jump_forward_is_believed_after_an_hour_of_real_time() {
        let mut clocks = Clocks::new();
        let month = 31 * 24 * 60;
        for minute in [1, 2, 30, 60] {
            assert_eq!(clocks.read(minute, month), (0, Some(month)), "{minute}");
        }
        assert_eq!(clocks.read(61, month), (month, None));
        assert_eq!(clocks.read(62, month), (month, None));
    }

    #[test]
    fn a_jump_that_is_taken_back_leaves_nothing_behind() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.read(1, 5000), (0, Some(5000)));
        assert_eq!(clocks.read(40, 0), (0, None));
        assert_eq!(clocks.read(50, 5000), (0, Some(5000)));
        assert_eq!(clocks.read(109, 5000), (0, Some(5000)), "the first jump does not count for the second");
        assert_eq!(clocks.read(110, 5000), (5000, None));
    }

    #[test]
    fn a_clock_that_goes_on_jumping_is_not_believed() {
        let mut clocks = Clocks::new();
        for hour in 1..100 {
            let ahead = 1000 * i64::try_from(hour).expect("small");
            assert_eq!(clocks.read(59 * hour, ahead), (0, Some(ahead)), "{hour}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_deletes_less_at_once_and_is_believed_after_an_hour() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.read(1, -600), (-600, Some(-600)));
        assert_eq!(clocks.read(61, -600), (-600, None));
        assert_eq!(clocks.read(62, 0), (-600, Some(600)));
    }

    #[test]
    fn a_start_long_after_the_newest_event_is_a_jump() {
        let mut clocks = Clocks { calendar: Calendar::default(), start: Instant::now() };
        clocks.calendar.set(clocks.start, at(-5000));
        assert_eq!(clocks.read(0, 0), (-5000, Some(5000)));
        assert_eq!(clocks.read(60, 0), (0, None));
    }
}
