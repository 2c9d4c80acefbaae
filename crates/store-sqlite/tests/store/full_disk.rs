//! A disk without room, and one that cannot be written: a small file system of this process's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use store::{ChangeKind, Retention, Store, SubmitError, WriteError};
use store_sqlite::{OpenError, StoreSettings};

use crate::helpers::*;

const DISK: &str = "DIVVY_TEST_DISK";

/// The small disk, in a process that has one. In another: runs the test in one that has, or says that it cannot.
fn disk(test: &str) -> Option<PathBuf> {
    limited_disk(test, "true")
}

/// The small disk, in a process with limits that a command of the shell sets.
fn limited_disk(test: &str, limits: &str) -> Option<PathBuf> {
    if let Ok(disk) = std::env::var(DISK) {
        return Some(disk.into());
    }
    let disk = tempfile::tempdir().expect("room");
    let mount = format!(
        "mount -t tmpfs -o size=4m none \"$DIVVY_TEST_DISK\" && {limits} || exit 77; exec \"$0\" --exact --nocapture \"$1\""
    );
    let exe = std::env::current_exe().expect("this test");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &mount]).arg(exe).arg(format!("full_disk::{test}")).env(DISK, disk.path());
    match command.status().map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 77)) | Err(_) => eprintln!("no file system can be mounted here: {test} has not run"),
        Ok(code) => panic!("{test} failed on the small disk: {code:?}"),
    }
    None
}

