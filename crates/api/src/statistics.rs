//! Figures by period and kind.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use model::{Counts, Durations, Grain, JobKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// Answer to `GET /v1/statistics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatisticsPage {
    /// The length of the periods.
    #[schema(value_type = schema::Grain)]
    pub grain: Grain,
    /// By start, then by kind. Periods in which nothing of a kind was counted are left out, save with `fill=true` those in
    /// which jobs of it are open.
    pub periods: Vec<PeriodStatistics>,
    /// For `?page_token=`, while there are more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// The figures of one kind in one period, in UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeriodStatistics {
    /// Start of the period.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// End of the period: the start of the next one.
    #[schema(value_type = String, format = DateTime)]
    pub end: Timestamp,
    /// The kind of the jobs.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// Jobs.
    pub jobs: JobFigures,
    /// Their tasks.
    pub tasks: TaskFigures,
    /// Attempts at runs of tasks.
    pub attempts: AttemptFigures,
    /// Of jobs that started: the time since their submission.
    pub waiting: DurationFigures,
    /// Of jobs that ended and had started: the time since their start, or since their last retry.
    pub running: DurationFigures,
    /// Of attempts that completed: the time that the worker was busy.
    pub computing: DurationFigures,
    /// The sum of `computing` in seconds.
    pub compute_seconds: f64,
}

/// Jobs in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobFigures {
    /// Accepted.
    pub submitted: u64,
    /// Their first task was given out.
    pub started: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
    /// Canceled.
    pub canceled: u64,
    /// Retried, whether over or not.
    pub retried: u64,
    /// Open at the period's end.
    pub pending: u64,
}

/// Tasks in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskFigures {
    /// Accepted.
    pub submitted: u64,
    /// Their first attempt has ended: counted in the period in which it ends, not in that in which it begins. A task whose
    /// first attempt runs is not counted yet.
    pub started: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Ran out of attempts.
    pub failed: u64,
    /// Open when their job was canceled or failed.
    pub canceled: u64,
    /// Opened again: by a retry, or because their worker was set aside.
    pub retried: u64,
    /// Tasks of the attempts that ended: a task counts once for each attempt at it.
    pub starts: u64,
    /// Open at the period's end.
    pub pending: u64,
}

/// Attempts in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptFigures {
    /// Ended, completed or failed.
    pub ended: u64,
    /// Failed.
    pub failed: u64,
}

/// Durations in a period.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DurationFigures {
    /// The number of durations.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: u64,
    /// Half of them were not longer, in seconds, within 13.2 %.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p50_seconds: Option<f64>,
    /// Nine in ten were not longer, in seconds, within 13.2 %.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p90_seconds: Option<f64>,
    /// 99 in a hundred were not longer, in seconds, within 13.2 %.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_seconds: Option<f64>,
    /// The number of durations in each bucket, by the bucket's upper bound in microseconds. A duration is in the bucket with the
    /// least bound that is not below it. Buckets of several periods add up.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub buckets: BTreeMap<u64, u64>,
}

impl From<&Durations> for DurationFigures {
    fn from(durations: &Durations) -> Self {
        let quantile = |share| durations.quantile(share).map(seconds);
        Self {
            count: durations.count(),
            sum_us: durations.sum_us,
            p50_seconds: quantile(0.5),
            p90_seconds: quantile(0.9),
            p99_seconds: quantile(0.99),
            buckets: durations.buckets.clone(),
        }
    }
}

/// A duration in seconds, as the decimal number that its nanoseconds are: a sum of whole seconds and their fraction may be
/// another float, such as 3.5496478700000003.
fn seconds(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 104 days, an estimate beyond")]
    let nanoseconds = duration.as_nanos() as f64;
    nanoseconds / 1e9
}

impl PeriodStatistics {
    /// The figures of a period whose pending counts are what was open at its end.
    #[must_use]
    pub fn new(grain: Grain, start: Timestamp, kind: JobKind, counts: &Counts) -> Self {
        // Never below zero: what is open was counted when it became open.
        let pending = |open: i64| u64::try_from(open).unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let compute_seconds = counts.computing.sum_us as f64 / 1e6;
        Self {
            start,
            end: grain.end_of(start),
            kind,
            jobs: JobFigures {
                submitted: counts.jobs_submitted,
                started: counts.jobs_started,
                succeeded: counts.jobs_succeeded,
                failed: counts.jobs_failed,
                canceled: counts.jobs_canceled,
                retried: counts.jobs_retried,
                pending: pending(counts.jobs_pending),
            },
            tasks: TaskFigures {
                submitted: counts.tasks_submitted,
                started: counts.tasks_started,
                succeeded: counts.tasks_succeeded,
                failed: counts.tasks_failed,
                canceled: counts.tasks_canceled,
                retried: counts.tasks_retried,
                starts: counts.task_starts,
                pending: pending(counts.tasks_pending),
            },
            attempts: AttemptFigures { ended: counts.attempts, failed: counts.attempts_failed },
            waiting: (&counts.waiting).into(),
            running: (&counts.running).into(),
            computing: (&counts.computing).into(),
            compute_seconds,
        }
    }
}

/// Answer to `GET /v1/statistics/tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStartsPage {
    /// The length of the periods.
    #[schema(value_type = schema::Grain)]
    pub grain: Grain,
    /// By start, kind and name.
    pub tasks: Vec<TaskStarts>,
    /// For `?page_token=`, while there are more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// Starts of the tasks of one name in one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStarts {
    /// Start of the period.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// End of the period: the start of the next one.
    #[schema(value_type = String, format = DateTime)]
    pub end: Timestamp,
    /// The kind of their jobs.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// The name: the job's tag `task`, else the program or the registered function that it calls, else its kind.
    pub task: String,
    /// Starts whose attempt has ended: a task counts once for each attempt at it.
    pub starts: u64,
}

