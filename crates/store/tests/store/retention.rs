use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use model::JobState;
use store::{Change, JobFilter, Pruned, Retention, Store, StoreSettings};

use crate::helpers::*;

fn open_with(directory: &Path, max_age: Duration, max_bytes: u64) -> Store {
    let retention = Retention { max_age, max_bytes };
    Store::open(StoreSettings { retention, ..settings(directory) }).expect("fine")
}

async fn end(store: &Store, number: u128, at: Timestamp) {
    let job = id(number);
    store.submit(tasks_job(number, numbers(5000))).await.expect("room");
    for task in 0..5000 {
        store.record(answered(job, task..task + 1, vec![raw("\"an answer of some length\"")]));
    }
    let result = store.compose_result(job).await.expect("room");
    let state = JobState::Succeeded;
    store.commit(Change::Ended { job, state, result: Some(result), error: None, at }).await.expect("room");
}

async fn left(store: &Store) -> Vec<u128> {
    let jobs = store.jobs(JobFilter::default(), None, 100).await.expect("readable");
    jobs.iter().map(|job| job.id.0.as_u128()).collect()
}

#[tokio::test]
async fn jobs_that_ended_long_ago_go_with_all_that_was_theirs() {
    let directory = tempfile::tempdir().expect("room");
    let store = open_with(directory.path(), Duration::from_secs(3600), u64::MAX);
    let now = Timestamp::now();
    store.submit(range_job(1, 10)).await.expect("room");
    end(&store, 2, at(0)).await;
    end(&store, 3, now).await;
    let results = directory.path().join("results");
    assert_eq!(fs::read_dir(&results).expect("there").count(), 2);

    let pruned = store.prune().await.expect("room");
    assert_eq!(pruned.jobs, 1);
    assert!(pruned.bytes > 5000 * 100, "{pruned:?}");
    assert_eq!(left(&store).await, [3, 1]);
    assert_eq!(store.result(id(2)).await, Ok(None));
    assert!(store.events(0, Some(id(2)), 10).await.expect("readable").is_empty());
    assert!(store.events(0, None, 100).await.expect("readable").iter().all(|event| event.job != id(2)));
    assert!(store.outcomes(id(2), 0, 10).await.expect("readable").is_empty());
    assert_eq!(fs::read_dir(&results).expect("there").count(), 1);
    assert_eq!(store.prune().await, Ok(Pruned::default()));
    assert_eq!(store.result(id(3)).await.map(|result| result.is_some()), Ok(true));

    store.close().expect("all is committed");
    let db = rusqlite::Connection::open(directory.path().join("divvy.db")).expect("readable");
    for (table, expected) in [("attempts", 5000), ("swept", 0), ("results", 1), ("jobs", 2)] {
        let count: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("there");
        assert_eq!(count, expected, "{table}");
    }
}

#[tokio::test]
async fn of_more_than_may_be_kept_the_oldest_end_goes_first_and_what_is_not_over_stays() {
    let directory = tempfile::tempdir().expect("room");
    let store = open_with(directory.path(), Duration::MAX, 2_000_000);
    for (number, ended_at) in [(1, at(30)), (2, at(10)), (3, at(20)), (4, at(40))] {
        end(&store, number, ended_at).await;
    }
    store.submit(tasks_job(5, numbers(100_000))).await.expect("room");
    let before = store.jobs(JobFilter::default(), None, 100).await.expect("readable").len();
    let pruned = store.prune().await.expect("room");
    let left = left(&store).await;
    assert_eq!(before, left.len() + pruned.jobs as usize);
    assert_eq!(left, [5, 4, 1], "{pruned:?}");
}

#[tokio::test]
async fn the_id_and_the_key_of_a_job_that_is_gone_are_free_again() {
    let directory = tempfile::tempdir().expect("room");
    let store = open_with(directory.path(), Duration::ZERO, u64::MAX);
    let mut job = tasks_job(1, vec![raw("\"old\""); 2]);
    job.idempotency_key = Some("key".to_owned());
    store.submit(job.clone()).await.expect("room");
    store.record(completed(job.id, 0..1, 5));
    store.commit(Change::Canceled { job: job.id, at: at(1) }).await.expect("room");
    assert_eq!(store.payloads(job.id, 1..2).expect("there")[0].get(), "\"old\"");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert!(store.payloads(job.id, 1..2).is_err());
    store.commit(Change::Retried { job: job.id, at: at(1) }).await.expect("no effect");
    job.job.payloads = vec![raw("\"new\""); 2];
    assert_eq!(store.submit(job.clone()).await, Ok(store::Submission::New));
    let found = only_unfinished(&store);
    assert_eq!((found.done, found.record.value), (vec![], 0));
    assert_eq!(store.payloads(job.id, 1..2).expect("there")[0].get(), "\"new\"");
}
