use jiff::Timestamp;
use model::{AttemptId, BootId, EventKind, Grain, JobKind, JobState, WorkerId};
use uuid::Uuid;

use super::helpers::*;
use super::{Harness, programs};
use crate::statistics::Query;
use crate::{Drain, DrainedWorker, JobFilter, JobRecord, ReadError, Retention, Store, TaskLog, WriteError};

/// Damage to the row of a job, and whether the row's own columns show it; otherwise its runs of tasks do.
const DAMAGES: [(&str, bool); 13] = [
    ("UPDATE jobs SET options = 'no JSON'", true),
    (r#"UPDATE jobs SET options = '{"v": 99}'"#, true),
    ("UPDATE jobs SET params = '{'", true),
    ("UPDATE jobs SET kind = 'No Kind'", true),
    ("UPDATE jobs SET value = 'many'", true),
    ("UPDATE jobs SET tasks = 0", true),
    ("UPDATE jobs SET tasks_done = 11", true),
    ("UPDATE jobs SET attempts = -1", true),
    ("UPDATE jobs SET verified = '['", true),
    ("UPDATE spans SET beyond = 99", false),
    ("UPDATE spans SET beyond = first", false),
    ("UPDATE spans SET what = 7", false),
    ("UPDATE spans SET failures = -1", false),
];

/// The row of a job that [`range_job`] has made.
fn of_job(number: i64) -> String {
    format!("submitted_at = {}", at(number).as_nanosecond())
}

async fn listed(store: &Store, limit: usize) -> Vec<u128> {
    let jobs = store.jobs(JobFilter::default(), None, limit).await.expect("the others are there");
    jobs.iter().map(|job| job.id.0.as_u128()).collect()
}

/// Three jobs, of which the second one has a run of done tasks and one of those to be tried again.
async fn three_jobs(harness: &dyn Harness) {
    let store = harness.open();
    for number in 1..4 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    store.commit(completed(id(2), 0..3, 5)).await.expect("room");
    store.commit(failed_attempt(id(2), 4..5, 1)).await.expect("room");
    store.close().expect("all is committed");
}

/// Damages a row of the second job. False where the store has no rows.
fn damage_second(harness: &dyn Harness, damage: &str, is_of_record: bool) -> bool {
    let rows = if is_of_record { of_job(2) } else { format!("job = (SELECT key FROM jobs WHERE {})", of_job(2)) };
    harness.damage(&format!("{damage} WHERE {rows}"))
}

/// A job that the database finds damaged while the store is open stops, and no other one does. `damage` damages the second
/// of three jobs. Returns its error.
pub async fn a_job_that_is_damaged_meanwhile_stops_alone(store: &Store, damage: impl FnOnce()) -> WriteError {
    for number in 1..4 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    damage();
    for task in 0..3 {
        for number in 1..4 {
            store.record(completed(id(number), task..task + 1, 1));
        }
    }
    store.flush().await.expect("all others are written");
    assert_eq!(store.is_failing(), None);
    let unwritable = store.unwritable().borrow().clone();
    assert!(unwritable.keys().eq([&id(2)]), "{unwritable:?}");
    for number in [1, 3] {
        assert_eq!(record_of(store, id(number)).await.tasks_done, 3);
    }
    store.commit(ended(id(1), JobState::Failed, None)).await.expect("room");
    store.submit(range_job(4, 10)).await.expect("room");
    unwritable[&id(2)].clone()
}

pub async fn a_job_that_cannot_be_read_is_left_alone_and_all_others_go_on(harness: &dyn Harness) {
    for (damage, is_of_record) in DAMAGES {
        let harness = harness.crashed();
        three_jobs(&*harness).await;
        if !damage_second(&*harness, damage, is_of_record) {
            return;
        }

        let store = harness.open();
        let open: Vec<_> = store.unfinished().await.expect(damage).iter().map(|job| job.record.id).collect();
        assert_eq!(open, [id(1), id(3)], "{damage}");
        assert_eq!(store.unreadable().jobs(), 1, "{damage}");
        assert!(store.unreadable().why(id(2)).is_some_and(|why| !why.is_empty()), "{damage}");
        assert!(matches!(store.unfinished_job(id(2)).await, Ok(None)), "{damage}");
        let read = store.job(id(2)).await;
        if is_of_record {
            assert!(matches!(&read, Err(ReadError::Unreadable { job, .. }) if *job == id(2)), "{damage}: {read:?}");
            assert!(matches!(store.job_if_readable(id(2)).await, Ok(None)), "{damage}");
            assert_eq!((listed(&store, 2).await, listed(&store, 9).await), (vec![3, 1], vec![3, 1]), "{damage}");
        } else {
            assert!(matches!(&read, Ok(Some(JobRecord { tasks_done: 3, .. }))), "{damage}: {read:?}");
            assert_eq!(listed(&store, 9).await, [3, 2, 1], "{damage}");
        }
        // Of one batch, what is of other jobs is written.
        store.record(completed(id(2), 5..6, 1));
        store.record(completed(id(3), 5..6, 1));
        store.flush().await.expect(damage);
        assert_eq!(record_of(&store, id(3)).await.tasks_done, 1, "{damage}");
        store.submit(range_job(4, 10)).await.expect(damage);
    }
}

pub async fn changes_of_a_job_that_cannot_be_read_are_refused(harness: &dyn Harness) {
    three_jobs(harness).await;
    if !harness.damage(&format!("UPDATE jobs SET value = 'many' WHERE {}", of_job(2))) {
        return;
    }
    let store = harness.open();
    let refused = store.commit(completed(id(2), 5..6, 1)).await;
    assert!(matches!(refused, Err(WriteError::Corrupt(_))), "{refused:?}");
    assert!(store.unwritable().borrow().is_empty());
    // Nobody is told of these: the job goes no further.
    let last = store.record(completed(id(2), 5..6, 1));
    store.flush().await.expect("nothing waits");
    assert!(store.unwritable().borrow().keys().eq([&id(2)]));
    assert_eq!((store.is_failing(), *store.durable().borrow()), (None, last));
}

pub async fn a_job_that_cannot_be_read_is_canceled_as_it_is_and_goes_with_the_old_ones(harness: &dyn Harness) {
    for (damage, is_of_record) in DAMAGES {
        let harness = harness.crashed();
        three_jobs(&*harness).await;
        if !damage_second(&*harness, damage, is_of_record) {
            return;
        }
        let store = harness.open();
        store.unfinished().await.expect("readable");
        let cancel = || store.cancel_unread(id(2), at(9), "why".to_owned());
        assert_eq!((cancel().await, cancel().await), (Ok(true), Ok(false)), "{damage}");
        let last = store.last_events(id(2), 1).await.expect("readable").remove(0);
        assert_eq!((last.kind, last.at, last.error.as_deref()), (EventKind::Canceled, at(9), Some("why")), "{damage}");
        // Nobody waits for it, also when it is asked for.
        assert_eq!(store.job(id(2)).await.is_err(), is_of_record, "{damage}");
        assert_eq!(store.unreadable().jobs(), 0, "{damage}");
        // Late changes have no effect, and all other jobs go on.
        store.record(completed(id(2), 5..6, 1));
        store.commit(completed(id(3), 5..6, 1)).await.expect(damage);
        store.close().expect("all is committed");
        let store = harness.open_with(Retention { max_age: std::time::Duration::ZERO, max_bytes: u64::MAX });
        let open: Vec<_> = store.unfinished().await.expect(damage).iter().map(|job| job.record.id).collect();
        assert_eq!((open, store.unreadable().jobs()), (vec![id(1), id(3)], 0), "{damage}");
        assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1), "{damage}");
        assert!(matches!(store.job(id(2)).await, Ok(None)), "{damage}");
    }
}

