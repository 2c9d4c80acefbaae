//! Parsers of single values of the command line.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use api::client::base_url;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::SignedDuration;
use model::{JobId, JobKind, Labels, Priority, Share, digits, distinct, split_word, whole_number};
use url::Url;
use uuid::Uuid;

use crate::failure::Failure;
use crate::printable::printable;

const NUMBER: &str = "give an integer from 0 to 18446744073709551615 (2^64-1), such as 1000, 10_000 or 1e9";

/// An integer, also as `10_000`, `1e9` or `2.5e6`: read exactly, never through a float.
pub(super) fn number(text: &str) -> Result<u64, String> {
    whole_number(text).ok_or_else(|| NUMBER.to_owned())
}

/// An integer within bounds, in every spelling of [`number`].
pub(super) fn integer<T: TryFrom<u64>>(bounds: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let value = whole_number(text).filter(|value| bounds.contains(value)).and_then(|value| value.try_into().ok());
        value.ok_or_else(|| format!("give an integer from {} to {}", bounds.start(), bounds.end()))
    }
}

/// A count from 1 to `most`.
pub(super) fn count(most: u64) -> impl Fn(&str) -> Result<NonZeroU32, String> + Clone {
    let integer = integer::<u32>(1..=most);
    move |text| integer(text).and_then(|count| NonZeroU32::new(count).ok_or_else(|| NUMBER.to_owned()))
}

/// A number within bounds, such as `0.5` or `3`.
pub(super) fn decimal(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let value = text.parse().ok().filter(|value| bounds.contains(value));
        value.ok_or_else(|| format!("give a number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// The names that an option takes, which completion scripts list, parsed by the type's own reader.
pub(super) fn names<T>(names: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Display + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).map(|name| match name.parse() {
        Ok(value) => value,
        Err(error) => unreachable!("{name} is a listed name: {error}"),
    })
}

/// The kinds of job. Their names are leaked once: completion scripts need them for as long as the program runs.
pub(super) fn kinds() -> impl TypedValueParser<Value = JobKind> {
    names(workloads::KINDS.iter().map(|kind| &*kind.name().to_string().leak()))
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    let priority = text.parse::<u8>().ok().and_then(|number| Priority::try_from(number).ok());
    priority.ok_or_else(|| "give a priority from 1 to 9, larger sooner".to_owned())
}

pub(super) fn share(text: &str) -> Result<Share, String> {
    let share = text.parse::<f64>().ok().and_then(|share| Share::try_from(share).ok());
    share.ok_or_else(|| "give a share above 0 and up to 1, such as 0.05".to_owned())
}

pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "give an IP address such as 127.0.0.1 or ::1".to_owned())
}

pub(super) fn job_id(text: &str) -> Result<JobId, String> {
    let uuid = text.parse().map_err(|_| "give a job's id, a UUID as `divvy job list` shows it".to_owned())?;
    Ok(JobId(uuid))
}

pub(super) fn own_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "give a UUID such as 0190a5b0-0000-7000-8000-000000000001".to_owned())
}

/// A client's own key of a request, in characters that a header can have.
pub(super) fn request_key(text: &str) -> Result<String, String> {
    let is_key = (1..=256).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_key { Ok(text.to_owned()) } else { Err("give 1 to 256 printable characters of ASCII".to_owned()) }
}

/// `KEY=VALUE` or `KEY:VALUE`: the first of either character ends the key.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match split_word(text) {
        (key, Some(value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE or KEY:VALUE".to_owned()),
    }
}

/// The labels of a repeated option, each key once.
///
/// # Errors
/// A key is there twice.
pub(crate) fn each_once(option: &str, given: &[(String, String)]) -> Result<Labels, Failure> {
    distinct(given.iter().cloned())
        .map_err(|key| Failure::Usage(format!("{option} gives {} twice: give it once", printable(&key))))
}

/// `KEY`, `KEY=VALUE` or `KEY:VALUE`, in the form that the API takes.
pub(super) fn tag_filter(text: &str) -> Result<String, String> {
    let (key, value) = split_word(text);
    if key.is_empty() {
        return Err("give KEY, KEY=VALUE or KEY:VALUE".to_owned());
    }
    Ok(value.map_or_else(|| key.to_owned(), |value| format!("{key}:{value}")))
}