impl StatisticsPage {
    /// The columns of [`Self::records`].
    pub const COLUMNS: [&'static str; 36] = [
        "start",
        "end",
        "kind",
        "jobs_submitted",
        "jobs_started",
        "jobs_succeeded",
        "jobs_failed",
        "jobs_canceled",
        "jobs_retried",
        "jobs_pending",
        "tasks_submitted",
        "tasks_started",
        "tasks_succeeded",
        "tasks_failed",
        "tasks_canceled",
        "tasks_retried",
        "task_starts",
        "tasks_pending",
        "attempts",
        "attempts_failed",
        "waiting_count",
        "waiting_us",
        "waiting_p50_seconds",
        "waiting_p90_seconds",
        "waiting_p99_seconds",
        "running_count",
        "running_us",
        "running_p50_seconds",
        "running_p90_seconds",
        "running_p99_seconds",
        "computing_count",
        "computing_us",
        "computing_p50_seconds",
        "computing_p90_seconds",
        "computing_p99_seconds",
        "compute_seconds",
    ];

    /// The periods as rows of a table, without the buckets.
    pub fn records(&self) -> impl Iterator<Item = Vec<String>> {
        self.periods.iter().map(|period| {
            let PeriodStatistics { start, end, kind, jobs, tasks, attempts, .. } = period;
            let mut record = vec![start.to_string(), end.to_string(), kind.to_string()];
            let counts = [
                jobs.submitted,
                jobs.started,
                jobs.succeeded,
                jobs.failed,
                jobs.canceled,
                jobs.retried,
                jobs.pending,
                tasks.submitted,
                tasks.started,
                tasks.succeeded,
                tasks.failed,
                tasks.canceled,
                tasks.retried,
                tasks.starts,
                tasks.pending,
                attempts.ended,
                attempts.failed,
            ];
            record.extend(counts.map(|count| count.to_string()));
            for durations in [&period.waiting, &period.running, &period.computing] {
                record.extend([durations.count.to_string(), durations.sum_us.to_string()]);
                let quantiles = [durations.p50_seconds, durations.p90_seconds, durations.p99_seconds];
                record.extend(quantiles.map(|seconds| seconds.map_or_else(String::new, |seconds| seconds.to_string())));
            }
            record.push(period.compute_seconds.to_string());
            record
        })
    }
}

impl TaskStartsPage {
    /// The columns of [`Self::records`].
    pub const COLUMNS: [&'static str; 5] = ["start", "end", "kind", "task", "starts"];

    /// The starts as rows of a table.
    pub fn records(&self) -> impl Iterator<Item = Vec<String>> {
        self.tasks.iter().map(|TaskStarts { start, end, kind, task, starts }| {
            vec![start.to_string(), end.to_string(), kind.to_string(), task.clone(), starts.to_string()]
        })
    }
}

/// Rows as CSV (RFC 4180), each with its line's end.
///
/// # Panics
/// Never: memory takes every row, and rows may differ in length.
pub fn csv_lines(records: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).flexible(true).from_writer(Vec::new());
    for record in records {
        writer.write_record(record).expect("memory takes it");
    }
    let bytes = writer.into_inner().expect("memory takes it");
    String::from_utf8(bytes).expect("fields are text, and so are commas and quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_no_digits_beyond_their_nanoseconds() {
        let mut durations = Durations::default();
        durations.record(Duration::from_millis(3_500));
        let figures = DurationFigures::from(&durations);
        assert_eq!(figures.p50_seconds.map(|seconds| seconds.to_string()).as_deref(), Some("3.54964787"));
    }

    #[test]
    fn records_have_a_value_for_each_column_in_its_place() {
        let mut counts = Counts::from_figures(std::array::from_fn(|place| place as u64 + 100));
        (counts.jobs_pending, counts.tasks_pending) = (7, 8);
        counts.computing.record(Duration::from_secs(3));
        let start: Timestamp = "2026-03-21T10:00:00Z".parse().expect("a time");
        let periods = vec![PeriodStatistics::new(Grain::Hour, start, JobKind::SLEEP, &counts)];
        let page = StatisticsPage { grain: Grain::Hour, periods, next_page_token: None };
        let record = page.records().next().expect("a row");
        assert_eq!(record.len(), StatisticsPage::COLUMNS.len());
        let named: BTreeMap<_, _> = StatisticsPage::COLUMNS.into_iter().zip(&record).collect();
        for (name, figure) in counts.figures() {
            assert_eq!(*named[name], figure.to_string(), "{name}");
        }
        for (name, value) in [
            ("end", "2026-03-21T11:00:00Z"),
            ("kind", "sleep"),
            ("jobs_pending", "7"),
            ("tasks_pending", "8"),
            ("waiting_p50_seconds", ""),
            ("computing_us", "3000000"),
            ("compute_seconds", "3"),
        ] {
            assert_eq!(named[name], value, "{name}");
        }
    }

    #[test]
    fn fields_of_csv_are_quoted_where_they_must_be() {
        let record = ["plain", "a,b", "say \"x\"", "two\nlines", ""].map(str::to_owned).to_vec();
        let lines = csv_lines([record, vec!["1".to_owned()]]);
        assert_eq!(lines, "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\r\n1\r\n");
    }
}
