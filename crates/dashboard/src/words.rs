//! Numbers, times and sizes as people read them. Figures that change keep their width where they can.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

/// A whole number with its thousands apart: `12,345`.
pub(crate) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// [`count`] for numbers beyond 64 bits.
pub(crate) fn count_wide(number: u128) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in at most five characters: `0.5`, `87`, `1.2k`, `34M`.
pub(crate) fn short(number: f64) -> String {
    let number = number.max(0.0);
    if number == 0.0 {
        return "0".to_owned();
    }
    for (size, unit) in [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if number >= size * 0.9995 {
            return format!("{}{unit}", two_digits(number / size));
        }
    }
    two_digits(number)
}

fn two_digits(number: f64) -> String {
    if number < 9.95 {
        let text = format!("{number:.1}");
        text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
    } else {
        format!("{number:.0}")
    }
}

const DAY: u64 = 86_400;
/// A year of 365 days: longer times are shown without leap days.
const YEAR: u64 = 365 * DAY;

/// A time in its two largest units: `2 y 40 d`, `1 d 3 h`, `4 min 10 s`, `2.5 s`, `130 ms`; from 100 years on in years alone.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..10 => format!("{} s", two_digits(time.as_secs_f64())),
        10..60 => format!("{seconds} s"),
        60..3_600 => two_units(seconds / 60, "min", seconds % 60, "s"),
        3_600..DAY => two_units(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        DAY..YEAR => two_units(seconds / DAY, "d", seconds % DAY / 3_600, "h"),
        _ if seconds < 100 * YEAR => two_units(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{} y", count(seconds / YEAR)),
    }
}

fn two_units(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

/// The time from `start` to `end`; zero where the clock was set back between them.
pub(crate) fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

/// Time since an instant in whole units, with the exact time as a tooltip.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let seconds = between(at, now).as_secs();
    let words = match seconds {
        0..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    };
    html! { time datetime=(at) title=(exact(at)) { (words) } }
}

/// Time since the last message of a process that sends one every second.
pub(crate) fn seen(milliseconds_ago: u64) -> String {
    if milliseconds_ago < 2_000 {
        "now".to_owned()
    } else {
        format!("{} ago", span(Duration::from_millis(milliseconds_ago)))
    }
}

/// The time by the clock, with its date where it is not today's.
pub(crate) fn clock(at: Timestamp, now: Timestamp) -> Markup {
    let form = if day(at) == day(now) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    html! { time datetime=(at) title=(exact(at)) { (at.strftime(form)) } }
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Date and time to the millisecond.
pub(crate) fn exact(at: Timestamp) -> String {
    format!("{} UTC", at.strftime("%Y-%m-%d %H:%M:%S%.3f"))
}

/// A size in binary units: `1.5 GiB`.
pub(crate) fn bytes(size: u64) -> String {
    let mut unit_size = 1u64 << 40;
    for unit in ["TiB", "GiB", "MiB", "KiB"] {
        if size >= unit_size {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            return format!("{} {unit}", two_digits(size as f64 / unit_size as f64));
        }
        unit_size >>= 10;
    }
    format!("{size} B")
}

/// A share in whole percent that says 100 only when all is done.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 0 } else { u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(100) }
}

/// A text that begins with a capital letter, as a sentence does.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    first + chars.as_str()
}

/// The first characters of a text.
pub(crate) fn cut(chars: usize, text: &str) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An error by its beginning and its end, in few lines: one of a program ends with the last that it wrote.
pub(crate) fn excerpt(error: &str) -> String {
    const FIRST_LINES: usize = 5;
    const LAST_LINES: usize = 11;
    const LINE_CHARS: usize = 300;
    let line = |line: &&str| cut(LINE_CHARS, line);
    let lines: Vec<&str> = error.lines().collect();
    if lines.len() <= FIRST_LINES + LAST_LINES + 1 {
        return lines.iter().map(line).collect::<Vec<_>>().join("\n");
    }
    let (first, last) = (lines.iter().take(FIRST_LINES), lines.iter().skip(lines.len() - LAST_LINES));
    first.map(line).chain(["…".to_owned()]).chain(last.map(line)).collect::<Vec<_>>().join("\n")
}

/// `1 job`, `2 jobs`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shortened() {
        assert_eq!(["0", "999", "1,000", "12,345,678"].map(str::to_owned), [0, 999, 1_000, 12_345_678].map(count));
        let shortened = [0.0, 0.54, 3.0, 87.4, 999.4, 999.6, 1_234.0, 34_000_000.0, 2.5e13].map(short);
        assert_eq!(shortened, ["0", "0.5", "3", "87", "999", "1k", "1.2k", "34M", "25T"].map(str::to_owned));
    }

    #[test]
    fn times_have_two_units_at_most() {
        let of = |milliseconds| span(Duration::from_millis(milliseconds));
        assert_eq!([of(130), of(2_540), of(59_900)], ["130 ms", "2.5 s", "59 s"].map(str::to_owned));
        assert_eq!([of(60_000), of(3_661_000), of(90_000_000)], ["1 min", "1 h 1 min", "1 d 1 h"].map(str::to_owned));
        let long = [of(31_535_999_000), of(31_536_000_000), of(66_528_000_000), of(2_046_552_177_600_000)];
        assert_eq!(long, ["364 d 23 h", "1 y", "2 y 40 d", "64,895 y"].map(str::to_owned));
    }

    #[test]
    fn an_error_of_many_lines_is_told_by_its_first_and_its_last() {
        let many: Vec<String> = (1..=500).map(|number| format!("line {number}")).collect();
        let told = excerpt(&many.join("\n"));
        let shown: Vec<&str> = told.lines().collect();
        assert_eq!((shown.len(), &shown[3..7]), (17, &["line 4", "line 5", "…", "line 490"][..]));
        assert_eq!(shown.last(), Some(&"line 500"));
        assert_eq!(excerpt("it exited with code 3\n\nend\n"), "it exited with code 3\n\nend");
        assert_eq!(excerpt(&"x".repeat(5_000)).chars().count(), 301);
    }

    #[test]
    fn a_share_is_full_only_when_all_is_done() {
        assert_eq!([percent(999, 1_000), percent(1_000, 1_000), percent(0, 0)], [99, 100, 0]);
        assert_eq!([bytes(1_023), bytes(1_536), bytes(3 << 40)], ["1023 B", "1.5 KiB", "3 TiB"].map(str::to_owned));
    }
}