fn fill(disk: &Path, leave: u64) {
    let filler = disk.join("filler");
    let mut size = 4 * 1024 * 1024;
    while fs::write(&filler, vec![1; size]).is_err() {
        size -= 16 * 1024;
    }
    let file = fs::OpenOptions::new().write(true).open(&filler).expect("there");
    file.set_len(size as u64 - leave).expect("shorter");
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn on_a_full_disk_what_is_waited_for_fails_and_what_is_recorded_waits_in_order() {
    let Some(disk) = disk("on_a_full_disk_what_is_waited_for_fails_and_what_is_recorded_waits_in_order") else {
        return;
    };
    let store = open(&disk);
    let job = id(1);
    store.submit(tasks_job(1, numbers(20_000))).await.expect("room");
    store.submit(range_job(2, 100)).await.expect("room");
    fill(&disk, 100 * 1024);
    // The room that is kept and what a shortened log gives back come first.
    let (mut given, mut failures) = (0, 0);
    while failures < 5 {
        for _ in 0..100 {
            store.record(answered(job, given..given + 1, vec![raw(&format!("\"{}\"", "x".repeat(100)))]));
            given += 1;
        }
        failures = if store.flush().await.is_err() { failures + 1 } else { 0 };
        assert!(given < 19_000, "the disk is never full");
    }
    for _ in 0..100 {
        store.record(answered(job, given..given + 1, vec![raw("1")]));
        given += 1;
    }
    assert_eq!(
        store.submit(range_job(3, 100)).await,
        Err(SubmitError::Write(WriteError::Full("the disk is full".to_owned())))
    );
    assert_eq!(
        store.commit(change(id(2), at(1), ChangeKind::Paused)).await,
        Err(WriteError::Full("the disk is full".to_owned()))
    );
    assert_eq!(store.is_failing(), Some("the disk is full".to_owned()));
    assert!(store.backlog() >= 100);
    assert!(store.put_result(id(2), raw(&format!("\"{}\"", "x".repeat(300_000)))).await.is_err());
    assert_eq!(store.unfinished().await.expect("reading goes on").len(), 2);

    fs::remove_file(disk.join("filler")).expect("there");
    wait_until("all is committed", || store.backlog() == 0).await;
    wait_until("there is room for new jobs", || store.is_failing().is_none()).await;
    let check = async |store: &Store| {
        let found = store.unfinished().await.expect("readable");
        assert_eq!(found.iter().map(|job| job.record.id).collect::<Vec<_>>(), [id(1), id(2)]);
        assert!(found[0].done.iter().cloned().eq(std::iter::once(0..given)), "{:?} of {given}", found[0].done);
        assert_eq!(found[1].record.state, model::JobState::Queued);
    };
    check(&store).await;
    store.submit(range_job(3, 100)).await.expect("room again");
    store.commit(change(id(3), at(1), ChangeKind::Canceled)).await.expect("room");
    store.close().expect("all is committed");
    check(&open(&disk)).await;
}

#[tokio::test]
async fn a_long_log_leaves_the_room_that_is_kept_to_the_changes() {
    let Some(disk) = disk("a_long_log_leaves_the_room_that_is_kept_to_the_changes") else { return };
    let store = open(&disk);
    // A reader keeps the log from being copied into the database, which a copy would lengthen by more than the reserve has.
    let reader = rusqlite::Connection::open(disk.join("divvy.db")).expect("it is there");
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").expect("readable");
    let payload = raw(&format!("\"{}\"", "x".repeat(1000)));
    store.submit(tasks_job(1, vec![payload; 1000])).await.expect("room");
    store.submit(range_job(2, 100)).await.expect("room");
    let reserve = fs::metadata(disk.join("divvy.reserve")).expect("a reserve").len();
    let length = fs::metadata(disk.join("divvy.db")).expect("there").len();
    assert!(length + reserve < 1000 * 1000, "{length}: the payloads are in the log alone");
    fill(&disk, 0);
    drop(reader);
    for kind in [ChangeKind::Paused, ChangeKind::Resumed, ChangeKind::Canceled] {
        store.commit(change(id(2), at(1), kind)).await.expect("room of the reserve");
    }
    assert_eq!(record_of(&store, id(2)).await.state, model::JobState::Canceled);
    assert_eq!(
        store.submit(range_job(3, 100)).await,
        Err(SubmitError::Write(WriteError::Full("the disk is full".to_owned())))
    );

    fs::remove_file(disk.join("filler")).expect("there");
    wait_until("there is room for new jobs", || store.is_failing().is_none()).await;
    store.submit(range_job(3, 100)).await.expect("room again");
    store.close().expect("all is committed");
    assert_eq!(fs::metadata(disk.join("divvy.reserve")).expect("a reserve").len(), reserve);
    assert_eq!(open(&disk).unfinished().await.expect("readable").len(), 2);
}

#[tokio::test]
async fn jobs_that_fill_the_disk_are_canceled_and_forgotten_and_others_take_their_room() {
    let Some(disk) = disk("jobs_that_fill_the_disk_are_canceled_and_forgotten_and_others_take_their_room") else {
        return;
    };
    let retention = Retention { max_age: Duration::ZERO, max_bytes: u64::MAX };
    let store = store_sqlite::open(StoreSettings { retention, ..settings(&disk) }).expect("the directory is fine");
    let payload = raw(&format!("\"{}\"", "x".repeat(1000)));
    let job = |number| tasks_job(number, vec![payload.clone(); 100]);
    let length = |file: &str| fs::metadata(disk.join(file)).map_or(0, |file| file.len());
    let mut next = 1;
    for round in 0..2 {
        let first = next;
        // The writer has no pause in which it could copy its log back.
        let refused = loop {
            match store.submit(job(next)).await {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, SubmitError::Write(WriteError::Full(_))), "{refused:?}");
        assert!(next - first >= 10, "round {round}: only jobs {first} to {next}");
        assert!(length("divvy.db-wal") < 1 << 20, "round {round}: {}", length("divvy.db-wal"));
        store.submit(range_job(next, 10)).await.expect("room for a small one");
        next += 1;
        for number in first..next {
            store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
        }
        let forgotten = store.prune().await.expect("room").jobs;
        assert_eq!(u128::from(forgotten), next - first);
        wait_until("the file is short again", || length("divvy.db") < 1 << 20).await;
    }
    store.close().expect("all is committed");
}

#[tokio::test]
async fn changes_that_have_no_room_leave_nothing_in_the_log_that_takes_it_from_others() {
    let Some(disk) = disk("changes_that_have_no_room_leave_nothing_in_the_log_that_takes_it_from_others") else {
        return;
    };
    let store = open(&disk);
    // A reader keeps the log from being copied back, and so from being begun anew.
    let reader = rusqlite::Connection::open(disk.join("divvy.db")).expect("it is there");
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").expect("readable");
    store.submit(tasks_job(1, numbers(10))).await.expect("room");
    let larger_than_the_disk = raw(&format!("\"{}\"", "x".repeat(6 << 20)));
    let refused = store.commit(answered(id(1), 0..1, vec![larger_than_the_disk])).await;
    assert_eq!(refused, Err(WriteError::Full("the disk is full".to_owned())));
    let length = || fs::metadata(disk.join("divvy.db-wal")).map_or(0, |file| file.len());
    wait_until("the log is cut", || length() < 1 << 20).await;
    wait_until("there is room for new jobs", || store.is_failing().is_none()).await;
    store.submit(range_job(2, 10)).await.expect("room");
    drop(reader);
    store.close().expect("all is committed");
    assert_eq!(open(&disk).unfinished().await.expect("readable").len(), 2);
}

#[tokio::test]
async fn a_store_opens_on_a_full_disk_in_the_room_that_is_kept() {
    let Some(disk) = disk("a_store_opens_on_a_full_disk_in_the_room_that_is_kept") else { return };
    let store = open(&disk);
    store.submit(range_job(1, 100)).await.expect("room");
    store.close().expect("all is committed");
    fill(&disk, 0);
    let store = open(&disk);
    store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room of the reserve");
    assert_eq!(
        store.submit(range_job(2, 100)).await,
        Err(SubmitError::Write(WriteError::Full("the disk is full".to_owned())))
    );
    store.close().expect("all is committed");

    fill(&disk, 0);
    let error = store_sqlite::open(settings(&disk)).expect_err("no room is kept");
    assert!(matches!(error, OpenError::Full { .. }), "{error}");
    fs::remove_file(disk.join("filler")).expect("there");
    assert_eq!(open(&disk).unfinished().await.expect("readable").len(), 0);
}

#[tokio::test]
async fn a_log_at_the_limit_of_file_lengths_begins_anew() {
    // A write beyond the limit fails where its signal is ignored.
    let limits = "trap '' XFSZ && ulimit -f 4096";
    let Some(disk) = limited_disk("a_log_at_the_limit_of_file_lengths_begins_anew", limits) else { return };
    let store = open(&disk);
    store.submit(range_job(1, 100)).await.expect("room");
    // A reader keeps the log from being begun anew while it grows.
    let reader = rusqlite::Connection::open(disk.join("divvy.db")).expect("it is there");
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").expect("readable");
    let mut refused = None;
    for number in 0..10_000 {
        let kind = if number % 2 == 0 { ChangeKind::Paused } else { ChangeKind::Resumed };
        refused = store.commit(change(id(1), at(1), kind)).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(refused, Some(WriteError::Unavailable(_))), "{refused:?}");
    drop(reader);
    // The log begins anew after the next change that fails.
    let since = Instant::now();
    while let Err(error) = store.commit(change(id(1), at(1), ChangeKind::Canceled)).await {
        assert!(matches!(error, WriteError::Unavailable(_)) && since.elapsed() < Duration::from_secs(60), "{error:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(record_of(&store, id(1)).await.state, model::JobState::Canceled);
}

#[tokio::test]
async fn a_failure_ends_by_itself_once_there_is_room() {
    let Some(disk) = disk("a_failure_ends_by_itself_once_there_is_room") else { return };
    let store = open(&disk);
    fill(&disk, 0);
    let mut number = 1;
    while store.submit(tasks_job(number, numbers(5000))).await.is_ok() {
        number += 1;
    }
    assert_eq!(store.is_failing(), Some("the disk is full".to_owned()));
    wait_until("nothing waits", || store.backlog() == 0).await;
    fs::remove_file(disk.join("filler")).expect("there");
    wait_until("no failure any more", || store.is_failing().is_none()).await;
    let unfinished = async || store.unfinished().await.expect("readable").len() as u128;
    assert_eq!(unfinished().await, number - 1);
    store.submit(range_job(number, 1)).await.expect("room again");
    assert_eq!(unfinished().await, number);
}

#[test]
fn closing_on_a_full_disk_says_that_something_is_lost_and_what_was_acknowledged_stays() {
    let Some(disk) = disk("closing_on_a_full_disk_says_that_something_is_lost_and_what_was_acknowledged_stays") else {
        return;
    };
    let runtime = runtime();
    let store = open(&disk);
    runtime.block_on(store.submit(tasks_job(1, numbers(100)))).expect("room");
    fill(&disk, 0);
    // More than the whole disk: however much of its own files the store can give back, not all of it can be committed.
    let answer = format!("\"{}\"", "x".repeat(60_000));
    for task in 0..100 {
        store.record(answered(id(1), task..task + 1, vec![raw(&answer)]));
    }
    assert!(store.close().is_err());
    fs::remove_file(disk.join("filler")).expect("there");
    assert_eq!(runtime.block_on(only_unfinished(&open(&disk))).record.id, id(1));
}

#[test]
fn a_disk_that_cannot_be_written_is_said_to_be_so() {
    let Some(disk) = disk("a_disk_that_cannot_be_written_is_said_to_be_so") else { return };
    open(&disk).close().expect("all is committed");
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status().expect("there is a mount");
    assert!(remount.success());
    let error = store_sqlite::open(settings(&disk)).expect_err("refused");
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
    assert!(error.to_string().contains(&disk.display().to_string()), "{error}");
}
