//! The coordinator killed over and over at random moments: acknowledged changes are there, and nothing counts twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use model::{EventKind, Grain, JobEvent, JobId};
use store::statistics::{Query, Statistics};
use store::{AttemptEnd, Retention, Store};
use store_sqlite::StoreSettings;
use uuid::Uuid;

use crate::helpers::{
    Conduct, Coordinator, Events, JobClient, Order, Puller, Signal, Tasks, Worker, eventually, get, heavy, within,
};

const KILLS: u32 = 200;

/// Kills of coordinators for each kill of a worker.
const KILLS_PER_WORKER: u32 = 20;

/// Kills of coordinators for each kill that does not wait for the coordinator's first answer.
const KILLS_PER_EARLY_KILL: u32 = 4;

/// Longest life of a coordinator; some coordinators are killed as soon as they have started.
const LONGEST_LIFE: Duration = Duration::from_millis(700);

/// Small tasks and small leases, so that every crash hits many; leases that are forgotten come back soon, and a coordinator
/// waits a part of its life only for workers that hold leases from before.
const SETTINGS: [(&str, &str); 4] = [
    ("DIVVY_CHUNK_SIZE", "250000"),
    ("DIVVY_LEASE_TARGET_MS", "20"),
    ("DIVVY_LEASE_TIMEOUT_MS", "1000"),
    ("DIVVY_RECOVERY_MS", "100"),
];

const CLIENTS: u64 = 3;
const PULLERS: u64 = 2;

/// Jobs of one client that are not over.
const UNFINISHED: usize = 4;

/// The longest that a job may take while its coordinator dies three times a second.
const STORM_PATIENCE: Duration = Duration::from_secs(240);

/// Variable with the seed of an earlier run; the moments at which things happen are never quite the same.
const SEED: &str = "GRID_TEST_SEED";

/// The state that the threads of the test share.
struct Storm {
    client: JobClient,
    internal: SocketAddr,
    /// No more jobs, please.
    is_ending: AtomicBool,
    /// Every job is over.
    is_over: AtomicBool,
    /// Requests that nobody answered.
    unanswered: AtomicU64,
    /// The events that a client sees which comes back after every crash.
    seen: Mutex<Vec<JobEvent>>,
}

/// Lets the threads end however the one that directs them ends.
struct End<'a>(&'a Storm);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_crash_loses_an_acknowledged_job_or_counts_anything_twice() {
    let _turn = heavy();
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{SEED}={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut coordinator = Coordinator::start_to_stay(&SETTINGS);
    let mut workers: VecDeque<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    let storm = Storm {
        client: coordinator.client(),
        internal: coordinator.internal,
        is_ending: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        unanswered: AtomicU64::new(0),
        seen: Mutex::default(),
    };
    let accepted = thread::scope(|scope| {
        let storm = &storm;
        let end = End(storm);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let rng = rng.fork();
                scope.spawn(move || submit_until_the_end(storm, number, rng))
            })
            .collect();
        for number in 0..PULLERS {
            let (name, rng) = (format!("puller-{number}"), rng.fork());
            scope.spawn(move || pull_until_all_is_over(storm, name, rng));
        }
        scope.spawn(move || follow_until_all_is_over(storm));

        let taken_up = kill_again_and_again(&mut coordinator, &mut workers, &mut rng);
        assert!(taken_up > KILLS / 2, "only {taken_up} of {KILLS} coordinators found jobs to go on with");
        storm.is_ending.store(true, Ordering::Relaxed);
        let accepted: BTreeMap<_, _> =
            clients.into_iter().flat_map(|client| client.join().expect("every job has its result")).collect();
        check_as_a_client(storm.client, &accepted);
        eventually("the end of every job is seen", || (seen_ends(storm) >= accepted.len()).then_some(()));
        drop(end);
        coordinator.signal(Signal::TERM);
        assert_eq!(coordinator.exit_status().code(), Some(0));
        accepted
    });
    let unanswered = storm.unanswered.load(Ordering::Relaxed);
    eprintln!("{} jobs accepted, {unanswered} requests without an answer", accepted.len());
    assert!(unanswered > 10, "only {unanswered} requests met a crash");
    check_store(coordinator.data_dir(), &accepted, &storm.seen.into_inner().expect("no panic"));
}

