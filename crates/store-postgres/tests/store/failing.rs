//! The database away, answers lost, leaders that wake up late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::JobState;
use store::shared::{Acquired, LEASE};
use store::{
    Batch, ChangeKind, Entry, Epoch, JobFilter, LeadershipError, ReadError, Shared, Store, Submission, SubmitError,
    WriteError,
};
use store_postgres::PostgresStore;
use tempfile::TempDir;
use test_postgres::{Mode, Proxy, Server};
use uuid::Uuid;

use crate::helpers::*;

/// A database behind a proxy.
struct Behind {
    database: Database,
    proxy: Proxy,
    shared: PostgresStore,
}

impl Behind {
    fn new() -> Self {
        let database = Database::new();
        let proxy = Proxy::start(Server::shared().address());
        let shared = open(&Server::url_by(proxy.address(), &database.name), &database.results);
        Self { database, proxy, shared }
    }

    fn leader(&self) -> Store {
        Store::start(lead(&self.shared), KEEP_ALL).expect("a thread")
    }

    fn follower(&self) -> Store {
        Store::follow(self.shared.follow().expect("reachable"), KEEP_ALL).expect("a thread")
    }
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(40), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

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
            assert!(since.elapsed() < Duration::from_secs(20), "it is never found out");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    wait_until("all is committed", || store.backlog() == 0).await;
    let found = record_of(&store, id(1)).await;
    assert_eq!((found.value, found.attempts, found.tasks_done), (10, 10, 10));
    assert_eq!(behind.database.ask("SELECT count(*), max(seq) FROM events"), "11|11");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_and_started_again_has_all_that_was_acknowledged() {
    let server = Server::start(&[]);
    let results = TempDir::new().expect("there is room");
    let shared = open(&server.url("postgres"), &results);
    let store = Arc::new(Store::start(lead(&shared), KEEP_ALL).expect("a thread"));
    store.submit(range_job(1, 1000)).await.expect("room");
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
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert_eq!(record_of(&store, id(1)).await.value, round + 1);
        let mut latest = shared.follow().expect("it is there").latest_event.subscribe();
        latest.borrow_and_update();
        store.submit(range_job(round + 2, 10)).await.expect("it is there");
        latest.changed().await.expect("it is told of the event");
    }
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
    let since = Instant::now();
    let acquired = leadership.acquire(Uuid::from_u128(2)).expect("reachable");
    assert!(matches!(acquired, Acquired::Leads(term) if term.epoch > parts.epoch), "{acquired:?}");
    assert!(since.elapsed() < LEASE, "{:?}", since.elapsed());
    assert!(!stuck.wait().expect("it is ours").success());
    assert_eq!(database.ask("SELECT batch FROM fence"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_reach_the_database_is_told_so_in_time() {
    let behind = Behind::new();
    let mut leadership = behind.shared.leadership();
    let Acquired::Leads(term) = leadership.acquire(Uuid::from_u128(1)).expect("reachable") else {
        panic!("it is free")
    };
    behind.proxy.set(Mode::Hold);
    let since = Instant::now();
    let renewed = leadership.renew(term.epoch);
    assert!(matches!(renewed, Err(LeadershipError::Unavailable(_))), "{renewed:?}");
    assert!(since.elapsed() < LEASE * 2, "{:?}", since.elapsed());
    behind.proxy.set(Mode::Pass);
    std::thread::sleep(LEASE);
    let renewed = leadership.renew(term.epoch);
    assert!(matches!(renewed, Err(LeadershipError::Lost { .. })), "{renewed:?}");
}

#[test]
fn a_lease_that_nobody_renews_is_over_though_the_servers_clock_was_set_back() {
    let database = Database::new();
    let (first, second) = (database.open(), database.open());
    let term = match first.leadership().acquire(Uuid::from_u128(1)) {
        Ok(Acquired::Leads(term)) => term,
        other => panic!("{other:?}"),
    };
    // As an hour less on the clock makes it.
    database.ask("UPDATE lease SET expires_at = expires_at + interval '1 hour'");
    let (mut follower, since) = (second.leadership(), Instant::now());
    let next = loop {
        match follower.acquire(Uuid::from_u128(2)).expect("the database is there") {
            Acquired::Leads(next) => break next,
            Acquired::Held { expires_in, .. } => assert!(expires_in <= LEASE, "{expires_in:?}"),
        }
        assert!(since.elapsed() < Duration::from_secs(10), "the lease never ends");
    };
    assert!(since.elapsed() > LEASE, "the leader may still have trusted its lease");
    assert!(next.epoch > term.epoch);
    // A lease that is renewed is not over, whatever the clock says.
    database.ask("UPDATE lease SET expires_at = expires_at + interval '1 hour'");
    let (mut leader, mut follower, since) = (follower, first.leadership(), Instant::now());
    while since.elapsed() < 2 * LEASE {
        leader.renew(next.epoch).expect("it leads");
        assert!(matches!(follower.acquire(Uuid::from_u128(1)), Ok(Acquired::Held { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_connections_taken_the_leader_goes_on() {
    let server = Server::start(&["max_connections=14", "superuser_reserved_connections=1"]);
    // Not a superuser: the last connection is not for it.
    server.psql("postgres", "CREATE ROLE app LOGIN");
    server.psql("postgres", "CREATE DATABASE app OWNER app");
    let results = TempDir::new().expect("there is room");
    let url = format!("postgres://app@{}/app?sslmode=disable", server.address());
    let shared = open(&url, &results);
    let mut leadership = shared.leadership();
    let Acquired::Leads(term) = leadership.acquire(Uuid::from_u128(1)).expect("reachable") else {
        panic!("it is free")
    };
    let store = Store::start(shared.lead(term.epoch).expect("it leads"), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    let mut takers = Vec::new();
    let mut another = server.psql_command("app", "SELECT 1");
    another.args(["-U", "app"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let since = Instant::now();
    while another.status().expect("psql is there").success() {
        assert!(since.elapsed() < Duration::from_secs(60), "there are connections left");
        let mut taker = server.psql_command("app", "SELECT pg_sleep(60)");
        taker.args(["-U", "app"]).stderr(std::process::Stdio::null());
        takers.push(taker.spawn().expect("psql is there"));
        // All of them may take longer to start than a lease lasts.
        assert_eq!(leadership.renew(term.epoch).map(|renewed| renewed.epoch), Ok(term.epoch));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for round in 0..10 {
        assert_eq!(leadership.renew(term.epoch).map(|renewed| renewed.epoch), Ok(term.epoch));
        store.commit(completed(id(1), round..round + 1, 1)).await.expect("its connection is its own");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for mut taker in takers {
        let _ = taker.kill();
        let _ = taker.wait();
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
    let failed = ChangeKind::TasksFailed { tasks: 0..1, failures: 1, worker, error: error.clone() };
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
