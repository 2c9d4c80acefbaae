//! Moving everything from SQLite and back.

use std::fs;

use model::JobState;
use store::transfer::transfer;
use store::{ChangeKind, JobFilter, Retention, Store};
use tempfile::TempDir;
use test_postgres::{Mode, Proxy, Server};

use crate::helpers::*;

fn sqlite(directory: &TempDir) -> store_sqlite::StoreSettings {
    store_sqlite::StoreSettings { data_dir: directory.path().to_owned(), results_url: None, retention: KEEP_ALL }
}

/// Jobs in every state, with attempts, failures, results and statistics, and events of one that is gone.
async fn fill(store: &Store) {
    for number in 1..=6 {
        let mut new = tasks_job(number, numbers(700));
        new.options.tags.insert("user".to_owned(), format!("u{number}"));
        new.options.output = Some(format!("out-{number}"));
        new.idempotency_key = Some(format!("key-{number}"));
        store.submit(new).await.expect("room");
        let job = id(number);
        store.record(change(job, at(1), ChangeKind::Started));
        store.record(answered(job, 0..3, vec![raw("1"), raw("{\"é\": \"\\u0000\"}"), raw("null")]));
        store.record(failed_attempt(job, 10..20, 2));
        store.record(failed_tasks(job, 20..22, 4));
    }
    for failures in 1..40 {
        store.record(failed_attempt(id(5), 50..51, failures));
    }
    store.record(ended(id(1), JobState::Failed, Some("{\"tasks\": []}")));
    store.record(change(id(2), at(5), ChangeKind::Canceled));
    store.record(change(id(3), at(5), ChangeKind::Paused));
    store.flush().await.expect("room");
}

/// The readable content of a store, as lines.
async fn all(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    for job in store.jobs(JobFilter::default(), None, 100).await.expect("readable") {
        found.push(format!("{job:?}"));
        found.push(format!("{:?}", store.outcomes(job.id, 0, 1000).await.expect("readable")));
        found.push(format!("{:?}", store.result(job.id).await.expect("readable")));
        found.push(format!("{:?}", store.payloads(job.id, 0..700).await.expect("readable")));
    }
    found.push(format!("{:?}", store.unfinished().await.expect("readable")));
    found.push(format!("{:?}", store.events(0, None, 10_000).await.expect("readable")));
    store::suite::statistics::assert_counted(store).await;
    found
}

