//! Periods of the calendar in UTC.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::InvalidJob;

/// Length of the periods of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days, from midnight to midnight in UTC.
    Day,
    /// Weeks of ISO 8601, which begin on Monday.
    Week,
    /// Months.
    Month,
}

impl Grain {
    /// All grains, the shortest first.
    pub const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month];
    /// The grains that are stored. The others are made of days.
    pub const STORED: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The stored grain that the periods are made of.
    #[must_use]
    pub fn stored(self) -> Self {
        match self {
            Self::Minute | Self::Hour | Self::Day => self,
            Self::Week | Self::Month => Self::Day,
        }
    }

    /// The start of the period that a moment is in.
    #[must_use]
    pub fn start_of(self, at: Timestamp) -> Timestamp {
        let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
        let floor = |length: i64, offset: i64| second - (second + offset).rem_euclid(length);
        let start = match self {
            Self::Minute => floor(60, 0),
            Self::Hour => floor(3600, 0),
            Self::Day => floor(DAY, 0),
            // The epoch is a Thursday.
            Self::Week => floor(7 * DAY, 3 * DAY),
            Self::Month => {
                let first = at.to_zoned(TimeZone::UTC).date().first_of_month().to_zoned(TimeZone::UTC);
                return first.map_or(Timestamp::MIN, |first| first.timestamp());
            }
        };
        Timestamp::from_second(start).unwrap_or(Timestamp::MIN)
    }

    /// The end of the period that a moment is in: the start of the next.
    #[must_use]
    pub fn end_of(self, at: Timestamp) -> Timestamp {
        let start = self.start_of(at);
        let after = |seconds| start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        match self {
            Self::Minute => after(60),
            Self::Hour => after(3600),
            Self::Day => after(DAY),
            Self::Week => after(7 * DAY),
            Self::Month => {
                let next = start.to_zoned(TimeZone::UTC).checked_add(1.month());
                next.map_or(Timestamp::MAX, |next| next.timestamp())
            }
        }
    }
}

/// Seconds of a day in UTC as POSIX counts it.
const DAY: i64 = 86_400;

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Grain {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|grain| grain.as_str() == name);
        found.ok_or_else(|| InvalidJob::new("grain", "must be minute, hour, day, week or month"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn periods_begin_and_end_where_the_calendar_says() {
        // The days of the week are those of `cal` for these months.
        for (grain, moment, start, end) in [
            (Grain::Minute, "2026-03-21T10:07:59.9Z", "2026-03-21T10:07:00Z", "2026-03-21T10:08:00Z"),
            (Grain::Hour, "2026-03-21T10:00:00Z", "2026-03-21T10:00:00Z", "2026-03-21T11:00:00Z"),
            (Grain::Day, "2024-02-28T23:59:59.999999999Z", "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z"),
            (Grain::Week, "2026-03-22T23:59:59Z", "2026-03-16T00:00:00Z", "2026-03-23T00:00:00Z"),
            (Grain::Week, "2026-03-23T00:00:00Z", "2026-03-23T00:00:00Z", "2026-03-30T00:00:00Z"),
            (Grain::Week, "2027-01-01T12:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"),
            (Grain::Month, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Grain::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Grain::Minute, "1969-12-31T23:59:59.5Z", "1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z"),
            (Grain::Week, "1969-12-31T23:59:59.5Z", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"),
        ] {
            assert_eq!(
                (grain.start_of(at(moment)), grain.end_of(at(moment))),
                (at(start), at(end)),
                "{grain} {moment}"
            );
        }
    }

    #[test]
    fn the_ends_of_time_are_in_a_period() {
        for grain in Grain::ALL {
            assert!(grain.start_of(Timestamp::MIN) <= grain.end_of(Timestamp::MIN), "{grain}");
            assert!(grain.start_of(Timestamp::MAX) <= grain.end_of(Timestamp::MAX), "{grain}");
        }
    }

    #[test]
    fn names_are_read_again() {
        for grain in Grain::ALL {
            assert_eq!(grain.as_str().parse(), Ok(grain));
            assert_eq!(serde_json::to_value(grain).expect("JSON"), grain.as_str());
        }
        assert!("Day".parse::<Grain>().is_err());
    }
}
