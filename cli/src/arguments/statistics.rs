//! The arguments of `divvy statistics`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use model::{Grain, JobKind};

use super::GridUrl;
use super::values::{duration, kinds, names};

/// Shows what has happened by period: jobs, tasks, attempts, waiting and running times. Periods are in UTC.
///
/// A task counts as started (JSON and CSV) in the period in which its first attempt ends.
#[derive(Debug, Args)]
pub(crate) struct Statistics {
    #[command(flatten)]
    pub(crate) url: GridUrl,
    /// Length of the periods
    #[arg(long, value_name = "GRAIN", value_parser = names::<Grain>(Grain::ALL.map(Grain::as_str)), default_value = "hour")]
    pub(crate) grain: Grain,
    /// From the period of this time on: a date, an RFC 3339 time, or how long ago, such as 2h [default: by the grain]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) from: Option<Moment>,
    /// Periods that begin before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) to: Option<Moment>,
    /// Only jobs of this kind
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub(crate) kind: Option<JobKind>,
    /// Show periods without any event too, while jobs are open
    #[arg(long, conflicts_with = "tasks")]
    pub(crate) fill: bool,
    /// Show the starts by name of task instead
    #[arg(long)]
    pub(crate) tasks: bool,
    /// Compute the figures again from the events in Kafka, and say whether they equal the stored ones
    #[cfg(feature = "kafka")]
    #[arg(long, conflicts_with_all = ["grain", "from", "to", "fill", "tasks", "output"])]
    pub(crate) replay_from_kafka: bool,
    /// Kafka's brokers for the replay, with commas between [env: DIVVY_KAFKA_BROKERS]
    #[cfg(feature = "kafka")]
    #[arg(long, value_name = "HOST:PORT", requires = "replay_from_kafka")]
    pub(crate) brokers: Option<String>,
    /// How to print: columns for people, with a chart on a terminal; the API's JSON; or CSV
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = StatisticsFormat::Table)]
    pub(crate) output: StatisticsFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatisticsFormat {
    Table,
    Json,
    Csv,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    /// The point in time, seen from `now`.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::MIN),
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    let is_date = !text.contains([':', 'T', ' ']);
    // The last dates of the calendar, which stand for no end, lie beyond the last timestamp.
    let of_midnight = |date: Date| date.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |midnight| midnight.timestamp());
    let date = || text.parse::<Date>().ok().filter(|date| is_date && date.year() > 0).map(of_midnight);
    let at = text.parse().ok().or_else(date);
    let ago = || duration(text).ok().map(Moment::Ago);
    at.map(Moment::At).or_else(ago).ok_or_else(|| {
        "give a date such as 2026-03-21, a time such as 2026-03-21T10:00:00Z, or how long ago, such as 2h".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_times_and_ages() {
        let at = |text: &str| Moment::At(text.parse().expect("a time"));
        assert_eq!(moment("2026-03-21"), Ok(at("2026-03-21T00:00:00Z")));
        assert_eq!(moment("2026-03-21T10:00:00+02:00"), Ok(at("2026-03-21T08:00:00Z")));
        assert_eq!(moment("9999-12-31"), Ok(Moment::At(Timestamp::MAX)));
        assert_eq!(moment("90m"), Ok(Moment::Ago(Duration::from_secs(5400))));
        for wrong in ["", "soon", "2026-03-21T10:00", "2026-13-01", "-2h"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
        let now = "2026-03-21T10:00:00Z".parse().expect("a time");
        assert_eq!(Moment::Ago(Duration::from_secs(60)).resolve(now).to_string(), "2026-03-21T09:59:00Z");
    }
}
