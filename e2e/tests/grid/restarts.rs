//! A coordinator that is stopped and started again goes on with its jobs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use model::{JobId, JobKind, JobOptions, JobState};
use serde_json::Value;
use serde_json::value::RawValue;
use store::{Change, ChangeKind, NewJob, ResultBody, Retention};
use store_sqlite::StoreSettings;
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::helpers::{Conduct, Coordinator, Order, Puller, Signal, Worker, eventually, get, heavy, published_sum};

/// The promise of the coordinator's drain.
const STOP_LIMIT: Duration = Duration::from_secs(15);

const STOPS: usize = 3;

const WAITING_JOBS: u128 = 100_000;

/// Seconds of CPU time until the coordinator is ready with [`WAITING_JOBS`]. The time on the clock says less, since other tests
/// run beside this one. Unoptimised code takes several times as long, and a slow machine several times that: there the limit
/// only finds a start whose cost grows faster than the jobs.
const READY_CPU_LIMIT: f64 = if cfg!(debug_assertions) { 30.0 } else { 1.0 };

#[test]
fn stopped_coordinator_ends_in_time_and_the_next_one_repeats_nothing_that_was_done() {
    let _turn = heavy();
    let settings = [("DIVVY_CHUNK_SIZE", "1000000"), ("DIVVY_LEASE_TARGET_MS", "20")];
    let mut coordinator = Coordinator::start_to_stay(&settings);
    let _workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    let client = coordinator.client();
    let orders = [Order::sum(1, 10), Order::sleep(400, 0.02), Order::squares(&(0..3000).collect::<Vec<_>>())];
    let jobs: Vec<_> = orders.iter().map(|order| coordinator.submit(order)).collect();
    let done = || jobs.iter().map(|id| client.job(id)["tasks"]["succeeded"].as_u64()).collect::<Vec<_>>();
    let acknowledged: Mutex<BTreeMap<u64, u32>> = Mutex::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let puller = Puller { coordinator: coordinator.internal, name: "puller".to_owned() };
        scope.spawn(|| pull(puller, &acknowledged, &is_over));
        let results = scope.spawn(|| {
            for stop in 1..=STOPS {
                // The last of them is over when its client has claimed 300 times.
                let goal = 600 * stop as u64;
                eventually("the jobs go on", || (done()[2] >= Some(goal)).then_some(()));
                let before = done();
                coordinator.signal(Signal::TERM);
                let told_at = Instant::now();
                assert_eq!(coordinator.exit_status().code(), Some(0));
                assert!(told_at.elapsed() < STOP_LIMIT, "{:?}", told_at.elapsed());
                coordinator.start_again(&settings);
                let after = done();
                assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?}, {after:?}");
            }
            jobs.iter().map(|id| eventually("its result", || client.result(id))).collect::<Vec<_>>()
        });
        let results = results.join();
        is_over.store(true, Ordering::Relaxed);
        assert!(results.expect("every job has a result").iter().eq(orders.iter().map(|order| &order.result)));
    });
    let acknowledged = acknowledged.into_inner().expect("no panic");
    assert!(acknowledged.values().all(|times| *times == 1), "{acknowledged:?}");
    assert!(acknowledged.len() >= 2900, "only {} tasks were acknowledged", acknowledged.len());
}

/// Fetches and completes, and looks that nothing comes again that was acknowledged.
fn pull(puller: Puller, acknowledged: &Mutex<BTreeMap<u64, u32>>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let Some(claim) = puller.claim(10) else {
            // Nobody is there, or there is nothing to do: not as fast as the machine allows.
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let again: Vec<_> = {
            let acknowledged = acknowledged.lock().expect("no panic");
            claim.tasks.iter().filter(|(index, _)| acknowledged.contains_key(index)).copied().collect()
        };
        assert!(again.is_empty(), "done, and given out again: {again:?}");
        let counts = eventually("an answer", || puller.end(&claim, Conduct::Complete));
        if counts {
            let mut acknowledged = acknowledged.lock().expect("no panic");
            claim.tasks.iter().for_each(|(index, _)| *acknowledged.entry(*index).or_default() += 1);
        }
    }
}

#[test]
fn coordinator_is_ready_at_once_with_a_hundred_thousand_waiting_jobs() {
    let _turn = heavy();
    let data_dir = Arc::new(TempDir::new().expect("a directory"));
    store_jobs(&data_dir);
    // The first one of a run is built before it starts.
    Coordinator::start_on(Arc::clone(&data_dir), &[]).kill();
    let started_at = Instant::now();
    let coordinator = Coordinator::start_on(data_dir, &[]);
    assert_eq!(get(coordinator.public, "/readyz").status, 200);
    let cpu = coordinator.metric("process_cpu_seconds_total");
    eprintln!("ready with {WAITING_JOBS} waiting jobs after {} ms, {cpu} s of CPU", started_at.elapsed().as_millis());
    let stats = coordinator.client().stats();
    assert_eq!(stats["jobs"]["queued"], u64::try_from(WAITING_JOBS).expect("few"), "{stats}");
    assert!(cpu > 0.0 && cpu < READY_CPU_LIMIT, "{cpu} s");
    let _worker = Worker::join(&coordinator, &[]);
    let first = Uuid::from_u128(1).to_string();
    let result = eventually("the first of them is done", || coordinator.client().result(&first));
    assert_eq!(result["sum"], published_sum(6).to_string());
}

