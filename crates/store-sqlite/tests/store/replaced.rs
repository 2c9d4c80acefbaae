//! A data directory that is deleted or replaced while it is used.

use std::fs;
use std::time::{Duration, Instant};

use store::{Store, SubmitError, WriteError};

use crate::helpers::*;

async fn wait_until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

async fn is_refused(store: &Store) -> String {
    match store.submit(range_job(9, 1)).await {
        Err(SubmitError::Write(WriteError::Replaced(message))) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_deleted_data_directory_is_noticed_without_a_write_and_refuses_writes() {
    let (directory, store) = new_store();
    store.submit(range_job(1, 10)).await.expect("room");
    fs::remove_dir_all(directory.path()).expect("there");
    wait_until("it is noticed", || store.is_failing().is_some()).await;
    let message = is_refused(&store).await;
    assert!(message.contains("divvy.db was deleted"), "{message}");
    assert_eq!(store.is_failing(), Some(message));
    store.record(completed(id(1), 0..1, 1));
    assert!(store.close().is_err());
    assert!(!directory.path().exists());
}

#[tokio::test]
async fn a_replaced_database_is_left_alone_until_the_old_one_is_back() {
    let (directory, store) = new_store();
    store.submit(range_job(1, 10)).await.expect("room");
    let (path, aside) = (directory.path().join("divvy.db"), directory.path().join("aside"));
    fs::rename(&path, &aside).expect("there");
    fs::write(&path, "another file").expect("room");
    store.record(completed(id(1), 0..1, 1));
    let message = is_refused(&store).await;
    assert!(message.contains("another file has taken the place"), "{message}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "another file");

    fs::rename(&aside, &path).expect("there");
    wait_until("it goes on", || store.is_failing().is_none() && store.backlog() == 0).await;
    assert_eq!(record_of(&store, id(1)).await.tasks_done, 1);
    store.submit(range_job(9, 1)).await.expect("room");
}