pub async fn a_job_that_is_canceled_unread_stays_canceled_though_the_writer_knows_it(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 10)).await.expect("room");
    store.commit(completed(id(1), 0..1, 1)).await.expect("room");
    if !store.cancel_unread(id(1), at(9), "why".to_owned()).await.expect("room") {
        return;
    }
    // As of an attempt that ends before the engine hears of the cancellation.
    store.commit(completed(id(1), 1..2, 1)).await.expect("no effect");
    let job = record_of(&store, id(1)).await;
    assert_eq!((job.state, job.finished_at, job.tasks_done), (JobState::Canceled, Some(at(9)), 1));
}

pub async fn the_figures_are_right_after_a_job_was_canceled_unread(harness: &dyn Harness) {
    three_jobs(harness).await;
    if !harness.damage(&format!("UPDATE jobs SET options = '' WHERE {}", of_job(2))) {
        return;
    }
    let store = harness.open();
    assert_eq!(store.cancel_unread(id(2), at(9), "why".to_owned()).await, Ok(true));
    let days = Query { grain: Grain::Day, starts: Timestamp::MIN..Timestamp::MAX, kind: None };
    let counts = store.periods(days, None, 9).await.expect("readable").pop().expect("the day").counts;
    assert_eq!((counts.jobs_pending, counts.tasks_pending), (2, 20));
    assert_eq!((counts.jobs_canceled, counts.tasks_canceled, counts.tasks_succeeded), (1, 7, 3));
}

