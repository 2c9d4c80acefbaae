//! A data directory that the first release has made.

use std::fs;
use std::path::Path;

use model::{EventKind, Grain, JobKind, JobState};
use rusqlite::Connection;
use store::statistics::Query;
use store::{AttemptEnd, ChangeKind, JobFilter, Retention, Verified};
use store_sqlite::StoreSettings;

use crate::helpers::*;

/// The released schema. Never changed.
const RELEASED: &str = include_str!("../../migrations/0001_jobs.sql");

/// Rows as the first release has written them.
const ROWS: &str = r#"
INSERT INTO jobs VALUES (1, x'00000000000000000000000000000001', 'sum-of-primes', '{"a":10,"b":9999999}',
    '{"a": 10, "b": 9999999}',
    '{"priority":9,"tags":{"user":"ann"},"affinity":{"labels":{"zone":"a"},"key":"k"},"requires":{"labels":{"gpu":"1"},"cpus":3,"memory_bytes":4096},"max_attempts":2,"timeout":{"task_seconds":4,"job_seconds":5},"output":"sums","chunk_size":2500000}',
    zeroblob(32), 'the key', 'sums', 'running', 100, 15, 5, '170141183460469231731687303715884105728', 400,
    1700000001000000000, 1700000002000000000, NULL, NULL);
INSERT INTO tags VALUES (1, 'user', 'ann', 1700000001000000000, x'00000000000000000000000000000001');
INSERT INTO spans VALUES (1, 0, 0, 10, 0), (1, 0, 20, 25, 0), (1, 1, 10, 15, 0), (1, 2, 30, 40, 3);
INSERT INTO jobs VALUES (2, x'00000000000000000000000000000002', 'tasks', '3', '{"count":3}',
    '{"priority":5,"tags":{},"affinity":{},"requires":{},"max_attempts":4,"timeout":{},"output":null,"chunk_size":null}',
    zeroblob(32), NULL, NULL, 'queued', 3, 2, 0, '0', 500, 1700000002000000000, NULL, NULL, NULL);
INSERT INTO payloads VALUES (2, 0, 3, '[1,{"two": 2},"three"]');
INSERT INTO spans VALUES (2, 0, 0, 2, 0), (2, 2, 2, 3, 1);
INSERT INTO attempts VALUES (2, 0, 2, x'0000000000000000000000000000000a', 'w-1', 1700000003000000000,
    1700000004000000000, 1700000005000000000, '[10,20]', NULL, NULL, NULL, NULL);
INSERT INTO attempts VALUES (2, 2, 3, NULL, 'w-2', NULL, NULL, NULL, NULL, 1700000006000000000, 'it broke', 1, 0);
INSERT INTO jobs VALUES (3, x'00000000000000000000000000000003', 'sleep', '{"seconds":0.5,"fail_rate":0.0,"tasks":1}',
    '{"seconds":0.5,"fail_rate":0.0,"tasks":1}',
    '{"priority":1,"tags":{},"affinity":{},"requires":{},"max_attempts":4,"timeout":{},"output":null,"chunk_size":2500000}',
    zeroblob(32), NULL, NULL, 'succeeded', 1, 1, 0, '0', 70000, 1700000003000000000, 1700000004000000000,
    1700000009000000000, NULL);
INSERT INTO spans VALUES (3, 0, 0, 1, 0);
INSERT INTO results VALUES (3, NULL, '00000000-0000-0000-0000-000000000003.json', 20,
    x'a6cf141c4fd7dc6ddb92749b0db7b61c5c68b23e10474276b4c9001a6d0bc176');
INSERT INTO jobs VALUES (4, x'00000000000000000000000000000004', 'count-primes', '{"a":0,"b":18446744073709551615}',
    '{"a":0,"b":18446744073709551615}', '{"priority":5,"max_attempts":4}', zeroblob(32), NULL, NULL, 'canceled', 7, 0, 0,
    '0', 300, 1700000004000000000, NULL, 1700000005000000000, NULL);
