//! All figures in memory, computed from events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Counts, Grain, JobEvent, JobKind};

use super::{
    MAX_TASK_NAMES, OTHER_TASKS, PendingRow, PeriodKey, PeriodRow, Query, Row, Subject, Tally, TaskKey, TaskRow,
};

/// The figures of events: the same as in the rows of a store, kept without a limit of age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    rows: BTreeMap<Row, Counts>,
    starts: BTreeMap<(Row, String), u64>,
    pending: BTreeMap<JobKind, (i64, i64)>,
}

impl Statistics {
    /// Counts an event. Events are counted in the order of their numbers, each once. An event of an earlier release, which has no
    /// figures, counts nothing.
    pub fn count(&mut self, event: &JobEvent) {
        let Some(kind) = event.job_kind else { return };
        let subject = Subject { kind, task: event.task.clone(), submitted_at: event.at };
        let mut tally = Tally::default();
        tally.count(&subject, event.at, &event.counts);
        self.add(&tally);
    }

    /// Adds the figures of a batch's events.
    pub fn add(&mut self, tally: &Tally) {
        let before = self.pending.clone();
        for (kind, jobs, tasks) in tally.pending() {
            let pending = self.pending.entry(kind).or_default();
            *pending = (pending.0 + jobs, pending.1 + tasks);
        }
        for (row, counts) in tally.rows() {
            let (jobs, tasks) = before.get(&row.2).copied().unwrap_or_default();
            let sums = self.rows.entry(row).or_default();
            sums.add(counts);
            (sums.jobs_pending, sums.tasks_pending) = (jobs + counts.jobs_pending, tasks + counts.tasks_pending);
        }
        for (row, task, starts) in tally.starts() {
            let key = (row, task.to_owned());
            let is_named = self.starts.contains_key(&key) || self.names(row) < MAX_TASK_NAMES;
            *self.starts.entry(if is_named { key } else { (row, OTHER_TASKS.to_owned()) }).or_default() += starts;
        }
    }

    fn names(&self, row: Row) -> usize {
        self.starts
            .range((row, String::new())..)
            .take_while(|((other, _), _)| *other == row)
            .take(MAX_TASK_NAMES)
            .count()
    }

    /// At most `limit` rows of a stored grain after a key, by start and kind.
    #[must_use]
    pub fn periods(&self, query: &Query, after: Option<&PeriodKey>, limit: usize) -> Vec<PeriodRow> {
        let from = (query.grain, query.starts.start, FIRST_KIND);
        let rows = self.rows.range(from..).map(|(&(grain, start, kind), counts)| (grain, start, kind, counts));
        let of_range = rows.take_while(|row| row.0 == query.grain && row.1 < query.starts.end);
        of_range
            .filter(|row| query.kind.is_none_or(|kind| row.2 == kind) && after.is_none_or(|key| (row.1, row.2) > *key))
            .take(limit)
            .map(|(_, start, kind, counts)| PeriodRow { start, kind, counts: counts.clone() })
            .collect()
    }

    /// At most `limit` rows of starts by name of a stored grain after a key, by start, kind and name.
    #[must_use]
    pub fn tasks(&self, query: &Query, after: Option<&TaskKey>, limit: usize) -> Vec<TaskRow> {
        let from = ((query.grain, query.starts.start, FIRST_KIND), String::new());
        let rows = self.starts.range(from..);
        let of_range =
            rows.take_while(|(((grain, start, _), _), _)| *grain == query.grain && *start < query.starts.end);
        of_range
            .map(|(((_, start, kind), task), starts)| TaskRow {
                start: *start,
                kind: *kind,
                task: task.clone(),
                starts: *starts,
            })
            .filter(|row| query.kind.is_none_or(|kind| row.kind == kind))
            .filter(|row| after.is_none_or(|key| (row.start, row.kind, &row.task) > (key.0, key.1, &key.2)))
            .take(limit)
            .collect()
    }

    /// The last row of each kind of a stored grain whose period begins before a moment.
    #[must_use]
    pub fn pending(&self, grain: Grain, before: Timestamp) -> Vec<PendingRow> {
        let rows = self.rows.range((grain, Timestamp::MIN, FIRST_KIND)..(grain, before, FIRST_KIND));
        let last: BTreeMap<_, _> = rows.map(|(&(_, start, kind), counts)| (kind, (start, counts))).collect();
        let pending = |(kind, (start, counts)): (JobKind, (Timestamp, &Counts))| PendingRow {
            start,
            kind,
            jobs: counts.jobs_pending,
            tasks: counts.tasks_pending,
        };
        last.into_iter().map(pending).collect()
    }

    /// Forgets rows that begin before a moment. Returns their number.
    pub(crate) fn forget(&mut self, grain: Grain, before: Timestamp) -> u64 {
        let count = self.rows.len() + self.starts.len();
        self.rows.retain(|row, _| row.0 != grain || row.1 >= before);
        self.starts.retain(|(row, _), _| row.0 != grain || row.1 >= before);
        (count - self.rows.len() - self.starts.len()) as u64
    }
}

/// A name that sorts before all kinds.
const FIRST_KIND: JobKind = JobKind::new("-");