pub async fn pages_of_jobs_go_on_behind_any_number_that_cannot_be_read(harness: &dyn Harness) {
    let store = harness.open();
    for number in 1..=500 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    store.close().expect("all is committed");
    let (first, last) = (at(3).as_nanosecond(), at(480).as_nanosecond());
    if !harness.damage(&format!("UPDATE jobs SET options = '' WHERE submitted_at BETWEEN {first} AND {last}")) {
        return;
    }
    let store = harness.open();
    let (mut before, mut found) = (None, Vec::new());
    loop {
        let page = store.jobs(JobFilter::default(), before, 15).await.expect("the others are there");
        let Some(last) = page.last() else { break };
        before = Some(last.into());
        found.extend(page.iter().map(|job| job.id.0.as_u128()));
    }
    assert_eq!(found, (481..=500).rev().chain([2, 1]).collect::<Vec<_>>());
    let kind = JobFilter { kind: Some(JobKind::SUM_OF_PRIMES), ..JobFilter::default() };
    let page = store.jobs(kind, None, 22).await.expect("the others are there");
    assert_eq!(page.len(), 22);
}

pub async fn events_go_on_behind_those_that_cannot_be_read(harness: &dyn Harness) {
    let store = harness.open();
    for number in 1..=6 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    store.close().expect("all is committed");
    if !harness.damage("UPDATE events SET kind = 'of a later release' WHERE seq IN (2, 3, 6)") {
        return;
    }
    assert!(harness.damage("UPDATE events SET counts = '[', source = '[' WHERE seq = 4"));
    assert!(harness.damage(&format!("UPDATE jobs SET kind = 'No Kind' WHERE {}", of_job(5))));
    let store = harness.open();
    let seqs = async |after, limit| {
        let events = store.events(after, None, limit).await.expect("the others are there");
        events.iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 10).await, [1, 4, 5]);
    // A reader goes on from the last one that it gets, and takes a page that is not full for the last.
    assert_eq!((seqs(1, 1).await, seqs(0, 2).await), (vec![4], vec![1, 4]));
    assert_eq!(seqs(5, 10).await, [0; 0]);
    let fourth = store.events(3, None, 1).await.expect("readable").remove(0);
    assert_eq!((fourth.kind, fourth.counts.jobs_submitted, fourth.source), (EventKind::Submitted, 0, None));
    assert_eq!(store.last_events(id(2), 5).await, Ok(Vec::new()));
    let of_fifth = store.events(0, Some(id(5)), 5).await.expect("readable");
    assert_eq!(of_fifth.iter().map(|event| (event.seq, event.job_kind)).collect::<Vec<_>>(), [(5, None)]);
}