/// Returns the number of killed coordinators that had gone on with jobs of the one before.
fn kill_again_and_again(coordinator: &mut Coordinator, workers: &mut VecDeque<Worker>, rng: &mut Rng) -> u32 {
    let mut taken_up = 0;
    for kill in 1..=KILLS {
        // Some coordinators are killed while they start. The others answer first, and so have taken up their jobs.
        if kill % KILLS_PER_EARLY_KILL != 0 {
            get(coordinator.public, "/readyz");
        }
        // The test is about this time.
        sleep(LONGEST_LIFE.mul_f64(rng.f64().powi(2)));
        let log = coordinator.log();
        taken_up += u32::from(log.iter().any(|line| line.contains("going on with the jobs that are not over")));
        let refused = log.iter().find(|line| line.contains("was refused"));
        assert_eq!(refused, None, "the store and the scheduler disagree");
        coordinator.kill();
        if kill % KILLS_PER_WORKER == 0 {
            workers.pop_front().expect("two workers").kill();
            workers.push_back(Worker::start(coordinator.internal, &[]));
        }
        coordinator.start_again(&SETTINGS);
    }
    taken_up
}

/// Submits jobs, a few at a time, and checks their results; returns the acknowledged ids.
fn submit_until_the_end(storm: &Storm, client: u64, mut rng: Rng) -> Vec<(JobId, Order)> {
    let (mut accepted, mut unfinished) = (Vec::new(), VecDeque::new());
    let check = |(id, order): (String, Order)| {
        let result = within(STORM_PATIENCE, &format!("the result of {id}: {}", order.body), || {
            let result = storm.client.result(&id);
            storm.unanswered.fetch_add(u64::from(result.is_none()), Ordering::Relaxed);
            result
        });
        assert_eq!(result, order.result, "{id}: {}", order.body);
    };
    while !storm.is_ending.load(Ordering::Relaxed) {
        let order = random_order(&mut rng);
        let id = if rng.bool() {
            let id = Uuid::from_u128(rng.u128(..)).to_string();
            storm.client.put(&order, &id);
            id
        } else {
            let key = format!("{client}-{}", accepted.len());
            storm.client.submit(&order, &key)
        };
        accepted.push((JobId(id.parse().expect("a UUID")), order.clone()));
        unfinished.push_back((id, order));
        if unfinished.len() > UNFINISHED {
            unfinished.pop_front().into_iter().for_each(check);
        }
    }
    unfinished.into_iter().for_each(check);
    accepted
}

fn random_order(rng: &mut Rng) -> Order {
    let mut powers = || {
        let end = rng.u32(2..=9);
        (rng.u32(1..end), end)
    };
    let (start, end) = powers();
    match rng.u32(0..5) {
        0 => Order::sum(start, end),
        1 => Order::count(start, end),
        2 => Order::sum_by("combinatorial", start, end),
        3 => Order::sleep(rng.u64(1..=60), 0.01),
        _ => Order::squares(&(0..rng.u64(1..=100)).map(|_| rng.u64(..1_000_000)).collect::<Vec<_>>()),
    }
}

/// Most tasks are done, some fail, and some are forgotten.
fn pull_until_all_is_over(storm: &Storm, name: String, mut rng: Rng) {
    let puller = Puller { coordinator: storm.internal, name };
    while !storm.is_over.load(Ordering::Relaxed) {
        let Some(claim) = puller.claim(rng.u32(1..=8)) else {
            // Nobody is there, or there is nothing to do: not as fast as the machine allows.
            sleep(Duration::from_millis(5));
            continue;
        };
        let conduct = match rng.u32(0..30) {
            0 => Conduct::Forget,
            1 => Conduct::Fail,
            _ => Conduct::Complete,
        };
        while puller.end(&claim, conduct).is_none() && !storm.is_over.load(Ordering::Relaxed) {
            storm.unanswered.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(5));
        }
    }
}

