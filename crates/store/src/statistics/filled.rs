//! Rows for periods in which nothing was counted while jobs were open.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use model::{Counts, Grain, JobKind};

use super::{PendingRow, PeriodRow};

/// Open jobs and tasks of a kind.
type Open = BTreeMap<JobKind, (i64, i64)>;

/// The open jobs and tasks at a moment, by rows of several grains that each end before it: the row that ends last is right.
pub(crate) fn open_at(rows: impl IntoIterator<Item = (Grain, PendingRow)>) -> Open {
    let mut latest: BTreeMap<JobKind, (Timestamp, (i64, i64))> = BTreeMap::new();
    for (grain, row) in rows {
        let end = grain.end_of(row.start);
        let known = latest.entry(row.kind).or_insert((end, (row.jobs, row.tasks)));
        if end > known.0 {
            *known = (end, (row.jobs, row.tasks));
        }
    }
    latest.into_iter().map(|(kind, (_, open))| (kind, open)).collect()
}

/// At most `limit` rows of the periods in a range: the existing rows, in their order, and between them a row for each period and
/// kind with open jobs or tasks.
pub(crate) fn filled(
    grain: Grain,
    starts: Range<Timestamp>,
    mut open: Open,
    rows: Vec<PeriodRow>,
    limit: usize,
) -> Vec<PeriodRow> {
    let mut rows = rows.into_iter().peekable();
    let mut all = Vec::new();
    let mut start = grain.start_of(starts.start);
    while all.len() < limit {
        open.retain(|_, pending| *pending != (0, 0));
        if open.is_empty() {
            // No row is missing before the next row.
            let Some(next) = rows.peek() else { break };
            start = next.start;
        }
        if start >= starts.end {
            break;
        }
        let idle = |(&kind, &(jobs_pending, tasks_pending)): (&JobKind, &(i64, i64))| {
            let counts = Counts { jobs_pending, tasks_pending, ..Counts::default() };
            (kind, PeriodRow { start, kind, counts })
        };
        let mut of_period: BTreeMap<_, _> = open.iter().map(idle).collect();
        while let Some(row) = rows.next_if(|row| row.start == start) {
            open.insert(row.kind, (row.counts.jobs_pending, row.counts.tasks_pending));
            of_period.insert(row.kind, row);
        }
        all.extend(of_period.into_values());
        start = grain.end_of(start);
    }
    all.truncate(limit);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).expect("a time")
    }

    fn row(minute: i64, kind: JobKind, jobs_pending: i64, jobs_submitted: u64) -> PeriodRow {
        let counts = Counts { jobs_pending, tasks_pending: jobs_pending, jobs_submitted, ..Counts::default() };
        PeriodRow { start: at(minute), kind, counts }
    }

    #[test]
    fn each_period_of_which_something_is_open_has_a_row() {
        let (sleep, tasks) = (JobKind::SLEEP, JobKind::TASKS);
        let rows = vec![row(12, sleep, 1, 1), row(12, tasks, 0, 3), row(15, sleep, 0, 0), row(19, tasks, 2, 2)];
        let open = Open::from([(tasks, (4, 4))]);
        let expected = [
            row(10, tasks, 4, 0),
            row(11, tasks, 4, 0),
            row(12, sleep, 1, 1),
            row(12, tasks, 0, 3),
            row(13, sleep, 1, 0),
            row(14, sleep, 1, 0),
            row(15, sleep, 0, 0),
            row(19, tasks, 2, 2),
            row(20, tasks, 2, 0),
        ];
        let all = |limit| filled(Grain::Minute, at(10)..at(21), open.clone(), rows.clone(), limit);
        assert_eq!(all(100), expected);
        assert_eq!(all(5), expected[..5]);
        let wide = Timestamp::MIN..Timestamp::MAX;
        assert_eq!(filled(Grain::Minute, wide, Open::new(), Vec::new(), 100), []);
    }

    #[test]
    fn what_is_open_is_known_by_the_row_that_ends_last() {
        let pending = |minute, jobs| PendingRow { start: at(minute), kind: JobKind::SLEEP, jobs, tasks: jobs };
        let rows = [(Grain::Hour, pending(0, 7)), (Grain::Minute, pending(70, 3)), (Grain::Day, pending(-1440, 9))];
        assert_eq!(open_at(rows), Open::from([(JobKind::SLEEP, (3, 3))]));
        assert_eq!(open_at(rows[..1].iter().copied()), Open::from([(JobKind::SLEEP, (7, 7))]));
    }
}