pub async fn a_damaged_block_of_payloads_is_told_from_an_outage(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(tasks_job(1, numbers(3))).await.expect("room");
    store.submit(tasks_job(2, numbers(3))).await.expect("room");
    store.close().expect("all is committed");
    let of_first = format!("job = (SELECT key FROM jobs WHERE {})", of_job(1));
    if !harness.damage(&format!("UPDATE payloads SET list = '[1, 2' WHERE {of_first}")) {
        return;
    }
    let store = harness.open();
    let damaged = store.payloads(id(1), 0..3).await;
    assert!(matches!(damaged, Err(ReadError::Corrupt { .. })), "{damaged:?}");
    assert_eq!(store.payloads(id(2), 0..3).await.map(|payloads| payloads.len()), Ok(3));
}

pub async fn rows_beside_jobs_that_cannot_be_read_are_left_out(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 10)).await.expect("room");
    store.submit(tasks_job(2, numbers(3))).await.expect("room");
    store.commit(compared(id(1), 0..4, 2, true)).await.expect("room");
    for name in ["one", "two"] {
        let worker = WorkerId::try_from(name.to_owned()).expect("a name");
        let drained = DrainedWorker { worker, boot: Some(BootId(Uuid::from_u128(1))) };
        store.drain(Drain { drained, at: at(1) }).await.expect("room");
    }
    for program in [&b"\0asm1"[..], b"\0asm22", b"\0asm333"] {
        assert_eq!(programs::put(&store, program).await, Ok(true));
    }
    for task in 0..2 {
        let attempt = AttemptId(Uuid::from_u128(1));
        let (worker, text) = ("one".to_owned(), "said".to_owned());
        let log = TaskLog { job: id(2), task, attempt, worker, ended_at: at(1), omitted_bytes: 0, text };
        store.put_log(log).await.expect("room");
    }
    store.close().expect("all is committed");
    for (number, damage) in [
        "UPDATE drains SET worker = '' WHERE worker = 'one'",
        "UPDATE programs SET kind = 'of a later release' WHERE bytes = 6",
        "UPDATE logs SET omitted = -1 WHERE task = 0",
        "UPDATE statistics SET attempts = -1 WHERE kind = 'sum-of-primes'",
        "UPDATE jobs SET verified = '[' WHERE verified IS NOT NULL",
    ]
    .into_iter()
    .enumerate()
    {
        let is_damaged = harness.damage(damage);
        if number == 0 && !is_damaged {
            return;
        }
        assert!(is_damaged, "{damage}");
    }
    let store = harness.open();
    let drains = store.drains().await.expect("the other is there");
    assert_eq!(drains.iter().map(|drain| drain.drained.worker.as_str()).collect::<Vec<_>>(), ["two"]);
    let programs = store.programs(None, 2).await.expect("the others are there");
    let mut bytes: Vec<_> = programs.iter().map(|program| program.bytes).collect();
    bytes.sort_unstable();
    assert_eq!(bytes, [5, 7]);
    let logs = store.logs(id(2), 0..3, 1).await.expect("the other is there");
    assert_eq!(logs.iter().map(|log| log.task).collect::<Vec<_>>(), [1]);
    let minutes = Query { grain: Grain::Minute, starts: Timestamp::MIN..Timestamp::MAX, kind: None };
    let periods = store.periods(minutes, None, 1).await.expect("the other is there");
    assert_eq!(periods.iter().map(|row| row.kind).collect::<Vec<_>>(), [JobKind::TASKS]);
    assert_eq!(store.set_aside_workers().await, Ok(Vec::new()));
}

pub async fn retention_goes_on_over_a_job_whose_length_cannot_be(harness: &dyn Harness) {
    let store = harness.open();
    for number in 1..3 {
        store.submit(range_job(number, 10)).await.expect("room");
        store.commit(ended(id(number), JobState::Failed, None)).await.expect("room");
    }
    // The newest event tells what time it is.
    let submitted_at = Timestamp::now();
    store.submit(crate::NewJob { submitted_at, ..range_job(3, 10) }).await.expect("room");
    store.close().expect("all is committed");
    if !harness.damage(&format!("UPDATE jobs SET bytes = -1 WHERE {}", of_job(1))) {
        return;
    }
    let store = harness.open_with(Retention { max_age: std::time::Duration::from_secs(60), max_bytes: u64::MAX });
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(2));
}