INSERT INTO events VALUES (1, 1, 'submitted', 1700000001000000000, 0, 100, NULL);
INSERT INTO events VALUES (2, 1, 'started', 1700000002000000000, 0, 100, NULL);
INSERT INTO events VALUES (3, 1, 'task-failed', 1700000003000000000, 15, 100, 'it broke');
INSERT INTO swept VALUES (9, x'00000000000000000000000000000009');
INSERT INTO results VALUES (9, NULL, '00000000-0000-0000-0000-000000000009.json', 5, zeroblob(32));
INSERT INTO swept VALUES (8, x'00000000000000000000000000000003');
INSERT INTO results VALUES (8, NULL, '00000000-0000-0000-0000-000000000003.json', 5, zeroblob(32));
"#;

const RESULT: &str = r#"{"tasks":[null]}    "#;

fn released() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("room");
    let db = Connection::open(directory.path().join("divvy.db")).expect("room");
    db.pragma_update(None, "journal_mode", "WAL").expect("room");
    db.pragma_update(None, "application_id", 0x6476_7679).expect("room");
    db.execute_batch(RELEASED).expect("the released schema");
    db.pragma_update(None, "user_version", 1).expect("room");
    db.execute_batch(ROWS).expect("rows of that schema");
    db.close().expect("closed");
    let results = directory.path().join("results");
    fs::create_dir(&results).expect("room");
    fs::write(results.join(format!("{}.json", id(3))), RESULT).expect("room");
    fs::write(results.join(format!("{}.json", id(9))), "gone").expect("room");
    directory
}

fn pragma(directory: &Path, name: &str) -> i64 {
    let db = Connection::open(directory.join("divvy.db")).expect("readable");
    db.pragma_query_value(None, name, |row| row.get(0)).expect("a number")
}

