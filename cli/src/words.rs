//! Figures as people read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const DAY: u64 = 86_400;
/// A year of 365 days: longer times are shown without leap days.
const YEAR: u64 = 365 * DAY;

/// A span of time in its two largest units: `850ms`, `12s`, `3m 20s`, `5h 2m`, `12d 4h`, `2y 40d`; from 100 years on in years
/// alone.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit} {small}{small_unit}"),
    };
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..DAY => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        DAY..YEAR => two(seconds / DAY, "d", seconds % DAY / 3600, "h"),
        _ if seconds < 100 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// [`span`] for seconds that another program counted.
pub(crate) fn span_of_seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "∞".to_owned(), span)
}

/// The time from one instant to a later one; none when the clocks disagree.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from).max(SignedDuration::ZERO)).unwrap_or_default()
}

/// An instant to the second, in UTC.
pub(crate) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A figure in at most five characters: `7`, `0.25`, `12.5`, `1.2k`, `34M`.
pub(crate) fn figure(value: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut value = value;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let places = match value {
        _ if value.fract() == 0.0 && unit == 0 => 0,
        0.0..0.095 => 3,
        0.0..0.995 => 2,
        0.0..99.5 => 1,
        _ => 0,
    };
    format!("{value:.places$}{}", UNITS[unit])
}

/// Memory in units of 1024.
pub(crate) fn memory(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let value = bytes as f64 / (1_u64 << (10 * unit)) as f64;
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A share of one in whole percent, rounded down: 100% only when all is done.
pub(crate) fn percent(share: f64) -> String {
    // A share such as 0.29 is a little less than its decimal.
    let whole = (share.clamp(0.0, 1.0) * 100.0 + 1e-9).floor();
    format!("{}%", if share < 1.0 { whole.min(99.0) } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1500, "1s"),
            (60_000, "1m"),
            (200_000, "3m 20s"),
            (3_600_000, "1h"),
            (18_120_000, "5h 2m"),
            (1_051_200_000, "12d 4h"),
            (31_536_000_000, "1y"),
            (66_528_000_000, "2y 40d"),
            (2_046_552_177_600_000, "64895y"),
        ] {
            assert_eq!(span(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!((span_of_seconds(90.0), span_of_seconds(f64::INFINITY)), ("1m 30s".to_owned(), "∞".to_owned()));
    }

    #[test]
    fn figures_stay_short() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.25, "0.25"),
            (0.003, "0.003"),
            (12.52, "12.5"),
            (999.0, "999"),
            (999.7, "1.0k"),
            (34_000_000.0, "34.0M"),
            (1e18, "1.0E"),
            (1e30, "1000000000000E"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn memory_counts_in_1024() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (4 << 30, "4.0 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(memory(bytes), text);
        }
    }

    #[test]
    fn only_what_is_done_is_all_percent() {
        let shown = [0.29, 0.57, 0.9999, 0.999_999_999_999, 1.0, 7.0].map(percent);
        assert_eq!(shown, ["29%", "57%", "99%", "99%", "100%", "100%"]);
    }

    #[test]
    fn instants_are_utc_to_the_second_and_clocks_may_disagree() {
        let early: Timestamp = "2026-03-21T10:00:00.5Z".parse().expect("valid");
        let late: Timestamp = "2026-03-21T10:00:02.5Z".parse().expect("valid");
        assert_eq!(instant(early), "2026-03-21T10:00:00Z");
        assert_eq!((between(early, late), between(late, early)), (Duration::from_secs(2), Duration::ZERO));
    }
}
