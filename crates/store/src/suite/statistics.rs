use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::{Counts, Durations, EventKind, Grain, JobKind, JobState};

use super::Harness;
use super::helpers::*;
use crate::statistics::{MAX_TASK_NAMES, OTHER_TASKS, PeriodRow, Query, Statistics, StatisticsRetention, TaskRow};
use crate::{Batch, Change, ChangeKind, Entry, NewJob, Parts, Store};

fn all(grain: Grain) -> Query {
    Query { grain, starts: Timestamp::MIN..Timestamp::MAX, kind: None }
}

/// Every row of a grain, in pages of an odd size.
pub async fn every_period(store: &Store, query: &Query) -> Vec<PeriodRow> {
    let mut rows: Vec<PeriodRow> = Vec::new();
    loop {
        let after = rows.last().map(|row| (row.start, row.kind));
        let page = store.periods(query.clone(), after, 3).await.expect("readable");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

async fn every_task(store: &Store, query: &Query) -> Vec<TaskRow> {
    let mut rows: Vec<TaskRow> = Vec::new();
    loop {
        let after = rows.last().map(|row| (row.start, row.kind, row.task.clone()));
        let page = store.task_starts(query.clone(), after, 700).await.expect("readable");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

/// The figures are those that all events count together, none of which is gone.
pub async fn assert_counted(store: &Store) {
    let mut counted = Statistics::default();
    for event in store.events(0, None, usize::MAX >> 1).await.expect("readable") {
        counted.count(&event);
    }
    for grain in Grain::STORED {
        let query = all(grain);
        assert_eq!(every_period(store, &query).await, counted.periods(&query, None, usize::MAX), "{grain}");
        assert_eq!(every_task(store, &query).await, counted.tasks(&query, None, usize::MAX), "{grain}");
    }
}

fn durations(of: &[Duration]) -> Durations {
    let mut durations = Durations::default();
    of.iter().for_each(|&duration| durations.record(duration));
    durations
}

fn minutes(number: i64) -> i64 {
    60 * number
}

/// Of two jobs one fails a task and is retried, and one is canceled.
async fn two_jobs(store: &Store) {
    let change = |number, seconds, kind| change(id(number), at(minutes(10) + seconds), kind);
    for number in [1, 2] {
        store.submit(NewJob { submitted_at: at(minutes(10)), ..tasks_job(number, numbers(5)) }).await.expect("room");
    }
    store.record(change(1, 7, ChangeKind::Started));
    store.record(completed(id(1), 0..2, 0));
    store.record(failed_attempt(id(1), 2..4, 1));
    store.record(failed_attempt(id(1), 2..3, 2));
    store.record(completed(id(1), 3..4, 0));
    store.record(failed_tasks(id(1), 2..3, 3));
    store.record(completed(id(1), 4..5, 0));
    store.record(change(1, 30, ChangeKind::Ended { state: JobState::Failed, result: None, error: None }));
    store.record(change(1, minutes(2), ChangeKind::Retried));
    store.record(completed(id(1), 2..3, 0));
    store.record(change(2, minutes(2) + 1, ChangeKind::Canceled));
    let end = ChangeKind::Ended { state: JobState::Succeeded, result: None, error: None };
    store.commit(change(1, minutes(2) + 9, end)).await.expect("room");
}

pub async fn figures_count_what_has_happened_in_each_period(harness: &dyn Harness) {
    let store = harness.open();
    two_jobs(&store).await;
    let first = Counts {
        jobs_submitted: 2,
        jobs_started: 1,
        jobs_failed: 1,
        jobs_pending: 1,
        tasks_submitted: 10,
        tasks_started: 4 + 1,
        tasks_succeeded: 4,
        tasks_failed: 1,
        tasks_pending: 5,
        task_starts: 2 + 2 + 1 + 1 + 1 + 1,
        attempts: 6,
        attempts_failed: 3,
        waiting: durations(&[Duration::from_secs(7)]),
        running: durations(&[Duration::from_secs(23)]),
        computing: durations(&[BUSY; 3]),
        ..Counts::default()
    };
    let second = Counts {
        jobs_succeeded: 1,
        jobs_canceled: 1,
        jobs_retried: 1,
        tasks_started: 1,
        tasks_succeeded: 1,
        tasks_canceled: 5,
        tasks_retried: 1,
        task_starts: 1,
        attempts: 1,
        running: durations(&[Duration::from_secs(9)]),
        computing: durations(&[BUSY]),
        ..Counts::default()
    };
    let row = |start: &str, counts: &Counts| PeriodRow {
        start: start.parse().expect("a time"),
        kind: JobKind::TASKS,
        counts: counts.clone(),
    };
    // The task that fails for good does so at a second of its own minute.
    let failed_apart = every_period(&store, &all(Grain::Minute)).await;
    let mut sum = Counts::default();
    failed_apart.iter().for_each(|row| sum.add(&row.counts));
    let mut expected = first.clone();
    expected.add(&second);
    assert_eq!((sum.figures(), sum.durations()), (expected.figures(), expected.durations()));
    assert_eq!(failed_apart.last(), Some(&row("2023-11-14T22:25:00Z", &second)));
    let pending: Vec<_> = failed_apart.iter().map(|row| (row.counts.jobs_pending, row.counts.tasks_pending)).collect();
    assert_eq!(pending.last(), Some(&(0, 0)), "{pending:?}");
    (expected.jobs_pending, expected.tasks_pending) = (0, 0);
    assert_eq!(every_period(&store, &all(Grain::Hour)).await, [row("2023-11-14T22:00:00Z", &expected)]);
    assert_eq!(every_period(&store, &all(Grain::Day)).await, [row("2023-11-14T00:00:00Z", &expected)]);
    assert_eq!(every_period(&store, &all(Grain::Week)).await, [row("2023-11-13T00:00:00Z", &expected)]);
    assert_eq!(every_period(&store, &all(Grain::Month)).await, [row("2023-11-01T00:00:00Z", &expected)]);
    assert_counted(&store).await;
}

pub async fn what_was_not_counted_before_a_restart_is_counted_with_the_next_event(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 10)).await.expect("room");
    store.record(completed(id(1), 0..4, 1));
    store.commit(failed_attempt(id(1), 4..6, 1)).await.expect("room");
    let counted = |rows: Vec<PeriodRow>| rows.iter().map(|row| row.counts.attempts).sum::<u64>();
    assert_eq!(counted(every_period(&store, &all(Grain::Day)).await), 0);
    store.close().expect("all is committed");
    let store = harness.open();
    store.record(completed(id(1), 4..6, 1));
    store.commit(change(id(1), at(60), ChangeKind::Progress)).await.expect("room");
    let rows = every_period(&store, &all(Grain::Day)).await;
    assert_eq!((rows[0].counts.tasks_succeeded, rows[0].counts.tasks_started, rows[0].counts.tasks_pending), (6, 6, 4));
    assert_eq!(counted(rows), 3);
    let events = store.events(0, Some(id(1)), 10).await.expect("readable");
    let last = events.last().expect("the progress");
    assert_eq!(
        (last.kind, last.job_kind, last.counts.attempts),
        (EventKind::Progress, Some(JobKind::SUM_OF_PRIMES), 3)
    );
    assert_counted(&store).await;
}

pub async fn a_batch_that_is_sent_again_and_one_that_is_refused_count_once_and_not_at_all(harness: &dyn Harness) {
    let mut parts = harness.parts();
    let submission = |number| Entry::Submission(Arc::new(range_job(number, 10)));
    let batch = |parts: &Parts, id, entries| Batch { id, epoch: parts.epoch, entries };
    let first = batch(&parts, 1, vec![submission(1), submission(1), submission(2)]);
    for _ in 0..2 {
        parts.backend.apply(&first).expect("room");
    }
    let late = batch(&parts, 3, vec![submission(3)]);
    assert!(parts.backend.apply(&late).is_err());
    let second =
        vec![Entry::Change(completed(id(1), 0..50, 1)), Entry::Change(change(id(1), at(5), ChangeKind::Canceled))];
    parts.backend.apply(&batch(&parts, 2, second)).expect("room");
    let rows = parts.reads.periods(all(Grain::Day), None, 10).await.expect("readable");
    let counts = &rows[0].counts;
    assert_eq!((counts.jobs_submitted, counts.jobs_canceled, counts.jobs_pending, counts.attempts), (2, 1, 1, 0));
}

fn on(day: &str) -> Timestamp {
    format!("{day}T12:34:56Z").parse().expect("a time")
}

async fn submit_on(store: &Store, number: u128, day: &str, kind: JobKind) {
    let new = NewJob { submitted_at: on(day), kind, ..range_job(number, 1) };
    store.submit(new).await.expect("room");
}

pub async fn weeks_and_months_are_the_sums_of_their_days_page_by_page(harness: &dyn Harness) {
    let store = harness.open();
    let kinds = [JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES];
    // Sunday and Monday; the end of February, of the year, and a day between.
    let days = ["2026-02-28", "2026-03-01", "2026-03-02", "2026-12-31", "2027-01-01", "2027-01-03", "2027-01-04"];
    for (number, day) in days.iter().enumerate() {
        for (which, kind) in kinds.into_iter().enumerate() {
            for copy in 0..=which {
                submit_on(&store, (number * 10 + which * 3 + copy) as u128 + 1, day, kind).await;
            }
        }
    }
    let found = |rows: &[PeriodRow]| -> Vec<(String, JobKind, u64, i64)> {
        let figures = |row: &PeriodRow| {
            let day = row.start.to_string().chars().take(10).collect();
            (day, row.kind, row.counts.jobs_submitted, row.counts.jobs_pending)
        };
        rows.iter().map(figures).collect()
    };
    let expected = |periods: &[(&str, u64)]| -> Vec<(String, JobKind, u64, i64)> {
        let mut pending = 0;
        let mut rows = Vec::new();
        for &(day, days) in periods {
            pending += days;
            rows.push((day.to_owned(), JobKind::COUNT_PRIMES, 2 * days, 2 * pending as i64));
            rows.push((day.to_owned(), JobKind::SUM_OF_PRIMES, days, pending as i64));
        }
        rows
    };
    let weeks = every_period(&store, &all(Grain::Week)).await;
    assert_eq!(found(&weeks), expected(&[("2026-02-23", 2), ("2026-03-02", 1), ("2026-12-28", 3), ("2027-01-04", 1)]));
    let months = every_period(&store, &all(Grain::Month)).await;
    assert_eq!(found(&months), expected(&[("2026-02-01", 1), ("2026-03-01", 2), ("2026-12-01", 1), ("2027-01-01", 3)]));
    let query =
        Query { grain: Grain::Month, starts: on("2026-03-15")..on("2026-12-02"), kind: Some(JobKind::SUM_OF_PRIMES) };
    let some = every_period(&store, &query).await;
    assert_eq!(some, [months[3].clone(), months[5].clone()], "from the start of the first month to that of the last");
    let query = Query { grain: Grain::Day, starts: on("2026-03-02")..on("2026-03-02"), kind: None };
    assert_eq!(every_period(&store, &query).await.len(), 2);
    assert_counted(&store).await;
}

async fn run_named(store: &Store, number: u128, name: &str, starts: u64) {
    let mut new = range_job(number, starts);
    new.submitted_at = at(0);
    new.options.tags.insert("task".to_owned(), name.to_owned());
    store.submit(new).await.expect("room");
    store.record(completed(id(number), 0..starts, 1));
    store.record(change(id(number), at(4), ChangeKind::Progress));
}

pub async fn starts_are_counted_by_the_name_of_the_tasks_and_so_many_names_apart(harness: &dyn Harness) {
    let store = harness.open();
    run_named(&store, 1, "resize", 3).await;
    run_named(&store, 2, "resize", 4).await;
    let mut python = tasks_job(3, numbers(1));
    python.options.requires.labels.insert("python-task.predict".to_owned(), "1".to_owned());
    store.submit(python).await.expect("room");
    store.record(failed_attempt(id(3), 0..1, 1));
    store.record(completed(id(3), 0..1, 1));
    store.record(change(id(3), at(4), ChangeKind::Progress));
    let mut program = range_job(5, 1);
    (program.kind, program.params) = (JobKind::new("program"), raw(r#"{"program":"render-2","args":[]}"#));
    store.submit(program).await.expect("room");
    store.record(completed(id(5), 0..1, 1));
    store.record(change(id(5), at(4), ChangeKind::Progress));
    store.submit(tasks_job(4, numbers(2))).await.expect("room");
    store.record(completed(id(4), 0..2, 1));
    store.record(change(id(4), at(4), ChangeKind::Progress));
    store.flush().await.expect("room");
    let names = |rows: Vec<TaskRow>| rows.into_iter().map(|row| (row.kind, row.task, row.starts)).collect::<Vec<_>>();
    let expected = [
        (JobKind::new("program"), "render-2".to_owned(), 1),
        (JobKind::SUM_OF_PRIMES, "resize".to_owned(), 7),
        (JobKind::TASKS, "predict".to_owned(), 2),
        (JobKind::TASKS, "tasks".to_owned(), 2),
    ];
    assert_eq!(names(every_task(&store, &all(Grain::Hour)).await), expected);
    assert_eq!(names(every_task(&store, &all(Grain::Week)).await), expected);
    // A client may ask for the page after any name.
    let made_up = (Timestamp::MIN, JobKind::SLEEP, "no\0name".to_owned());
    let page = store.task_starts(all(Grain::Hour), Some(made_up), 10).await.expect("readable");
    assert_eq!(names(page), expected);

    for number in 0..MAX_TASK_NAMES + 5 {
        run_named(&store, 100 + number as u128, &format!("name-{number}"), 1).await;
    }
    store.flush().await.expect("room");
    let query = Query { kind: Some(JobKind::SUM_OF_PRIMES), ..all(Grain::Day) };
    let rows = every_task(&store, &query).await;
    assert_eq!(rows.len(), MAX_TASK_NAMES + 1);
    assert_eq!(rows.iter().find(|row| row.task == OTHER_TASKS).map(|row| row.starts), Some(6));
    assert_counted(&store).await;
}

pub async fn minutes_and_hours_go_when_their_time_is_over_and_days_stay(harness: &dyn Harness) {
    let store = harness.open();
    let now = Timestamp::now();
    let ago = |hours| now.checked_sub(Duration::from_hours(hours)).expect("a time");
    for (number, hours) in [(1, 40 * 24), (2, 30), (3, 2), (4, 0)] {
        store.submit(NewJob { submitted_at: ago(hours), ..range_job(number, 1) }).await.expect("room");
        store.record(Change {
            job: id(number),
            at: ago(hours),
            kind: ChangeKind::Completed { tasks: 0..1, value: 0, busy: BUSY, outcome: None },
        });
        store.commit(change(id(number), ago(hours), ChangeKind::Progress)).await.expect("room");
    }
    let count = async |grain| every_task(&store, &all(grain)).await.iter().map(|row| row.starts).sum::<u64>();
    assert_eq!((count(Grain::Minute).await, count(Grain::Hour).await, count(Grain::Day).await), (4, 4, 4));
    let deleted = store.prune_statistics(StatisticsRetention::default()).await.expect("room");
    // Of each forgotten row also what it started; buckets are a store's own matter.
    assert!(deleted >= 2 * (2 + 1), "{deleted}");
    assert_eq!((count(Grain::Minute).await, count(Grain::Hour).await, count(Grain::Day).await), (2, 3, 4));
    assert_eq!(store.prune_statistics(StatisticsRetention::default()).await, Ok(0));
    let days = every_period(&store, &all(Grain::Day)).await;
    assert_eq!(days.iter().map(|row| row.counts.computing.count()).sum::<u64>(), 4);
    assert_eq!(days.last().map(|row| row.counts.jobs_pending), Some(4));
    let hours = every_period(&store, &all(Grain::Hour)).await;
    assert_eq!(hours.iter().map(|row| row.counts.computing.count()).sum::<u64>(), 3);
    // The second job's minute is forgotten: its hour tells what was open from its end on.
    let query = Query { starts: ago(35)..now, ..all(Grain::Minute) };
    let filled = store.filled_periods(query, None, 100).await.expect("readable");
    assert_eq!(filled.first().map(|row| row.start), Some(Grain::Hour.end_of(ago(30))));
    assert!(filled.len() == 100 && filled.iter().all(|row| row.counts.jobs_pending == 2), "{filled:?}");
}

pub async fn periods_without_events_are_filled_while_something_is_open(harness: &dyn Harness) {
    let store = harness.open();
    let submitted_at = |number| at(minutes(number));
    let submit =
        |number: u128, minute, kind| NewJob { submitted_at: submitted_at(minute), kind, ..range_job(number, 10) };
    store.submit(submit(1, 10, JobKind::SUM_OF_PRIMES)).await.expect("room");
    store.submit(submit(2, 11, JobKind::COUNT_PRIMES)).await.expect("room");
    store.commit(change(id(1), submitted_at(14), ChangeKind::Canceled)).await.expect("room");
    let start = |minute| Grain::Minute.start_of(submitted_at(minute));
    let (count, sum) = (JobKind::COUNT_PRIMES, JobKind::SUM_OF_PRIMES);
    let of = async |query: Query, size: usize| {
        let mut rows: Vec<PeriodRow> = Vec::new();
        loop {
            let after = rows.last().map(|row| (row.start, row.kind));
            let page = store.filled_periods(query.clone(), after, size).await.expect("readable");
            if page.is_empty() {
                let figures =
                    |row: PeriodRow| (row.start, row.kind, row.counts.jobs_pending, row.counts.jobs_submitted);
                return rows.into_iter().map(figures).collect::<Vec<_>>();
            }
            assert!(page.len() <= size);
            rows.extend(page);
        }
    };
    let expected = [
        (start(10), sum, 1, 1),
        (start(11), count, 1, 1),
        (start(11), sum, 1, 0),
        (start(12), count, 1, 0),
        (start(12), sum, 1, 0),
        (start(13), count, 1, 0),
        (start(13), sum, 1, 0),
        (start(14), count, 1, 0),
        (start(14), sum, 0, 0),
        (start(15), count, 1, 0),
        (start(16), count, 1, 0),
    ];
    let query = |from: i64, kind| Query { grain: Grain::Minute, starts: submitted_at(from)..start(17), kind };
    for size in [1, 2, 3, 1000] {
        assert_eq!(of(query(8, None), size).await, expected, "pages of {size}");
        assert_eq!(of(query(13, None), size).await, expected[5..], "pages of {size}, from later on");
    }
    assert_eq!(of(query(12, Some(sum)), 1000).await, [expected[4], expected[6], expected[8]]);
    // A week later only the row of the day, which began before, is as near.
    let later = at(8 * 24 * 3600);
    let query = Query { grain: Grain::Hour, starts: later..at(8 * 24 * 3600 + 3600), kind: None };
    let rows = of(query, 1000).await;
    assert_eq!(rows.first(), Some(&(Grain::Hour.start_of(later), count, 1, 0)));
    let query = Query { grain: Grain::Week, starts: later..at(9 * 24 * 3600), kind: None };
    assert_eq!(of(query, 1000).await.last().map(|row| (row.1, row.2)), Some((count, 1)));
}
