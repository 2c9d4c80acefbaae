//! The database away, leaders that wake up late, and batches in each other's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::JobState;
use store::shared::{Acquired, LEASE};
use store::{
    Batch, ChangeKind, Entry, Epoch, JobFilter, LeadershipError, ReadError, Shared, Store, Submission, SubmitError,
    WriteError,
};
use tempfile::TempDir;
use test_postgres::{Mode, Server};
use uuid::Uuid;

use crate::helpers::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_lost_commits_is_noticed() {
    for loss in ["UPDATE counter SET event = event - 1", "UPDATE lease SET epoch = epoch - 1"] {
        let database = Database::new();
        let shared = database.open();
        let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
        store.submit(range_job(1, 10)).await.expect("room");
        let mut lost = shared.lost();
        // Nothing is lost yet, however often it is looked at.
        let early = tokio::time::timeout(Duration::from_millis(300), &mut lost).await;
        assert!(early.is_err(), "{early:?}");
        database.ask(loss);
        let told = tokio::time::timeout(Duration::from_secs(60), lost).await.expect("it is noticed");
        assert!(told.contains("has lost commits"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_and_started_again_has_all_that_was_acknowledged() {
    let server = Server::start(&[]);
    let results = TempDir::new().expect("there is room");
    let shared = open(&server.url("postgres"), &results);
    let store = Arc::new(Store::start(lead(&shared), KEEP_ALL).expect("a thread"));
    store.submit(range_job(1, 1000)).await.expect("room");
    let mut quickest = Duration::MAX;
    for round in 0..3_u128 {
        server.kill();
        store.record(completed(id(1), round as u64..round as u64 + 1, 1));
        wait_until("the writer notices", || store.is_failing().is_some()).await;
        let refused = store.job(id(1)).await;
        assert!(matches!(refused, Err(ReadError::Unavailable(_))), "{refused:?}");
        let refused = store.submit(range_job(round + 2, 10)).await;
        let is_refused = |error: &SubmitError| matches!(error, SubmitError::Write(WriteError::Unavailable(_)));
        assert!(refused.as_ref().is_err_and(is_refused), "{refused:?}");
        server.start_again();
        let since = Instant::now();
        wait_until("it goes on", || store.is_failing().is_none() && store.backlog() == 0).await;
        quickest = quickest.min(since.elapsed());
        assert_eq!(record_of(&store, id(1)).await.value, round + 1);
        let mut latest = shared.follow().expect("it is there").latest_event.subscribe();
        latest.borrow_and_update();
        store.submit(range_job(round + 2, 10)).await.expect("it is there");
        latest.changed().await.expect("it is told of the event");
    }
    // An operation that is slow by itself is slow each time.
    assert!(quickest < Duration::from_secs(2), "{quickest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_up_late_writes_prunes_and_deletes_nothing() {
    let behind = Behind::new();
    let old = behind.leader();
    old.submit(range_job(1, 10)).await.expect("room");
    old.commit(change(id(1), at(2), ChangeKind::Canceled)).await.expect("room");
    // Half way through a transaction: the fence is passed, and nothing more comes.
    behind.proxy.set(Mode::Hold);
    old.record(change(id(1), at(3), ChangeKind::Retried));
    let other = behind.database.open();
    let new = tokio::task::spawn_blocking(move || {
        let parts = lead(&other);
        (other, parts.epoch, Store::start(parts, KEEP_ALL).expect("a thread"))
    });
    let (_other, epoch, new) = new.await.expect("it leads");
    assert!(epoch > old.epoch());
    new.submit(range_job(2, 10)).await.expect("room");
    behind.proxy.set(Mode::Pass);
    let superseded = WriteError::Superseded { current: epoch, own: old.epoch() };
    wait_until("the old leader notices", || old.commit_now(&superseded)).await;
    assert!(old.prune().await.is_err());
    assert_eq!(record_of(&new, id(1)).await.state, JobState::Canceled);
    assert_eq!(behind.database.ask("SELECT count(*), max(seq) FROM events"), "3|3");
}

/// Whether a store says that it is superseded.
trait CommitNow {
    fn commit_now(&self, superseded: &WriteError) -> bool;
}

impl CommitNow for Store {
    fn commit_now(&self, superseded: &WriteError) -> bool {
        self.is_failing() == Some(superseded.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_holds_the_fence_is_ended_by_the_next_leader() {
    let database = Database::new();
    let shared = database.open();
    let parts = lead(&shared);
    // As a leader that stopped half way would: its session has a longer patience than the takeover.
    let sql = "SET search_path = divvy; BEGIN; UPDATE fence SET batch = 1; SELECT pg_sleep(30); COMMIT";
    let mut stuck = Server::shared().psql_command(&database.name, sql);
    let mut stuck = stuck.stderr(std::process::Stdio::null()).spawn().expect("psql is there");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    wait_until("it holds the fence", || database.ask(waiting) == "1").await;
    let mut leadership = shared.leadership();
    leadership.resign(parts.epoch).expect("reachable");
    assert!(acquire_free(&mut *leadership, 2).epoch > parts.epoch);
    assert!(!stuck.wait().expect("it is ours").success());
    assert_eq!(database.ask("SELECT batch FROM fence"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_reach_the_database_is_told_so_in_time() {
    let behind = Behind::new();
    let mut leadership = behind.shared.leadership();
    let (mut term, mut quickest) = (acquire_free(&mut *leadership, 1), Duration::MAX);
    for _ in 0..4 {
        behind.proxy.set(Mode::Hold);
        let since = Instant::now();
        let renewed = leadership.renew(term.epoch);
        assert!(matches!(renewed, Err(LeadershipError::Unavailable(_))), "{renewed:?}");
        quickest = quickest.min(since.elapsed());
        behind.proxy.set(Mode::Pass);
        if quickest < LEASE * 2 {
            break;
        }
        term = acquire_free(&mut *leadership, 1);
    }
    // An operation that is slow by itself is slow each time.
    assert!(quickest < LEASE * 2, "{quickest:?}");
    std::thread::sleep(LEASE);
    let lost = eventually("it is answered", || match leadership.renew(term.epoch) {
        Err(LeadershipError::Unavailable(error)) => Err(error),
        answer => Ok(answer),
    });
    assert!(matches!(lost, Err(LeadershipError::Lost { .. })), "{lost:?}");
}

#[test]
fn a_lease_that_nobody_renews_is_over_though_the_servers_clock_was_set_back() {
    let database = Database::new();
    let (first, second) = (database.open(), database.open());
    let term = acquire_free(&mut *first.leadership(), 1);
    // As an hour less on the clock makes it.
    database.ask("UPDATE lease SET expires_at = expires_at + interval '1 hour'");
    let (mut follower, since) = (second.leadership(), Instant::now());
    let next = loop {
        match acquire(&mut *follower, 2) {
            Acquired::Leads(next) => break next,
            Acquired::Held { expires_in, .. } => assert!(expires_in <= LEASE, "{expires_in:?}"),
        }
        assert!(since.elapsed() < Duration::from_secs(60), "the lease never ends");
    };
    assert!(since.elapsed() > LEASE, "the leader may still have trusted its lease");
    assert!(next.epoch > term.epoch);
    // A lease that is renewed is not over, whatever the clock says.
    database.ask("UPDATE lease SET expires_at = expires_at + interval '1 hour'");
    let (mut leader, mut follower, since) = (follower, first.leadership(), Instant::now());
    let mut renewed_at = since;
    while since.elapsed() < 2 * LEASE {
        let asked_at = Instant::now();
        let answers = (leader.renew(next.epoch), follower.acquire(Uuid::from_u128(1)));
        if renewed_at.elapsed() > LEASE {
            // The machine was too busy to renew the lease in time.
            return;
        }
        renewed_at = asked_at;
        assert!(matches!(answers, (Ok(_), Ok(Acquired::Held { .. }))), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_caller_leaves_is_canceled_at_the_server() {
    let database = Database::new();
    let shared = database.open();
    let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    // The read waits for the lock.
    let mut locker = Server::shared()
        .psql_command(&database.name, "BEGIN; LOCK TABLE divvy.jobs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)");
    let mut locker = locker.spawn().expect("psql is there");
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    wait_until("it is locked", || database.ask(locked) == "1").await;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    for _ in 0..6 {
        let reading = tokio::time::timeout(Duration::from_millis(500), store.jobs(JobFilter::default(), None, 10));
        assert!(reading.await.is_err(), "it waits for the lock");
    }
    wait_until("nothing waits at the server", || database.ask(waiting) == "0").await;
    let _ = locker.kill();
    let _ = locker.wait();
    assert_eq!(
        database.ask(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = '{}'",
            database.name
        )),
        "t"
    );
    assert_eq!(store.jobs(JobFilter::default(), None, 10).await.map(|jobs| jobs.len()), Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_gets_the_jobs_that_are_not_over_however_long_they_take_to_read() {
    let database = Database::new();
    let shared = database.open();
    let store = Arc::new(Store::start(lead(&shared), KEEP_ALL).expect("a thread"));
    store.submit(range_job(1, 10)).await.expect("room");
    // Prepares the statements, which the lock would hold up too.
    assert_eq!(store.unfinished().await.map(|jobs| jobs.len()), Ok(1));
    let (client, connection) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE divvy.jobs").await.expect("locked");
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.unfinished().await }
    });
    // Any other read is over by then.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '15500 ms'";
    let since = Instant::now();
    while !reading.is_finished() && database.ask(waiting) == "0" {
        assert!(since.elapsed() < Duration::from_secs(60), "it is not read at all");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.batch_execute("ROLLBACK").await.expect("unlocked");
    assert_eq!(reading.await.expect("no panic").map(|jobs| jobs.len()), Ok(1));
    driving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_with_a_zero_in_them_are_kept_without_it() {
    let database = Database::new();
    let shared = database.open();
    let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
    store.submit(tasks_job(1, numbers(3))).await.expect("room");
    let (worker, error) = ("w".to_owned(), "broke\0here".to_owned());
    let failed = ChangeKind::TasksFailed { tasks: 0..1, failures: 1, timed_out: None, worker, error: error.clone() };
    store.commit(change(id(1), at(1), failed)).await.expect("room");
    let end = ChangeKind::Ended { state: JobState::Failed, result: None, error: Some(error) };
    store.commit(change(id(1), at(2), end)).await.expect("room");
    assert_eq!(record_of(&store, id(1)).await.error.as_deref(), Some("broke\u{fffd}here"));
    let mut named = range_job(2, 1);
    named.idempotency_key = Some("a\0b".to_owned());
    let refused = store.submit(named).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Refused(_)))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_and_the_leader_that_accept_the_same_jobs_at_once_agree() {
    let database = Database::new();
    let (one, two) = (database.open(), database.open());
    let leader = Arc::new(Store::start(lead(&one), KEEP_ALL).expect("a thread"));
    let follower = Arc::new(Store::follow(two.follow().expect("reachable"), KEEP_ALL).expect("a thread"));
    let mut submissions = Vec::new();
    for number in 0..60 {
        for store in [&leader, &follower] {
            let (store, mut new) = (store.clone(), range_job(number, 10));
            new.idempotency_key = Some(format!("key-{number}"));
            submissions.push(tokio::spawn(async move { store.submit(new).await.expect("room") }));
        }
    }
    let mut new = 0;
    for submission in submissions {
        new += usize::from(submission.await.expect("all is well") == Submission::New);
    }
    assert_eq!(new, 60);
    assert_eq!(database.ask("SELECT count(*), max(seq) FROM events"), "60|60");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_waits_for_names_of_another_one_that_waits_for_its_own_is_written() {
    let database = Database::new();
    // Time to make the deadlock, less than a writer waits for a lock.
    database.ask(&format!("ALTER DATABASE {} SET deadlock_timeout = '3s'", database.name));
    let shared = database.open();
    let mut submitter = shared.follow().expect("reachable").submitter;
    let batch = |id, numbers: &[u128]| {
        let entries = numbers.iter().map(|number| Entry::Submission(Arc::new(range_job(*number, 10)))).collect();
        Batch { id, epoch: Epoch::default(), entries }
    };
    submitter.apply(&batch(1, &[1])).expect("room");
    let (client, connection) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    // As another coordinator that stores the same two jobs the other way around.
    let copy = |number: u128| {
        let names = format!("jsonb_build_object('id', '{}', 'key', -{number})", id(number));
        format!("INSERT INTO divvy.jobs SELECT (jsonb_populate_record(job, {names})).* FROM divvy.jobs AS job LIMIT 1")
    };
    // This session looks for no deadlock: the server ends the batch.
    let patient = "SET deadlock_timeout = '10min'";
    client.batch_execute(&format!("{patient}; BEGIN; {}", copy(3))).await.expect("stored");
    let applying = tokio::task::spawn_blocking(move || submitter.apply(&batch(2, &[2, 3])));
    let since = Instant::now();
    // Asked by the same session, which takes no time: the batch looks for a deadlock once, so long after it began to wait.
    let waiting = "SELECT pg_stat_clear_snapshot()::text || count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while client.query_one(waiting, &[]).await.expect("an answer").get::<_, &str>(0) == "0" {
        assert!(since.elapsed() < Duration::from_secs(40), "the batch never waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.batch_execute(&copy(2)).await.expect("the batch is rolled back");
    client.batch_execute("ROLLBACK").await.expect("rolled back");
    let applied = applying.await.expect("no panic").expect("written once nothing is in its way");
    assert_eq!(applied.answers, [store::Answer::Submitted(Submission::New), store::Answer::Submitted(Submission::New)]);
    assert_eq!(database.ask("SELECT count(*), max(seq) FROM events"), "3|3");
    driving.abort();
}

#[test]
fn a_batch_of_another_epoch_is_refused_by_number_as_well() {
    let database = Database::new();
    let shared = database.open();
    let mut parts = lead(&shared);
    let submission = |number| Entry::Submission(Arc::new(range_job(number, 10)));
    let batch = Batch { id: 1, epoch: parts.epoch, entries: vec![submission(1)] };
    parts.backend.apply(&batch).expect("it leads");
    // Another connection of the same leader, as one that was made again.
    let mut again = shared.lead(parts.epoch).expect("it leads");
    assert_eq!(again.last_batch, 1);
    let refused = again.backend.apply(&batch);
    assert!(matches!(refused, Err(store::backend::BatchError::Deterministic { .. })), "{refused:?}");
    let next = Batch { id: 2, epoch: parts.epoch, entries: vec![submission(2)] };
    again.backend.apply(&next).expect("it leads");
}
