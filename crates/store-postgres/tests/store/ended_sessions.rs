//! An operator's actions on the database of running coordinators: sessions end, the database becomes read-only, defaults change,
//! tables are locked, the database is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::JobState;
use store::{JobFilter, Retention, Shared, Store, SubmitError, WriteError};
use test_postgres::Server;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::helpers::*;

const ROUNDS: u64 = 60;

/// Bound on the recovery on a busy machine.
const GOES_ON: Duration = Duration::from_secs(60);

async fn eventually(what: &str, mut attempt: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !attempt().await {
        assert!(since.elapsed() < GOES_ON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn end_sessions(database: &Database) -> String {
    let name = &database.name;
    Server::shared().psql(
        "postgres",
        &format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_sessions_are_ended_nothing_is_lost_or_counted_twice_and_no_caller_notices() {
    let database = Database::new();
    let (one, two) = (database.open(), database.open());
    let leader = Store::start(lead(&one), KEEP_ALL).expect("a thread");
    let follower = Arc::new(Store::follow(two.follow().expect("reachable"), KEEP_ALL).expect("a thread"));
    leader.submit(range_job(1, 1000)).await.expect("room");
    let (client, connection) = tokio_postgres::connect(&Server::shared().url("postgres"), NoTls).await.expect("up");
    let driving = tokio::spawn(connection);
    let mut ended = 0;
    for round in 0..ROUNDS {
        // At another moment of what is under way each time.
        let kill = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity, pg_sleep({}) WHERE datname = '{}'",
            (round % 12) as f64 * 0.0004,
            database.name
        );
        let submitting = tokio::spawn({
            let follower = follower.clone();
            async move { follower.submit(range_job(u128::from(round) + 2, 10)).await }
        });
        leader.record(completed(id(1), round..round + 1, 1));
        let (killed, flushed, listed) =
            tokio::join!(client.query_one(&kill, &[]), leader.flush(), leader.jobs(JobFilter::default(), None, 5));
        ended += killed.expect("asked").get::<_, i64>(0);
        assert_eq!(flushed, Ok(()), "round {round}");
        assert!(listed.is_ok(), "round {round}: {listed:?}");
        let submitted = submitting.await.expect("no panic");
        assert!(submitted.is_ok(), "round {round}: {submitted:?}");
    }
    driving.abort();
    assert!(ended as u64 > ROUNDS, "{ended} sessions were ended");
    let found = record_of(&leader, id(1)).await;
    assert_eq!((found.value, found.tasks_done, found.attempts), (u128::from(ROUNDS), ROUNDS, ROUNDS));
    let jobs = ROUNDS + 1;
    assert_eq!(database.ask("SELECT count(*) FROM jobs"), jobs.to_string());
    assert_eq!(database.ask("SELECT count(*) = max(seq) FROM events"), "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_read_only_for_new_sessions_is_written_again_without_a_restart() {
    let database = Database::new();
    let (one, two) = (database.open(), database.open());
    let mut leadership = one.leadership();
    let term = acquire_free(&mut *leadership, 1);
    let leader = Store::start(one.lead(term.epoch).expect("it leads"), KEEP_ALL).expect("a thread");
    let follower = Store::follow(two.follow().expect("reachable"), KEEP_ALL).expect("a thread");
    leader.submit(range_job(1, 10)).await.expect("room");
    // As a hosting service does whose disk is nearly full.
    database.ask(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
    end_sessions(&database);
    eventually("the lease is not renewed", async || leadership.renew(term.epoch).is_err()).await;
    leader.record(completed(id(1), 0..1, 7));
    for store in [&leader, &follower] {
        let refused = store.submit(range_job(2, 10)).await;
        let is_said =
            matches!(&refused, Err(SubmitError::Write(WriteError::ReadOnly(why))) if why.contains("read-only"));
        assert!(is_said, "{refused:?}");
        assert_eq!(record_of(store, id(1)).await.value, 0, "reads go on");
    }
    Server::shared().psql("postgres", &format!("ALTER DATABASE {} RESET ALL", database.name));
    eventually("what was recorded is written", async || record_of(&leader, id(1)).await.value == 7).await;
    eventually("a follower stores jobs", async || follower.submit(range_job(2, 10)).await.is_ok()).await;
    eventually("the lease is taken again", async || leadership.acquire(Uuid::from_u128(1)).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stricter_isolation_by_default_refuses_no_writer() {
    let database = Database::new();
    drop(database.open());
    database.ask(&format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name));
    let (one, two) = (database.open(), database.open());
    let leader = Arc::new(Store::start(lead(&one), KEEP_ALL).expect("a thread"));
    let follower = Arc::new(Store::follow(two.follow().expect("reachable"), KEEP_ALL).expect("a thread"));
    let mut submissions = Vec::new();
    for number in 0..200 {
        let store = if number % 2 == 0 { leader.clone() } else { follower.clone() };
        submissions.push(tokio::spawn(async move { store.submit(range_job(number, 10)).await }));
        // So that there are many batches.
        tokio::task::yield_now().await;
        if number % 10 == 9 {
            for submitted in submissions.drain(..) {
                let submitted = submitted.await.expect("no panic");
                assert!(submitted.is_ok(), "{submitted:?}");
            }
        }
    }
    assert_eq!(database.ask("SELECT count(*), max(seq) FROM events"), "200|200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_dropped_and_made_anew_is_told_of() {
    let database = Database::new();
    let shared = database.open();
    let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    let lost = shared.lost();
    Server::shared().psql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", database.name));
    let refused = store.submit(range_job(2, 10)).await;
    let is_said =
        matches!(&refused, Err(SubmitError::Write(WriteError::Unavailable(why))) if why.contains("does not exist"));
    assert!(is_said, "{refused:?}");
    Server::shared().psql("postgres", &format!("CREATE DATABASE {}", database.name));
    let told = tokio::time::timeout(GOES_ON, lost).await.expect("it is told of");
    assert!(told.contains(&database.name) && told.contains("its tables are gone"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_lost_a_batch_without_events_is_told_of_and_nothing_is_refused_for_it() {
    let database = Database::new();
    let shared = database.open();
    let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    store.commit(completed(id(1), 0..1, 1)).await.expect("room");
    let lost = shared.lost();
    // As a replica has it that did not get the last batch.
    database.ask("UPDATE fence SET batch = batch - 1");
    let refused = store.submit(range_job(2, 10)).await;
    let is_said =
        matches!(&refused, Err(SubmitError::Write(WriteError::Unavailable(why))) if why.contains("has lost commits"));
    assert!(is_said, "{refused:?}");
    let told = tokio::time::timeout(GOES_ON, lost).await.expect("it is told of");
    assert!(told.contains(&database.name) && told.contains("has lost commits"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_jobs_are_looked_for_however_long_that_takes() {
    let database = Database::new();
    let store = Arc::new(Store::start(lead(&database.open()), KEEP_ALL).expect("a thread"));
    store.submit(range_job(1, 10)).await.expect("room");
    // Reads an event, too, as only the first one does.
    store.prune().await.expect("readable");
    assert_eq!(prune_beside_a_lock(&database, store, "jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_jobs_with_events_to_be_published_are_looked_for_however_long_that_takes() {
    let database = Database::new();
    let retention = Retention { max_age: Duration::ZERO, max_bytes: u64::MAX };
    let store = Arc::new(Store::start(lead(&database.open()), retention).expect("a thread"));
    store.submit(range_job(1, 10)).await.expect("room");
    store.commit(ended(id(1), JobState::Failed, None)).await.expect("room");
    store.keep_events_from(1);
    // Reads an event, too, as only the first one does.
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(0));
    assert_eq!(prune_beside_a_lock(&database, store.clone(), "events").await, 0);
    store.keep_events_from(u64::MAX);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
}

/// Forgets old jobs while a table is locked for longer than any other read may take. Returns the number of forgotten jobs.
async fn prune_beside_a_lock(database: &Database, store: Arc<Store>, table: &str) -> u64 {
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    client.batch_execute(&format!("BEGIN; LOCK TABLE divvy.{table}")).await.expect("locked");
    let pruning = tokio::spawn(async move { store.prune().await });
    // Any other read is over by then.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '15500 ms'";
    eventually("the read waits or is over", async || pruning.is_finished() || database.ask(waiting) == "1").await;
    client.batch_execute("ROLLBACK").await.expect("unlocked");
    let pruned = pruning.await.expect("no panic").expect("it goes on");
    driving.abort();
    pruned.jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_clock_that_jumps_ahead_ends_a_lease_and_the_next_one_is_taken_at_once() {
    let database = Database::new();
    let shared = database.open();
    let mut leadership = shared.leadership();
    let term = acquire_free(&mut *leadership, 1);
    // As an hour more on the clock makes it.
    database.ask("UPDATE lease SET expires_at = expires_at - interval '1 hour'");
    assert!(leadership.renew(term.epoch).is_err());
    assert!(acquire_free(&mut *leadership, 2).epoch > term.epoch);
}