fn follow_until_all_is_over(storm: &Storm) {
    let mut after = 0;
    while !storm.is_over.load(Ordering::Relaxed) {
        let Some(events) = Events::follow(storm.client.0, after) else {
            sleep(Duration::from_millis(5));
            continue;
        };
        for event in events {
            after = event.seq;
            storm.seen.lock().expect("no panic").push(event);
        }
    }
}

fn seen_ends(storm: &Storm) -> usize {
    storm.seen.lock().expect("no panic").iter().filter(|event| event.kind.is_end()).count()
}

/// Checks that the jobs are exactly the acknowledged ones, and that each of their tasks is done once.
fn check_as_a_client(client: JobClient, accepted: &BTreeMap<JobId, Order>) {
    let jobs = client.jobs();
    let ids: BTreeSet<JobId> =
        jobs.iter().map(|job| job["id"].as_str().expect("an id").parse().map(JobId).expect("a UUID")).collect();
    assert_eq!(jobs.len(), ids.len());
    assert!(ids.iter().eq(accepted.keys()), "{ids:?} instead of {:?}", accepted.keys());
    for job in jobs {
        let tasks = &job["tasks"];
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(tasks["succeeded"], tasks["total"], "{job}");
        for other in ["pending", "running", "failed"] {
            assert_eq!(tasks[other], 0, "{job}");
        }
    }
}

/// Checks the store: every individual task has succeeded exactly once, and the events have no gap.
fn check_store(data_dir: &Path, accepted: &BTreeMap<JobId, Order>, seen: &[JobEvent]) {
    let settings = StoreSettings { data_dir: data_dir.to_owned(), results_url: None, retention: Retention::KEEP_ALL };
    let store = store_sqlite::open(settings).expect("the coordinator has closed it");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (id, order) in accepted {
        let Tasks::Fetched(tasks) = order.tasks else { continue };
        let attempts = runtime.block_on(store.outcomes(*id, 0, usize::MAX)).expect("readable");
        let mut done: Vec<_> = attempts
            .into_iter()
            .filter(|attempt| matches!(attempt.end, AttemptEnd::Completed { .. }))
            .flat_map(|attempt| attempt.tasks)
            .collect();
        done.sort_unstable();
        assert!(done.iter().copied().eq(0..tasks), "job {id} of {tasks} tasks: {done:?}");
    }
    let events = runtime.block_on(store.events(0, None, usize::MAX)).expect("readable");
    assert!(events.iter().map(|event| event.seq).eq(1..=events.len() as u64), "the numbers have a gap");
    assert!(events == seen, "a client that came back after every crash has seen other events");
    let mut by_job: BTreeMap<JobId, Vec<&JobEvent>> = BTreeMap::new();
    events.iter().for_each(|event| by_job.entry(event.job).or_default().push(event));
    assert!(by_job.keys().eq(accepted.keys()));
    by_job.values().for_each(|events| check_life(events));
    runtime.block_on(check_statistics(&store, &events));
}

/// The figures are those that the events count together.
async fn check_statistics(store: &Store, events: &[JobEvent]) {
    let mut counted = Statistics::default();
    events.iter().for_each(|event| counted.count(event));
    for grain in Grain::STORED {
        let query = Query { grain, starts: Timestamp::MIN..Timestamp::MAX, kind: None };
        let found = store.periods(query.clone(), None, 100_000).await.expect("readable");
        assert!(!found.is_empty());
        assert_eq!(found, counted.periods(&query, None, usize::MAX), "{grain}");
        let found = store.task_starts(query.clone(), None, 100_000).await.expect("readable");
        assert_eq!(found, counted.tasks(&query, None, usize::MAX), "{grain}");
    }
}

/// Submitted, started, some progress, and one end.
fn check_life(events: &[&JobEvent]) {
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let is_life = match kinds.as_slice() {
        [EventKind::Submitted, EventKind::Started, progress @ .., EventKind::Succeeded] => {
            progress.iter().all(|kind| *kind == EventKind::Progress)
        }
        _ => false,
    };
    assert!(is_life, "{kinds:?}");
    assert!(events.windows(2).all(|pair| pair[0].tasks_done <= pair[1].tasks_done), "{events:?}");
    let last = events.last().expect("it has an end");
    assert_eq!(last.tasks_done, last.tasks_total);
}