#[tokio::test]
async fn jobs_of_the_first_release_are_read_and_go_on() {
    let directory = released();
    let store = open(directory.path());
    let jobs = store.unfinished().await.expect("readable");
    let [sum, tasks] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!((sum.record.id, sum.record.kind, sum.record.state), (id(1), JobKind::SUM_OF_PRIMES, JobState::Running));
    assert_eq!((sum.record.params.get(), sum.record.value), (r#"{"a": 10, "b": 9999999}"#, 1 << 127));
    let options = &sum.record.options;
    assert_eq!((options.priority.get(), options.max_attempts.get(), options.output.as_deref()), (9, 2, Some("sums")));
    assert_eq!((options.affinity.key.as_deref(), options.requires.cpus), (Some("k"), Some(3)));
    assert_eq!((options.tags["user"].as_str(), options.requires.labels["gpu"].as_str()), ("ann", "1"));
    assert_eq!(options.timeout.job_seconds.map(std::num::NonZeroU32::get), Some(5));
    assert_eq!(options.chunk_size.map(std::num::NonZeroU64::get), Some(2_500_000));
    assert_eq!(
        (sum.done.clone(), sum.failed.clone()),
        (vec![0..15, 20..25], vec![std::ops::Range { start: 10, end: 15 }])
    );
    assert_eq!((sum.retries.clone(), sum.record.retried_at), (vec![(30..40, 3)], None));
    assert_eq!((tasks.record.kind, tasks.record.tasks), (JobKind::TASKS, 3));
    assert_eq!((tasks.record.attempts, sum.record.attempts), (2, 0));

    let tag = ("user".to_owned(), Some("ann".to_owned()));
    let filter = JobFilter { tags: vec![tag], ..JobFilter::default() };
    assert_eq!(store.jobs(filter, None, 9).await.expect("readable").len(), 1);
    let events = store.events(0, Some(id(1)), 9).await.expect("readable");
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Submitted, EventKind::Started, EventKind::TaskFailed]);
    let payloads = store.payloads(id(2), 1..3).await.expect("there");
    assert_eq!(payloads.iter().map(|payload| payload.get()).collect::<Vec<_>>(), [r#"{"two": 2}"#, r#""three""#]);
    let attempts = store.outcomes(id(2), 0, 3).await.expect("readable");
    assert!(matches!(attempts[1].end, AttemptEnd::Failed { failures: 1, omitted: 0, .. }), "{attempts:?}");

    store.record(answered(id(2), 2..3, vec![raw("30")]));
    let result = store.compose_result(id(2)).await.expect("room");
    store.commit(ended_with(id(2), JobState::Succeeded, result, at(20))).await.expect("room");
    assert_eq!(store.result(id(2)).await.expect("readable").expect("there").json, r#"{"tasks":[10,20,30]}"#);
    store.commit(completed(id(1), 15..20, 5)).await.expect("room");
    assert_eq!(record_of(&store, id(1)).await.verified, Verified::default());
    store.commit(compared(id(1), 20..25, 2, true)).await.expect("room");
    store.close().expect("all is committed");
    let found = only_unfinished(&open(directory.path())).await;
    assert!(found.done.iter().cloned().eq(std::iter::once(0..25)), "{:?}", found.done);
    assert_eq!(found.record.value, (1 << 127) + 5);
    assert_eq!((found.record.verified.compared, found.record.verified.mismatches), (1, 1));
}

#[tokio::test]
async fn results_of_the_first_release_are_read_and_go_with_their_jobs() {
    let directory = released();
    let results = || {
        let files = fs::read_dir(directory.path().join("results")).expect("there");
        files.map(|file| file.expect("readable").file_name().into_string().expect("text")).collect::<Vec<_>>()
    };
    let store = open(directory.path());
    assert_eq!(store.result(id(3)).await.expect("readable").expect("there").json, RESULT);
    store.prune().await.expect("room");
    assert_eq!(results(), [format!("{}.json", id(3))], "the result of a job that is gone is gone, and no other");
    store.close().expect("all is committed");
    let retention = Retention { max_age: std::time::Duration::ZERO, max_bytes: u64::MAX };
    let store = store_sqlite::open(StoreSettings { retention, ..settings(directory.path()) }).expect("fine");
    // The newest event is years old: a clock that is so far ahead is believed after an hour.
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(0));
    assert_eq!(prune_in_an_hour(&store).await.map(|pruned| pruned.jobs), Ok(2));
    assert!(results().is_empty());
}

#[test]
fn a_database_of_the_first_release_is_brought_up_to_date_once_and_gives_pages_back_from_then_on() {
    let directory = released();
    assert_eq!((pragma(directory.path(), "auto_vacuum"), pragma(directory.path(), "user_version")), (0, 1));
    open(directory.path()).close().expect("all is committed");
    assert_eq!((pragma(directory.path(), "auto_vacuum"), pragma(directory.path(), "user_version")), (2, 8));
    let store = open(directory.path());
    assert_eq!(store.epoch(), store::Epoch(2));
    assert_eq!(*store.latest_event().borrow(), 3);
}

#[tokio::test]
async fn open_jobs_of_the_first_release_are_counted_with_their_next_event() {
    let directory = released();
    let store = open(directory.path());
    let days = Query { grain: Grain::Day, starts: jiff::Timestamp::MIN..jiff::Timestamp::MAX, kind: None };
    assert!(store.periods(days.clone(), None, 9).await.expect("readable").is_empty());
    let events = store.events(0, None, 9).await.expect("readable");
    assert!(events.iter().all(|event| event.counts.is_empty() && event.job_kind == Some(JobKind::SUM_OF_PRIMES)));
    store.commit(change(id(1), at(90_000), ChangeKind::Progress)).await.expect("room");
    store.commit(change(id(2), at(90_000), ChangeKind::Canceled)).await.expect("room");
    // A job that was over before the migration was never open in these figures.
    store.commit(change(id(4), at(90_000), ChangeKind::Retried)).await.expect("room");
    let rows = store.periods(days, None, 9).await.expect("readable");
    let [counted, sum, tasks] = rows.as_slice() else { panic!("{rows:?}") };
    let sums = &sum.counts;
    assert_eq!((sums.jobs_submitted, sums.jobs_started, sums.jobs_pending), (1, 1, 1));
    assert_eq!((sums.tasks_submitted, sums.tasks_started), (100, 30));
    assert_eq!((sums.tasks_succeeded, sums.tasks_failed, sums.tasks_pending), (15, 5, 80));
    assert_eq!((tasks.counts.jobs_submitted, tasks.counts.jobs_canceled, tasks.counts.jobs_pending), (1, 1, 0));
    assert_eq!((tasks.counts.tasks_started, tasks.counts.tasks_canceled, tasks.counts.tasks_pending), (3, 1, 0));
    assert_eq!((counted.counts.jobs_submitted, counted.counts.jobs_retried, counted.counts.jobs_pending), (0, 1, 1));
    assert_eq!((counted.counts.tasks_retried, counted.counts.tasks_pending), (7, 7));
}
