//! Batches whose answers are lost: what became of them is found out, and nothing is written twice or lost.

use std::time::{Duration, Instant};

use store::{ChangeKind, Store, Submission, SubmitError, WriteError};
use test_postgres::{Mode, Server};

use crate::helpers::*;

/// Sends something that is committed, and whose answer is lost with the connection.
async fn lose_answer<T>(behind: &Behind, sending: impl Future<Output = T>, is_committed: impl Fn() -> bool) -> T {
    behind.proxy.set(Mode::SwallowCommit);
    let losing = async {
        wait_until("it is committed", is_committed).await;
        behind.proxy.set(Mode::Pass);
        behind.proxy.cut();
    };
    tokio::join!(sending, losing).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_swallowed_counts_once() {
    let behind = Behind::new();
    let store = behind.leader();
    store.submit(range_job(1, 100)).await.expect("room");
    store.commit(completed(id(1), 0..1, 5)).await.expect("room");
    for round in 1..4_u64 {
        let done = format!("SELECT tasks_done > {round} FROM jobs");
        let commit = store.commit(completed(id(1), round..round + 1, 5));
        assert_eq!(lose_answer(&behind, commit, || behind.database.ask(&done) == "t").await, Ok(()));
        let found = record_of(&store, id(1)).await;
        assert_eq!((found.value, found.attempts), (5 * (u128::from(round) + 1), round + 1));
    }
    assert_eq!(behind.database.ask("SELECT count(*) = max(seq) FROM events"), "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_submission_whose_answer_is_swallowed_is_accepted_once_and_new() {
    let behind = Behind::new();
    let store = behind.follower();
    store.submit(range_job(1, 10)).await.expect("room");
    let mut new = range_job(2, 10);
    new.idempotency_key = Some("a name".to_owned());
    let submit = store.submit(new.clone());
    let submitted = lose_answer(&behind, submit, || behind.database.ask("SELECT count(*) FROM jobs") == "2").await;
    assert_eq!(submitted, Ok(Submission::New));
    assert_eq!(store.submit(new).await, Ok(Submission::Existing(id(2))));
    assert_eq!(behind.database.ask("SELECT count(*), max(seq) FROM events"), "2|2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_cut_off_on_its_way_is_written_once() {
    let behind = Behind::new();
    let store = behind.leader();
    store.submit(range_job(1, 1000)).await.expect("room");
    for round in 0..10_u64 {
        behind.proxy.set(Mode::Hold);
        store.record(completed(id(1), round..round + 1, 1));
        store.record(change(id(1), at(1), ChangeKind::Progress));
        behind.proxy.cut();
        behind.proxy.set(Mode::Pass);
        let since = Instant::now();
        while store.flush().await.is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "it is never found out");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    wait_until("all is committed", || store.backlog() == 0).await;
    let found = record_of(&store, id(1)).await;
    assert_eq!((found.value, found.attempts, found.tasks_done), (10, 10, 10));
    assert_eq!(behind.database.ask("SELECT count(*), max(seq) FROM events"), "11|11");
}

/// Lets the server take connections to a database or refuse them, as it does with those that are too many.
fn take_connections(database: &Database, takes: bool) {
    Server::shared().psql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS {takes}", database.name));
}

/// Loses the answer to what is sent and committed, while the server refuses other connections.
async fn lose_answer_and_connections(behind: &Behind, store: &Store, is_committed: impl FnMut() -> bool) {
    wait_until("it is committed", is_committed).await;
    take_connections(&behind.database, false);
    behind.proxy.set(Mode::Pass);
    behind.proxy.cut();
    let is_refused = || store.is_failing().is_some_and(|why| why.contains("not currently accepting connections"));
    wait_until("a connection is refused", is_refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_batch_in_doubt_cannot_be_sent_again_no_other_one_takes_its_place() {
    let behind = Behind::new();
    let store = behind.leader();
    store.submit(range_job(1, 10)).await.expect("room");
    behind.proxy.set(Mode::SwallowCommit);
    store.record(completed(id(1), 0..1, 1));
    let is_committed = || behind.database.ask("SELECT tasks_done FROM jobs") == "1";
    lose_answer_and_connections(&behind, &store, is_committed).await;
    store.record(completed(id(1), 1..2, 1));
    take_connections(&behind.database, true);
    wait_until("all is committed", || store.backlog() == 0).await;
    let found = record_of(&store, id(1)).await;
    assert_eq!((found.value, found.attempts, found.tasks_done), (2, 2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_submission_in_doubt_is_not_called_refused() {
    let behind = Behind::new();
    let store = behind.follower();
    store.submit(range_job(1, 10)).await.expect("room");
    behind.proxy.set(Mode::SwallowCommit);
    let losing = async {
        let is_committed = || behind.database.ask("SELECT count(*) FROM jobs") == "2";
        lose_answer_and_connections(&behind, &store, is_committed).await;
        take_connections(&behind.database, true);
    };
    let (submitted, ()) = tokio::join!(store.submit(range_job(2, 10)), losing);
    // A busy machine may not find it out before the caller is told so.
    let is_in_doubt = matches!(submitted, Err(SubmitError::Write(WriteError::InDoubt)));
    assert!(is_in_doubt || submitted == Ok(Submission::New), "{submitted:?}");
    assert_eq!(behind.database.ask("SELECT count(*), max(seq) FROM events"), "2|2");
}
