//! Tests of the file after retention.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use model::{JobState, Labels};
use store::{ChangeKind, Retention, Store};
use store_sqlite::StoreSettings;

use crate::helpers::*;

fn open_with(directory: &Path, max_age: Duration) -> Store {
    let retention = Retention { max_age, max_bytes: u64::MAX };
    store_sqlite::open(StoreSettings { retention, ..settings(directory) }).expect("fine")
}

fn count(directory: &Path, table: &str) -> i64 {
    let db = rusqlite::Connection::open(directory.join("divvy.db")).expect("readable");
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("there")
}

#[tokio::test]
async fn no_row_and_no_file_of_a_forgotten_job_is_left() {
    let directory = tempfile::tempdir().expect("room");
    let store = open_with(directory.path(), Duration::ZERO);
    store.submit(range_job(1, 10)).await.expect("room");
    let job = id(2);
    store.submit(tasks_job(2, numbers(5000))).await.expect("room");
    for task in 0..5000 {
        store.record(answered(job, task..task + 1, vec![raw("\"an answer of some length\"")]));
    }
    let result = store.compose_result(job).await.expect("room");
    store.commit(ended_with(job, JobState::Succeeded, result, at(1))).await.expect("room");
    let results = directory.path().join("results");
    assert_eq!(fs::read_dir(&results).expect("there").count(), 1);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(fs::read_dir(&results).expect("there").count(), 0);
    store.close().expect("all is committed");
    let tables = ["attempts", "payloads", "spans", "results", "tags", "swept", "dropped_objects"];
    for table in tables {
        assert_eq!(count(directory.path(), table), 0, "{table}");
    }
    assert_eq!((count(directory.path(), "jobs"), count(directory.path(), "events")), (1, 1));
}

#[tokio::test]
async fn the_file_shrinks_after_jobs_are_forgotten() {
    let directory = tempfile::tempdir().expect("room");
    let store = open_with(directory.path(), Duration::ZERO);
    let text = raw(&format!("\"{}\"", "x".repeat(1000)));
    store.submit(tasks_job(1, vec![text; 30_000])).await.expect("room");
    store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
    let bytes = || fs::metadata(directory.path().join("divvy.db")).expect("there").len();
    let since = Instant::now();
    let wait = |enough: &dyn Fn() -> bool| {
        while !enough() {
            assert!(since.elapsed() < Duration::from_secs(180), "it has {} bytes", bytes());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(&|| bytes() > 30_000_000);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    wait(&|| bytes() < 3_000_000);
    store.submit(range_job(2, 10)).await.expect("room");
    assert_eq!(store.unfinished().await.map(|jobs| jobs.len()), Ok(1));
}

/// Whether the kept sum of the bytes of all jobs that are over is the sum over their rows, and the kept sum.
fn finished(directory: &Path) -> (bool, i64) {
    let db = rusqlite::Connection::open(directory.join("divvy.db")).expect("readable");
    let sql =
        "SELECT bytes = (SELECT coalesce(sum(bytes), 0) FROM jobs WHERE finished_at IS NOT NULL), bytes FROM finished";
    db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("there")
}

#[tokio::test]
async fn bytes_of_jobs_that_are_over_are_summed_up_as_they_change() {
    let directory = tempfile::tempdir().expect("room");
    let store = open_with(directory.path(), Duration::MAX);
    for number in 1..=4 {
        store.submit(tasks_job(number, numbers(50))).await.expect("room");
    }
    assert_eq!(finished(directory.path()), (true, 0));
    for number in 1..=2 {
        store.record(answered(id(number), 0..3, vec![raw("1"), raw("2"), raw("3")]));
        store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
    }
    let (is_right, two) = finished(directory.path());
    assert!(is_right && two > 0, "{two}");
    store.commit(ended(id(3), JobState::Failed, None)).await.expect("room");
    let (is_right, three) = finished(directory.path());
    assert!(is_right && three > two, "{three} {two}");
    store.commit(change(id(3), at(10), ChangeKind::Retried)).await.expect("room");
    assert_eq!(finished(directory.path()), (true, two), "it is open again");
    store.commit(change(id(3), at(11), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.cancel_unread(id(4), at(12), "why".to_owned()).await, Ok(true));
    assert!(finished(directory.path()).0);
    store.close().expect("all is committed");

    let retention = Retention { max_age: Duration::MAX, max_bytes: 0 };
    let store = store_sqlite::open(StoreSettings { retention, ..settings(directory.path()) }).expect("fine");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(4));
    assert_eq!(finished(directory.path()), (true, 0));
}

#[tokio::test]
async fn a_start_and_a_move_sum_up_the_bytes_of_jobs_that_are_over() {
    let (directory, copy) = (tempfile::tempdir().expect("room"), tempfile::tempdir().expect("room"));
    let store = open_with(directory.path(), Duration::MAX);
    for number in 1..=2 {
        store.submit(tasks_job(number, numbers(50))).await.expect("room");
        store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
    }
    store.close().expect("all is committed");
    let (is_right, bytes) = finished(directory.path());
    assert!(is_right && bytes > 0, "{bytes}");

    // The deletion of a row whose bytes were damaged leaves such a sum.
    let db = rusqlite::Connection::open(directory.path().join("divvy.db")).expect("readable");
    db.execute("UPDATE finished SET bytes = 0", []).expect("room");
    db.close().expect("closed");
    open_with(directory.path(), Duration::MAX).close().expect("nothing is left to commit");
    assert_eq!(finished(directory.path()), (true, bytes));

    {
        let mut from = store_sqlite::Transfer::source(directory.path()).expect("nobody uses it");
        let mut to = store_sqlite::Transfer::target(copy.path()).expect("it is empty");
        store::transfer::transfer(&mut from, &mut to).expect("it is moved");
    }
    assert_eq!(finished(copy.path()), (true, bytes));
}

#[tokio::test]
async fn what_is_counted_is_about_what_the_file_takes() {
    for (name, tags, jobs) in [("plain", 0, 20_000_u128), ("tagged", 32, 2000)] {
        let directory = tempfile::tempdir().expect("room");
        let store = std::sync::Arc::new(open_with(directory.path(), Duration::from_secs(1_000_000_000)));
        let submissions: Vec<_> = (1..=jobs)
            .map(|number| {
                let store = store.clone();
                let mut new = range_job(number, 10);
                let word = |tag: u32| (format!("tag-{tag}"), format!("value-{number}-{tag:060}"));
                new.options.tags = (0..tags).map(word).collect::<Labels>();
                new.idempotency_key = Some(format!("key-{number:040}"));
                tokio::spawn(async move {
                    let job = new.id;
                    store.submit(new).await.expect("room");
                    store.record(change(job, at(1), ChangeKind::Started));
                    store.record(completed(job, 0..10, 1));
                    store.record(ended(job, JobState::Succeeded, Some("{\"sum\":\"12345678901234567890\"}")));
                })
            })
            .collect();
        for submission in submissions {
            submission.await.expect("no panic");
        }
        std::sync::Arc::into_inner(store).expect("no other").close().expect("all is committed");
        let file = fs::metadata(directory.path().join("divvy.db")).expect("there").len();
        let db = rusqlite::Connection::open(directory.path().join("divvy.db")).expect("readable");
        let counted: i64 = db.query_row("SELECT sum(bytes) FROM jobs", [], |row| row.get(0)).expect("there");
        let share = counted as f64 / file as f64;
        assert!((0.7..1.4).contains(&share), "{name}: {counted} counted of {file}");
    }
}
