//! Compares stored rows with the counts of the events up to some number.

use std::collections::BTreeMap;

use api::PeriodStatistics;
use jiff::Timestamp;
use model::{Grain, JobEvent, JobKind};
use store::statistics::{PeriodRow, Query, Statistics, TaskRow};

use super::{Rows, STORED};

/// Rows of a grain by a period's start and kind; with a name, starts by that name.
type Key = (Timestamp, JobKind, Option<String>);

/// The stored rows of a grain.
#[derive(Default)]
struct Stored {
    /// Periods that began earlier are not kept.
    oldest: Option<Timestamp>,
    /// Rows that have equalled the counts after none of the events so far.
    periods: BTreeMap<Key, PeriodStatistics>,
    starts: BTreeMap<Key, u64>,
    equal: usize,
    /// Rows that the events count and that are not stored.
    unknown: Vec<Key>,
}

/// Compares stored rows of statistics with the sums over events.
pub(super) struct Check {
    counted: Statistics,
    /// The newest event before the first row was read: all rows have it.
    first: u64,
    has_compared_all: bool,
    kind: Option<JobKind>,
    grains: BTreeMap<Grain, Stored>,
}

impl Check {
    pub(super) fn new(first: u64, kind: Option<JobKind>) -> Self {
        Self { counted: Statistics::default(), first, has_compared_all: false, kind, grains: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, grain: Grain, Rows { periods, tasks }: Rows) {
        let is_wanted = |kind: JobKind| self.kind.is_none_or(|wanted| wanted == kind);
        // Days are kept for ever.
        let oldest =
            if grain == Grain::Day { None } else { Some(periods.first().map_or(Timestamp::MAX, |row| row.start)) };
        let periods = periods.into_iter().filter(|row| is_wanted(row.kind));
        let is_kept = |start: Timestamp| oldest.is_none_or(|oldest| start >= oldest);
        let tasks = tasks.into_iter().filter(|row| is_wanted(row.kind) && is_kept(row.start));
        let stored = Stored {
            oldest,
            periods: periods.map(|row| ((row.start, row.kind, None), row)).collect(),
            starts: tasks.map(|row| ((row.start, row.kind, Some(row.task)), row.starts)).collect(),
            ..Stored::default()
        };
        self.grains.insert(grain, stored);
    }

    /// Counts an event and compares the rows that it changes.
    pub(super) fn count(&mut self, event: &JobEvent) {
        if event.seq > self.first {
            self.compare_all();
        }
        self.counted.count(event);
        let Some(kind) = event.job_kind else { return };
        if self.has_compared_all {
            for grain in STORED {
                let start = grain.start_of(event.at);
                self.compare(grain, start, grain.end_of(start), Some(kind));
            }
        }
    }

    /// There are no more events.
    pub(super) fn end(&mut self) {
        self.compare_all();
    }

    /// The number of equal rows of a grain, and the rows that differ.
    pub(super) fn outcome(&self, grain: Grain) -> (usize, Vec<String>) {
        let Some(stored) = self.grains.get(&grain) else { return (0, Vec::new()) };
        let of_events = |key: &Key| match &key.2 {
            None => !self.periods(grain, key.0, grain.end_of(key.0), Some(key.1)).is_empty(),
            Some(task) => {
                self.starts(grain, key.0, grain.end_of(key.0), Some(key.1)).iter().any(|row| row.task == *task)
            }
        };
        let wrong = |key: &Key, what: &str| format!("{}: {what}", describe(grain, key));
        let unequal = stored.periods.keys().chain(stored.starts.keys());
        let unequal = unequal.map(|key| wrong(key, if of_events(key) { "other figures" } else { "no events" }));
        let unknown = stored.unknown.iter().map(|key| wrong(key, "not stored"));
        (stored.equal, unequal.chain(unknown).collect())
    }

    /// Compares every row, once the first event came that all rows have, and notes counted rows that are not stored.
    fn compare_all(&mut self) {
        if std::mem::replace(&mut self.has_compared_all, true) {
            return;
        }
        for grain in STORED {
            let oldest = self.grains.get(&grain).and_then(|stored| stored.oldest).unwrap_or(Timestamp::MIN);
            let counted = self.periods(grain, oldest, Timestamp::MAX, self.kind);
            let counted = counted.into_iter().map(|row| (row.start, row.kind, None));
            let starts = self.starts(grain, oldest, Timestamp::MAX, self.kind);
            let starts = starts.into_iter().map(|row| (row.start, row.kind, Some(row.task)));
            let Some(stored) = self.grains.get_mut(&grain) else { continue };
            let is_stored = |key: &Key| stored.periods.contains_key(key) || stored.starts.contains_key(key);
            let unknown = counted.chain(starts).filter(|key| !is_stored(key)).collect();
            stored.unknown = unknown;
            self.compare(grain, oldest, Timestamp::MAX, self.kind);
        }
    }

    fn compare(&mut self, grain: Grain, start: Timestamp, end: Timestamp, kind: Option<JobKind>) {
        let (periods, starts) = (self.periods(grain, start, end, kind), self.starts(grain, start, end, kind));
        let Some(stored) = self.grains.get_mut(&grain) else { return };
        let before = stored.periods.len() + stored.starts.len();
        for PeriodRow { start, kind, counts } in periods {
            let key = (start, kind, None);
            if stored.periods.get(&key) == Some(&PeriodStatistics::new(grain, start, kind, &counts)) {
                stored.periods.remove(&key);
            }
        }
        for TaskRow { start, kind, task, starts } in starts {
            let key = (start, kind, Some(task));
            if stored.starts.get(&key) == Some(&starts) {
                stored.starts.remove(&key);
            }
        }
        stored.equal += before - stored.periods.len() - stored.starts.len();
    }

    fn query(grain: Grain, start: Timestamp, end: Timestamp, kind: Option<JobKind>) -> Query {
        Query { grain, starts: start..end, kind }
    }

    fn periods(&self, grain: Grain, start: Timestamp, end: Timestamp, kind: Option<JobKind>) -> Vec<PeriodRow> {
        self.counted.periods(&Self::query(grain, start, end, kind), None, usize::MAX)
    }

    fn starts(&self, grain: Grain, start: Timestamp, end: Timestamp, kind: Option<JobKind>) -> Vec<TaskRow> {
        self.counted.tasks(&Self::query(grain, start, end, kind), None, usize::MAX)
    }
}

/// Names a row, such as `day 2026-03-21T00:00:00Z sleep`, and with the quoted name of the tasks where it counts starts.
fn describe(grain: Grain, (start, kind, task): &Key) -> String {
    let task = task.as_ref().map_or_else(String::new, |task| format!(" {task:?}"));
    format!("{grain} {start} {kind}{task}")
}

#[cfg(test)]
mod tests {
    use api::TaskStarts;
    use model::{Counts, EventKind, JobId};
    use uuid::Uuid;

