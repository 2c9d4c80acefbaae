//! The bytes of all jobs that are over, which retention compares with its limit.

use std::time::Duration;

use model::JobState;
use store::transfer::transfer;
use store::{ChangeKind, Retention, Store};
use test_postgres::Mode;
use tokio_postgres::NoTls;

use crate::helpers::*;

/// Whether the kept sum is the sum over the rows, and whether it is above zero.
const IS_RIGHT: &str = "SELECT bytes = (SELECT coalesce(sum(bytes), 0) FROM jobs WHERE finished_at IS NOT NULL), bytes > 0 \
     FROM finished";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_jobs_that_are_over_are_summed_up_as_they_change() {
    let (database, copy) = (Database::new(), Database::new());
    let keep_none = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    let store = Store::start(lead(&database.open()), keep_none).expect("a thread");
    for number in 1..=4 {
        store.submit(tasks_job(number, numbers(50))).await.expect("room");
    }
    assert_eq!(database.ask(IS_RIGHT), "t|f");
    for number in 1..=2 {
        store.record(answered(id(number), 0..3, vec![raw("1"), raw("2"), raw("3")]));
        store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
        assert_eq!(database.ask(IS_RIGHT), "t|t");
    }
    store.commit(ended(id(3), JobState::Failed, Some("{\"tasks\": []}"))).await.expect("room");
    assert_eq!(database.ask(IS_RIGHT), "t|t");
    let before = database.ask("SELECT bytes FROM finished");
    store.commit(change(id(3), at(2), ChangeKind::Retried)).await.expect("room");
    assert_eq!(database.ask(IS_RIGHT), "t|t");
    assert_ne!(database.ask("SELECT bytes FROM finished"), before, "the job is open again");
    store.commit(change(id(3), at(3), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.cancel_unread(id(4), at(4), "why".to_owned()).await, Ok(true));
    assert_eq!(database.ask(IS_RIGHT), "t|t");
    store.close().expect("all is committed");

    // A move to another database has the same sum.
    database.ask("UPDATE lease SET expires_at = clock_timestamp()");
    {
        let mut from = store_postgres::Transfer::source(&database.url()).expect("nobody uses it");
        let mut to = store_postgres::Transfer::target(&copy.url()).expect("it is empty");
        transfer(&mut from, &mut to).expect("it is moved");
    }
    assert_eq!(copy.ask(IS_RIGHT), "t|t");
    let store = Store::start(lead(&copy.open()), keep_none).expect("a thread");
    store.submit(tasks_job(5, numbers(50))).await.expect("room");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(4));
    assert_eq!(copy.ask(IS_RIGHT), "t|f");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_several_forgotten_jobs_are_deleted_in_one_batch() {
    let database = Database::new();
    let keep_none = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    let store = Store::start(lead(&database.open()), keep_none).expect("a thread");
    for number in 1..=40 {
        store.submit(tasks_job(number, numbers(3))).await.expect("room");
        store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
    }
    let last_batch = || database.ask("SELECT batch FROM fence").parse::<u64>().expect("a number");
    let before = last_batch();
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(40));
    let batches = last_batch() - before;
    // Jobs that are deleted one by one take two batches each.
    assert!(batches < 40, "{batches} batches");
    let left = "SELECT (SELECT count(*) FROM swept) + (SELECT count(*) FROM payloads) + (SELECT count(*) FROM events)";
    assert_eq!(database.ask(left), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_cut_off_while_it_corrects_the_sum_leaves_it_corrected_and_free() {
    let behind = Behind::new();
    let (store, database) = (behind.leader(), &behind.database);
    store.submit(range_job(1, 10)).await.expect("room");
    store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
    database.ask("UPDATE finished SET bytes = bytes + 1");
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT bytes FROM divvy.finished FOR UPDATE").await.expect("locked");
    let pruning = tokio::spawn(async move { store.prune().await });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    wait_until("the correction waits for the lock", || database.ask(waiting) == "1").await;
    behind.proxy.set(Mode::Hold);
    client.batch_execute("ROLLBACK").await.expect("unlocked");
    wait_until("the sum is right", || database.ask(IS_RIGHT) == "t|t").await;
    behind.proxy.set(Mode::Pass);
    pruning.abort();
    driving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_sum_deletes_nothing_that_is_kept_and_is_corrected() {
    let database = Database::new();
    let retention = Retention { max_age: Duration::MAX, max_bytes: 1_000_000_000 };
    for (number, wrong) in [(1, "1e30"), (2, "-1e30")] {
        let store = Store::start(lead(&database.open()), retention).expect("a thread");
        store.submit(tasks_job(number, numbers(50))).await.expect("room");
        store.commit(change(id(number), at(1), ChangeKind::Canceled)).await.expect("room");
        // The deletion of a row whose bytes were damaged leaves such a sum.
        database.ask(&format!("UPDATE finished SET bytes = {wrong}"));
        assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(0));
        assert_eq!(database.ask(IS_RIGHT), "t|t");
        store.close().expect("all is committed");
        database.ask("UPDATE lease SET expires_at = clock_timestamp()");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_an_earlier_release_gets_the_sum_while_that_release_goes_on() {
    // The state that the earlier release leaves, and the state after a restore of its backup over this release's schema.
    for back in [
        "DROP TABLE finished; DROP FUNCTION count_updated, count_deleted CASCADE",
        "DROP TRIGGER jobs_updated ON jobs; DROP TRIGGER jobs_deleted ON jobs",
    ] {
        let database = Database::new();
        let store = Store::start(lead(&database.open()), KEEP_ALL).expect("a thread");
        database.ask(&format!("{back}; UPDATE schema_version SET version = 5"));
        for number in 1..=3 {
            store.submit(tasks_job(number, numbers(50))).await.expect("room");
        }
        store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
        drop(database.open());
        assert_eq!(database.ask(IS_RIGHT), "t|t");
        let before = database.ask("SELECT bytes FROM finished");
        store.commit(change(id(2), at(2), ChangeKind::Canceled)).await.expect("room");
        assert_eq!(database.ask(IS_RIGHT), "t|t");
        assert_ne!(database.ask("SELECT bytes FROM finished"), before, "another job is over");
    }
}