#[test]
fn coordinator_that_starts_beside_its_predecessor_waits_until_that_one_has_stopped() {
    let mut first = Coordinator::start(&[("DIVVY_DRAIN_TIMEOUT_MS", "500")]);
    let client = first.client();
    let job = first.submit(&Order::squares(&[1, 2, 3]));
    // Its drain lasts as long as this request.
    let _held = first.ask_sum(1, 1000);
    eventually("it waits", || (first.metric("divvy_wanted_slots") > 0.0).then_some(()));
    let second = Coordinator::launch_on(first.shared_data_dir(), &[]);
    second.logged("waiting for another coordinator to leave the data directory");
    assert!(client.stats().is_object(), "the first one serves on");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_status().code(), Some(0));
    let second = Coordinator::of(second, first.shared_data_dir());
    let jobs = second.client().jobs();
    assert_eq!(jobs.iter().map(|job| job["id"].as_str()).collect::<Vec<_>>(), [Some(job.as_str())]);
}

#[test]
fn coordinator_that_waits_for_its_predecessor_stops_when_it_is_told_to_and_gives_up_in_time() {
    let first = Coordinator::start(&[]);
    let mut second = Coordinator::launch_on(first.shared_data_dir(), &[("DIVVY_LOCK_TIMEOUT_MS", "600000")]);
    second.logged("waiting for another coordinator to leave the data directory");
    second.signal(Signal::TERM);
    assert_eq!(second.exit_status().code(), Some(0));
    let mut third = Coordinator::launch_on(first.shared_data_dir(), &[("DIVVY_LOCK_TIMEOUT_MS", "1")]);
    assert_eq!(third.exit_status().code(), Some(1));
    let is_said = || third.log().iter().any(|line| line.contains("is in use by another process")).then_some(());
    eventually("it says why", is_said);
    assert_eq!(get(first.public, "/readyz").status, 200);
}

/// Puts jobs where a coordinator finds them.
fn store_jobs(data_dir: &TempDir) {
    let settings =
        StoreSettings { data_dir: data_dir.path().to_owned(), results_url: None, retention: Retention::KEEP_ALL };
    let store = Arc::new(store_sqlite::open(settings).expect("a new directory"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut submissions = JoinSet::new();
        for number in 1..=WAITING_JOBS {
            let store = Arc::clone(&store);
            submissions.spawn(async move { store.submit(job(number)).await });
        }
        submissions.join_all().await.into_iter().for_each(|submitted| {
            submitted.expect("room");
        });
    });
    drop(runtime);
    Arc::into_inner(store).expect("nobody else has it").close().expect("room");
}

/// The sum of the primes up to a million, as one task.
fn job(number: u128) -> NewJob {
    let after = Duration::from_micros(u64::try_from(number).expect("few"));
    NewJob {
        id: JobId(Uuid::from_u128(number)),
        tasks: 1,
        kind: JobKind::SUM_OF_PRIMES,
        is_individual: false,
        payloads: model::Payloads::default(),
        options: JobOptions::default(),
        params: RawValue::from_string(r#"{"a":1,"b":1000000}"#.to_owned()).expect("JSON"),
        fingerprint: [0; 32],
        idempotency_key: None,
        submitted_at: Timestamp::from_second(1_700_000_000).expect("a time") + after,
    }
}

#[test]
fn jobs_of_a_coordinator_whose_clock_was_ahead_stay_behind_those_that_come_later() {
    let data_dir = Arc::new(TempDir::new().expect("a directory"));
    let ahead = Timestamp::now() + SignedDuration::from_mins(50);
    let json = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
    let old = NewJob {
        id: JobId(Uuid::now_v7()),
        kind: JobKind::COUNT_PRIMES,
        is_individual: false,
        params: json(r#"{"a":1,"b":10}"#),
        tasks: 1,
        payloads: model::Payloads::default(),
        options: JobOptions { output: Some("counts".to_owned()), ..JobOptions::default() },
        fingerprint: [1; 32],
        idempotency_key: None,
        submitted_at: ahead,
    };
    let (id, completed) =
        (old.id, ChangeKind::Completed { tasks: 0..1, value: 4, busy: Duration::from_millis(1), outcome: None });
    let result = Some(ResultBody::Inline(json(r#"{"count":"old"}"#)));
    let ended = ChangeKind::Ended { state: JobState::Succeeded, result, error: None };
    let settings =
        StoreSettings { data_dir: data_dir.path().to_owned(), results_url: None, retention: Retention::KEEP_ALL };
    let store = store_sqlite::open(settings).expect("a new store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        store.submit(old).await.expect("room");
        for kind in [completed, ended] {
            store.commit(Change { job: id, at: ahead, kind }).await.expect("room");
        }
    });
    store.close().expect("committed");

    let coordinator = Coordinator::start_on(data_dir, &[]);
    let _worker = Worker::join(&coordinator, &[]);
    let mut order = Order::count(2, 6);
    let body = r#"{"kind":"count-primes","params":{"a":101,"b":1000000,"algorithm":"sieve"},"output":"counts"}"#;
    order.body = body.to_owned();
    let new = coordinator.submit(&order);
    let client = coordinator.client();
    assert_eq!(eventually("its result", || client.result(&new)), order.result);
    assert_eq!(
        get(coordinator.public, "/v1/results/counts").json(),
        order.result,
        "the newest is the one that came last"
    );
    let listed: Vec<_> = client.jobs().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(listed, [Value::from(new.as_str()), Value::from(id.0.to_string())]);
    let job = client.job(&new);
    let time = |field: &str| job[field].as_str().and_then(|text| text.parse::<Timestamp>().ok()).expect("a time");
    assert!(ahead < time("submitted_at") && time("submitted_at") <= time("started_at"));
    assert!(time("started_at") <= time("finished_at"));
}
