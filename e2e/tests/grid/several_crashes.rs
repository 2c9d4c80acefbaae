//! Several coordinators killed over and over at random moments while jobs are submitted and run: every acknowledged job is
//! there, every result is exact, nothing counts twice, and events have no gap.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use fastrand::Rng;
use model::{EventKind, JobEvent};

use crate::helpers::{Events, Group, JobClient, Order, Signal, all_events, eventually, heavy, try_request, within};

/// Variable with the number of kills; the long run has 200.
const KILLS: &str = "GRID_TEST_COORDINATOR_KILLS";
const FEW_KILLS: u32 = 12;

/// Variable with the seed of an earlier run; the moments at which things happen are never quite the same.
const SEED: &str = "GRID_TEST_SEED";

const COORDINATORS: usize = 3;
const CLIENTS: u64 = 2;

/// No coordinator is left alone for longer.
const LONGEST_PEACE: Duration = Duration::from_millis(1_500);

/// Longer than a lease lasts.
const HANG: Duration = Duration::from_millis(2_500);

/// Small tasks and small leases, so that every crash meets many.
const SETTINGS: [(&str, &str); 3] =
    [("DIVVY_CHUNK_SIZE", "250000"), ("DIVVY_LEASE_TARGET_MS", "20"), ("DIVVY_LEASE_TIMEOUT_MS", "2000")];

/// The longest that a job may take while coordinators die.
const STORM_PATIENCE: Duration = Duration::from_secs(240);

/// The state that the threads share.
struct Storm {
    coordinators: Vec<SocketAddr>,
    /// No more jobs, please.
    is_ending: AtomicBool,
    /// Every job is over.
    is_over: AtomicBool,
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

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_death_of_a_coordinator_loses_an_acknowledged_job_or_counts_anything_twice() {
    let _turn = heavy();
    let seed = variable(SEED).unwrap_or_else(|| fastrand::u64(..));
    let kills = variable(KILLS).unwrap_or(FEW_KILLS);
    eprintln!("{SEED}={seed} {KILLS}={kills}");
    let mut rng = Rng::with_seed(seed);
    let mut group = Group::start(COORDINATORS, &SETTINGS);
    let _workers = [group.worker(&[("DIVVY_SLOTS", "2")]), group.worker(&[])];
    let storm = Storm {
        coordinators: group.coordinators.iter().map(|coordinator| coordinator.public).collect(),
        is_ending: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        seen: Mutex::default(),
    };
    let accepted = scope(|scope| {
        let (storm, end) = (&storm, End(&storm));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let rng = rng.fork();
                scope.spawn(move || submit_until_the_end(storm, number, rng))
            })
            .collect();
        let followers_rng = rng.fork();
        scope.spawn(move || follow_until_all_is_over(storm, followers_rng));
        for kill in 0..kills {
            sleep(LONGEST_PEACE.mul_f64(rng.f64()));
            strike(&mut group, &mut rng, kill);
        }
        storm.is_ending.store(true, Ordering::Relaxed);
        let mut accepted: BTreeMap<String, Order> =
            clients.into_iter().flat_map(|client| client.join().expect("every job has its result")).collect();
        eventually("the end of every job is seen", || (seen_ends(storm) >= accepted.len()).then_some(()));
        drop(end);
        // Another event, with which the thread that follows them ends.
        let (client, last) = (JobClient(storm.coordinators[0]), Order::sleep(1, 0.0));
        let id = client.submit(&last, "last");
        eventually("its result", || client.result(&id));
        accepted.insert(id, last);
        accepted
    });
    eprintln!("{} jobs accepted", accepted.len());
    check(&group, &storm, &accepted);
}

/// Kills, stops or halts a coordinator, which then comes back.
fn strike(group: &mut Group, rng: &mut Rng, kill: u32) {
    let leader = group.leader();
    // The leader two times of three.
    let victim = if kill % 3 == 2 { rng.usize(..COORDINATORS) } else { leader };
    match rng.u32(..4) {
        0 => {
            group.coordinators[victim].signal(Signal::STOP);
            sleep(HANG);
            group.coordinators[victim].signal(Signal::CONT);
        }
        1 => {
            group.coordinators[victim].signal(Signal::TERM);
            assert_eq!(group.coordinators[victim].exit_status().code(), Some(0));
            group.start_again(victim);
        }
        _ => {
            group.coordinators[victim].kill();
            group.start_again(victim);
        }
    }
}