    use super::*;

    fn minute(number: i64) -> Timestamp {
        Timestamp::from_second(60 * number).expect("a time")
    }

    fn counts() -> Counts {
        Counts { attempts: 1, task_starts: 1, ..Counts::default() }
    }

    fn event(seq: u64) -> JobEvent {
        JobEvent {
            seq,
            job: JobId(Uuid::nil()),
            kind: EventKind::Progress,
            at: minute(i64::try_from(seq).expect("a small number")),
            job_kind: Some(JobKind::SLEEP),
            task: None,
            tasks_done: None,
            tasks_total: None,
            error: None,
            source: None,
            counts: Box::new(counts()),
        }
    }

    fn starts(number: i64) -> TaskStarts {
        let (kind, task) = (JobKind::SLEEP, JobKind::SLEEP.to_string());
        TaskStarts { start: minute(number), end: minute(number + 1), kind, task, starts: 1 }
    }

    #[test]
    fn starts_that_are_kept_a_little_longer_than_their_period_are_no_difference() {
        let mut check = Check::new(3, None);
        let periods =
            [2, 3].map(|number| PeriodStatistics::new(Grain::Minute, minute(number), JobKind::SLEEP, &counts()));
        let tasks = [1, 2, 3].map(starts);
        check.add(Grain::Minute, Rows { periods: periods.into(), tasks: tasks.into() });
        (1..=3).for_each(|seq| check.count(&event(seq)));
        check.end();
        assert_eq!(check.outcome(Grain::Minute), (4, Vec::new()));
    }

    #[test]
    fn a_row_that_differs_is_named_as_people_name_it() {
        let mut check = Check::new(2, None);
        let tasks = vec![TaskStarts { task: "a nap".to_owned(), ..starts(1) }];
        check.add(Grain::Day, Rows { periods: Vec::new(), tasks });
        (1..=2).for_each(|seq| check.count(&event(seq)));
        check.end();
        let expected = [
            "day 1970-01-01T00:01:00Z sleep \"a nap\": no events",
            "day 1970-01-01T00:00:00Z sleep: not stored",
            "day 1970-01-01T00:00:00Z sleep \"sleep\": not stored",
        ];
        assert_eq!(check.outcome(Grain::Day), (0, expected.map(str::to_owned).to_vec()));
    }
}