/// A duration such as `30s`, `1m 30s` or `2h`; a number alone is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a duration such as 30s, 5m or 1h30m".to_owned();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(duration).map_err(|_| wrong())?;
    // Longer ones cannot be added to a clock everywhere.
    if duration.as_secs() > u32::MAX.into() { Err("give less than 136 years".to_owned()) } else { Ok(duration) }
}

/// A duration in whole seconds, at least one.
pub(super) fn seconds(text: &str) -> Result<NonZeroU32, String> {
    let duration = duration(text)?;
    let whole = (duration.subsec_nanos() == 0).then(|| u32::try_from(duration.as_secs()).ok()).flatten();
    whole.and_then(NonZeroU32::new).ok_or_else(|| "give whole seconds, at least 1s and less than 136 years".to_owned())
}

/// A size in bytes, with an optional unit of a thousand (`MB`) or of 1024 (`MiB`).
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let parse = || {
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (count, unit) = text.split_at(unit_at);
        let factor: u64 = match unit {
            "" | "B" => 1,
            "K" | "kB" | "KB" => 1000,
            "M" | "MB" => 1000 * 1000,
            "G" | "GB" => 1000 * 1000 * 1000,
            "T" | "TB" => 1000 * 1000 * 1000 * 1000,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            _ => return None,
        };
        digits(count.trim_end())?.checked_mul(factor)
    };
    parse().ok_or_else(|| "give a size in bytes or such as 512MB or 4GiB".to_owned())
}

pub(super) fn http_url(text: &str) -> Result<Url, String> {
    base_url(text).map_err(|error| format!("{error}: give a URL such as http://127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly_in_every_spelling() {
        for (text, value) in [
            ("0", 0),
            ("10_000", 10_000),
            ("1e9", 1_000_000_000),
            ("1E9", 1_000_000_000),
            ("1e+9", 1_000_000_000),
            ("2.5e6", 2_500_000),
            ("1.8446744073709551615e19", u64::MAX),
            ("18446744073709551615", u64::MAX),
            ("18_446_744_073_709_551_615", u64::MAX),
            ("9007199254740993", 9_007_199_254_740_993),
            ("0e200", 0),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_integer_of_64_bits_is_refused() {
        for text in [
            "",
            "-1",
            "+1",
            "1.5",
            "1.25e1",
            "1e",
            "e9",
            "1e-3",
            "1e20",
            "2e19",
            "18446744073709551616",
            "_1",
            "1_",
            "1__0",
            "0x10",
            "1 000",
            "1e256",
            "nan",
            ".5e1",
            "1.e1",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_seconds_need_none() {
        for (text, seconds) in [("30", 30), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("1m 30s", 90), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        for text in ["", "-5s", "soon", "1.5", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["0", "0s", "1500ms", "200y"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(seconds("5m").map(NonZeroU32::get), Ok(300));
    }

    #[test]
    fn sizes_know_both_kinds_of_units() {
        for (text, bytes) in
            [("1024", 1024), ("512MB", 512_000_000), ("4GiB", 4 << 30), ("4 Gi", 4 << 30), ("1_000K", 1_000_000)]
        {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "4gib", "-1", "1.5GiB", "16777216TiB"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_have_a_key_an_equals_sign_or_a_colon_and_any_value() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert_eq!(label("a:b"), label("a=b"));
        assert_eq!(label("url=http://h"), Ok(("url".to_owned(), "http://h".to_owned())));
        assert_eq!(label("at:x=y"), Ok(("at".to_owned(), "x=y".to_owned())));
        for (text, query) in [("a=b:c", "a:b:c"), ("a:b=c", "a:b=c"), ("a=b", "a:b"), ("a:b", "a:b"), ("a", "a")] {
            assert_eq!(tag_filter(text).as_deref(), Ok(query));
        }
        assert!(tag_filter("=b").is_err() && tag_filter("").is_err());
    }

    #[test]
    fn only_http_urls_with_a_host_are_taken() {
        assert!(http_url("http://h/prefix").is_ok() && http_url("https://h").is_ok());
        for text in ["ftp://h", "h:8080", "http://", "https://", "", "http://h/?q", "http://h/#f"] {
            assert!(http_url(text).is_err(), "{text}");
        }
    }
}