/// Submits jobs one after another, each at any coordinator, and waits for each result.
fn submit_until_the_end(storm: &Storm, client: u64, mut rng: Rng) -> Vec<(String, Order)> {
    let mut accepted = Vec::new();
    while !storm.is_ending.load(Ordering::Relaxed) {
        let order = match rng.u32(..3) {
            0 => Order::sum(1, rng.u32(6..=7)),
            1 => Order::count(2, rng.u32(6..=7)),
            _ => Order::sleep(rng.u64(1..=6), 0.3),
        };
        let key = format!("{client}-{}", accepted.len());
        let id = within(STORM_PATIENCE, "a job is acknowledged", || submit(storm, &order, &key, &mut rng));
        let result = within(STORM_PATIENCE, "a job has its result", || result_of(storm, &id, &mut rng));
        assert_eq!(result, order.result, "job {id}");
        accepted.push((id, order));
    }
    accepted
}

fn any(storm: &Storm, rng: &mut Rng) -> SocketAddr {
    storm.coordinators[rng.usize(..storm.coordinators.len())]
}

fn submit(storm: &Storm, order: &Order, key: &str, rng: &mut Rng) -> Option<String> {
    let headers = [("idempotency-key", key)];
    let answer = try_request(any(storm, rng), "POST", "/v1/jobs", &headers, &order.body)?;
    match answer.status {
        200 | 201 => Some(answer.json()["id"].as_str().expect("an id").to_owned()),
        503 => None,
        _ => panic!("{answer:?}"),
    }
}

fn result_of(storm: &Storm, id: &str, rng: &mut Rng) -> Option<serde_json::Value> {
    let answer = try_request(any(storm, rng), "GET", &format!("/v1/jobs/{id}/result?wait=1s"), &[], "")?;
    match answer.status {
        200 => Some(answer.json()),
        409 | 503 => None,
        _ => panic!("job {id}: {answer:?}"),
    }
}

/// Follows the events from coordinator to coordinator, each time from the last one that was seen.
fn follow_until_all_is_over(storm: &Storm, mut rng: Rng) {
    let mut last = 0;
    while !storm.is_over.load(Ordering::Relaxed) {
        let Some(events) = Events::follow(any(storm, &mut rng), last) else {
            sleep(Duration::from_millis(20));
            continue;
        };
        for event in events {
            assert_eq!(event.seq, last + 1, "no event is left out and none comes twice");
            last = event.seq;
            storm.seen.lock().expect("no panic").push(event);
            if storm.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

fn seen_ends(storm: &Storm) -> usize {
    storm.seen.lock().expect("no panic").iter().filter(|event| event.kind == EventKind::Succeeded).count()
}

fn check(group: &Group, storm: &Storm, accepted: &BTreeMap<String, Order>) {
    let leader = group.leader();
    let client = JobClient(group.coordinators[leader].public);
    let listed: BTreeSet<String> =
        client.jobs().iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(listed, accepted.keys().cloned().collect(), "what is there is what was acknowledged");
    for id in accepted.keys() {
        let job = client.job(id);
        assert_eq!(job["tasks"]["succeeded"], job["tasks"]["total"], "{job}");
    }
    let whole = all_events(group.coordinators[leader].public);
    assert!(whole.iter().map(|event| event.seq).eq(1..=whole.len() as u64), "events have no gap");
    let ends = whole.iter().filter(|event| event.kind == EventKind::Succeeded).map(|event| event.job);
    let mut ended = BTreeSet::new();
    assert!(ends.into_iter().all(|job| ended.insert(job)), "no job ends twice");
    assert_eq!(ended.len(), accepted.len());
    let seen = storm.seen.lock().expect("no panic");
    assert!(whole.starts_with(&seen), "a stream over all of them tells what is stored");
}
