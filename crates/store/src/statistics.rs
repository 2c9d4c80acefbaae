//! Figures by period, in UTC, and by kind of job. Each is the sum of the figures of events ([`model::Counts`]), under the time
//! of the event, and changes in the transaction that writes the event. So they can be computed again from the events alone: see
//! [`Statistics`].
//!
//! A store adds the figures of a batch's events, as a [`Tally`], to its rows, in the order of their keys. Minutes, hours and
//! days are stored; weeks and months are made of days.

mod derived;
mod filled;
mod replayed;
mod tally;

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use model::{Counts, Grain, JobKind};
use serde::Deserialize;

use crate::record::NewJob;

pub(crate) use derived::page;
pub(crate) use filled::{filled, open_at};
pub use replayed::Statistics;
pub use tally::{Row, Tally};

/// Most names of tasks with separate counts for one kind in one period. The starts of other names are counted together, under
/// [`OTHER_TASKS`].
pub const MAX_TASK_NAMES: usize = 1000;
/// The name for tasks beyond [`MAX_TASK_NAMES`].
pub const OTHER_TASKS: &str = "(other)";
/// The tag that names the tasks of a job.
const TASK_TAG: &str = "task";
/// Prefix of the labels of workers with a registered Python function; the function's name follows.
const PYTHON_TASK: &str = "python-task.";

/// The kind whose parameters name a program.
const PROGRAM: JobKind = JobKind::new("program");

/// The part of a job's parameters that names its program.
#[derive(Deserialize)]
struct Named {
    program: String,
}

/// Key of a job's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Kind of the job.
    pub kind: JobKind,
    /// The name of the job's tasks, if they have one.
    pub task: Option<String>,
    /// Time of the submission.
    pub submitted_at: Timestamp,
}

impl Subject {
    /// The subject of a new job. Its tasks have the name of its tag `task`, else that of the program that they run or of the
    /// registered function that they call.
    #[must_use]
    pub fn of(new: &NewJob) -> Self {
        let tag = new.options.tags.get(TASK_TAG).map(String::as_str);
        let mut labels = new.options.requires.labels.keys();
        let function = || labels.find_map(|label| label.strip_prefix(PYTHON_TASK)).map(str::to_owned);
        let is_program = new.kind == PROGRAM;
        let program = || Some(serde_json::from_str::<Named>(new.params.get()).ok().filter(|_| is_program)?.program);
        let task = tag.map(str::to_owned).or_else(program).or_else(function).filter(|name| !name.is_empty());
        Self { kind: new.kind, task, submitted_at: new.submitted_at }
    }

    /// The name under which starts are counted.
    fn task_name(&self) -> &str {
        self.task.as_deref().unwrap_or_else(|| self.kind.as_str())
    }
}

/// A query of figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Grain of the periods.
    pub grain: Grain,
    /// Range of the starts of periods.
    pub starts: Range<Timestamp>,
    /// Kind of the jobs; all kinds if `None`.
    pub kind: Option<JobKind>,
}

/// The figures of one kind in one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeriodRow {
    /// Start of the period.
    pub start: Timestamp,
    /// The kind.
    pub kind: JobKind,
    /// The figures. `jobs_pending` and `tasks_pending` are the open jobs and tasks after the period's last event, not sums.
    pub counts: Counts,
}

/// Open jobs and tasks of a kind after the last event of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRow {
    /// Start of the period.
    pub start: Timestamp,
    /// The kind.
    pub kind: JobKind,
    /// Open jobs.
    pub jobs: i64,
    /// Their open tasks.
    pub tasks: i64,
}

/// Starts of tasks of a name in one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Start of the period.
    pub start: Timestamp,
    /// The kind of their jobs.
    pub kind: JobKind,
    /// Their name: that of the kind for tasks without a name of their own.
    pub task: String,
    /// The starts.
    pub starts: u64,
}

/// Key of the last [`PeriodRow`] of a page: the next page begins after it.
pub type PeriodKey = (Timestamp, JobKind);
/// Key of the last [`TaskRow`] of a page: the next page begins after it.
pub type TaskKey = (Timestamp, JobKind, String);

/// Time for which figures are kept. Days are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsRetention {
    /// Age of minutes, since their start, at which they are deleted.
    pub minutes: Duration,
    /// Age of hours, since their start, at which they are deleted.
    pub hours: Duration,
}

impl Default for StatisticsRetention {
    /// Minutes for a day, hours for 31 days.
    fn default() -> Self {
        Self { minutes: Duration::from_hours(24), hours: Duration::from_hours(31 * 24) }
    }
}

impl StatisticsRetention {
    /// The times before which periods are deleted.
    pub(crate) fn bounds(self, now: Timestamp) -> [(Grain, Timestamp); 2] {
        let before = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        [(Grain::Minute, before(self.minutes)), (Grain::Hour, before(self.hours))]
    }
}

#[cfg(test)]
mod tests;