/// Lets the lease expire so long from now: its own time is over soon on a busy machine, and not yet on an idle one.
fn expire(database: &Database, later: &str) {
    database.ask(&format!("UPDATE lease SET expires_at = clock_timestamp() {later}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_from_sqlite_to_postgres_and_back() {
    let (there, back) = (TempDir::new().expect("room"), TempDir::new().expect("room"));
    let store = store_sqlite::open(sqlite(&there)).expect("it is empty");
    fill(&store).await;
    let (before, epoch) = (all(&store).await, store.epoch());
    store.close().expect("all is committed");

    let database = Database::new();
    let url = database.url();
    {
        let mut source = store_sqlite::Transfer::source(there.path()).expect("it is there");
        let mut target = store_postgres::Transfer::target(&url).expect("it is empty");
        let moved = transfer(&mut source, &mut target).expect("it is moved");
        assert!(moved.contains(&("jobs", 6)), "{moved:?}");
    }
    let shared = database.open();
    let parts = lead(&shared);
    assert!(parts.epoch > epoch, "workers take no lower epoch");
    let store = Store::start(parts, KEEP_ALL).expect("a thread");
    assert_eq!(all(&store).await, before);
    // It goes on where it was.
    store.commit(change(id(3), at(6), ChangeKind::Resumed)).await.expect("room");
    store.submit(tasks_job(7, numbers(700))).await.expect("room");
    store.commit(answered(id(7), 0..1, vec![raw("7")])).await.expect("room");
    let (before, latest) = (all(&store).await, *store.latest_event().borrow());
    store.close().expect("all is committed");
    drop(shared);
    expire(&database, "+ interval '1 hour'");
    let leads = store_postgres::Transfer::source(&url).expect_err("its lease has not expired");
    assert!(leads.to_string().contains("in use"), "{leads}");
    expire(&database, "");

    {
        let mut source = store_postgres::Transfer::source(&url).expect("nobody uses it");
        let mut target = store_sqlite::Transfer::target(back.path()).expect("it is empty");
        transfer(&mut source, &mut target).expect("it is moved");
    }
    let store = store_sqlite::open(sqlite(&back)).expect("it is whole");
    assert_eq!(all(&store).await, before);
    store.submit(tasks_job(8, numbers(700))).await.expect("room");
    assert_eq!(*store.latest_event().borrow(), latest + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_forgotten_job_is_of_no_new_job_after_a_move() {
    let (source, target, directory) = (Database::new(), Database::new(), TempDir::new().expect("room"));
    let store = Store::start(lead(&source.open()), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    store.close().expect("all is committed");
    // As an owner leaves it that ends before all rows of some jobs are deleted: here those whose keys would come next.
    for key in ["max(key) + 1", "(max(key) / 1024 + 1) * 1024", "(max(key) / 1024 + 2) * 1024"] {
        source.ask(&format!("INSERT INTO swept (job, id) SELECT {key}, gen_random_uuid() FROM jobs"));
    }
    expire(&source, "");
    {
        let mut from = store_postgres::Transfer::source(&source.url()).expect("nobody uses it");
        let mut to = store_sqlite::Transfer::target(directory.path()).expect("it is empty");
        transfer(&mut from, &mut to).expect("it is moved");
    }
    {
        let mut from = store_postgres::Transfer::source(&source.url()).expect("nobody uses it");
        let mut to = store_postgres::Transfer::target(&target.url()).expect("it is empty");
        transfer(&mut from, &mut to).expect("it is moved");
    }
    let in_sqlite = store_sqlite::open(sqlite(&directory)).expect("it is whole");
    let in_postgres = Store::start(lead(&target.open()), KEEP_ALL).expect("a thread");
    for store in [in_sqlite, in_postgres] {
        store.submit(tasks_job(2, numbers(3))).await.expect("room");
        store.prune().await.expect("room");
        assert_eq!(store.payloads(id(2), 0..3).await.map(|payloads| payloads.len()), Ok(3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_a_task_keep_their_order_though_their_rows_lie_in_another() {
    let (source, directory) = (Database::new(), TempDir::new().expect("room"));
    let store = Store::start(lead(&source.open()), KEEP_ALL).expect("a thread");
    store.submit(tasks_job(1, numbers(1))).await.expect("room");
    store.close().expect("all is committed");
    // As new rows lie in the room of deleted ones.
    for seq in [3, 1, 2] {
        source.ask(&format!(
            "INSERT INTO logs (seq, job, task, attempt, worker, ended_at, omitted, text) OVERRIDING SYSTEM VALUE \
             SELECT {seq}, key, 0, gen_random_uuid(), 'worker-1', {seq}, 0, 'log {seq}' FROM jobs"
        ));
    }
    expire(&source, "");
    {
        let mut from = store_postgres::Transfer::source(&source.url()).expect("nobody uses it");
        let mut to = store_sqlite::Transfer::target(directory.path()).expect("it is empty");
        transfer(&mut from, &mut to).expect("it is moved");
    }
    let store = store_sqlite::open(sqlite(&directory)).expect("it is whole");
    let logs = store.last_logs(id(1), 0, 10).await.expect("readable");
    assert_eq!(logs.iter().map(|log| &*log.text).collect::<Vec<_>>(), ["log 1", "log 2", "log 3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_whose_last_answer_is_lost_says_how_to_tell_whether_everything_was_moved() {
    let (directory, database) = (TempDir::new().expect("room"), Database::new());
    let store = store_sqlite::open(sqlite(&directory)).expect("it is empty");
    store.submit(range_job(1, 1)).await.expect("room");
    store.close().expect("all is committed");
    let proxy = Proxy::start(Server::shared().address());
    let mut source = store_sqlite::Transfer::source(directory.path()).expect("it is there");
    let mut target =
        store_postgres::Transfer::target(&Server::url_by(proxy.address(), &database.name)).expect("it is empty");
    proxy.set(Mode::SwallowCommit);
    let moving = tokio::task::spawn_blocking(move || transfer(&mut source, &mut target));
    wait_until("it is committed", || database.ask("SELECT count(*) FROM jobs") == "1").await;
    proxy.cut();
    let error = moving.await.expect("no panic").expect_err("its answer is lost");
    assert!(error.to_string().contains("if the database is no longer empty, everything was moved"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_or_not_empty_is_refused() {
    let directory = TempDir::new().expect("room");
    assert!(store_sqlite::Transfer::source(directory.path()).is_err(), "there is nothing");
    let store = store_sqlite::open(sqlite(&directory)).expect("it is empty");
    let used = store_sqlite::Transfer::source(directory.path()).expect_err("it is in use");
    assert!(used.to_string().contains("in use"), "{used}");
    store.submit(range_job(1, 1)).await.expect("room");
    store.close().expect("all is committed");
    let full = store_sqlite::Transfer::target(directory.path()).expect_err("it has a job");
    assert!(full.to_string().contains("not empty"), "{full}");

    let database = Database::new();
    let url = database.url();
    let shared = database.open();
    let member = store::shared::Member {
        id: uuid::Uuid::from_u128(1),
        name: "coordinator-0".to_owned(),
        public_address: "a:1".to_owned(),
        internal_address: "a:2".to_owned(),
        version: "1".to_owned(),
        started_at: at(1),
    };
    announce(&shared, &member);
    let used = store_postgres::Transfer::target(&url).expect_err("a coordinator runs");
    assert!(used.to_string().contains("coordinator-0"), "{used}");
    database.ask("DELETE FROM members");
    let keep_none = Retention { max_age: std::time::Duration::ZERO, max_bytes: 0 };
    let store = Store::start(lead(&shared), keep_none).expect("a thread");
    store.submit(range_job(1, 1)).await.expect("room");
    store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
    store.prune().await.expect("room");
    store.close().expect("all is committed");
    drop(shared);
    expire(&database, "");
    // Its events are gone, but not their numbers.
    let full = store_postgres::Transfer::target(&url).expect_err("its numbers are used");
    assert!(full.to_string().contains("not empty"), "{full}");
    assert!(fs::exists(directory.path().join("divvy.db")).expect("readable"));
}
