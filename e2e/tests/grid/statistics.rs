//! Figures over failures, retries, cancels and crashes, counted again from the event stream alone.

use std::collections::{BTreeMap, HashMap};
use std::thread::sleep;
use std::time::Duration;

use jiff::Timestamp;
use model::{EventKind, JobEvent, JobId};
use serde_json::{Value, json};

use crate::helpers::{
    Conduct, Coordinator, Events, Group, Order, Puller, Worker, all_events, eventually, get, heavy, request,
};

const KILLS: u32 = 6;

/// Leases that are forgotten come back soon.
const SETTINGS: [(&str, &str); 4] = [
    ("DIVVY_CHUNK_SIZE", "250000"),
    ("DIVVY_LEASE_TARGET_MS", "20"),
    ("DIVVY_LEASE_TIMEOUT_MS", "500"),
    ("DIVVY_RECOVERY_MS", "100"),
];

/// The figures of one kind in one period as another program would count them: it knows what JSON says of each event, and
/// no code of the service.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    /// Counts by the name that the answer has.
    figures: BTreeMap<&'static str, u64>,
    jobs_pending: i64,
    /// The number of durations and their sum in microseconds.
    waiting: (u64, u64),
    running: (u64, u64),
}

/// Rows by the seconds of a period, its start and the kind.
type Table = BTreeMap<(i64, i64, String), Counted>;

/// The state of a job while its events are read.
#[derive(Default)]
struct Life {
    submitted_at: Timestamp,
    /// Time of its start, or of its last retry.
    since: Option<Timestamp>,
    is_open: bool,
    tasks_done: u64,
}

fn us(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_micros()).unwrap_or(0)
}

fn count(events: &[JobEvent]) -> Table {
    let (mut table, mut lives) = (Table::new(), HashMap::<JobId, Life>::new());
    let mut pending = HashMap::<String, i64>::new();
    for event in events {
        let life = lives.entry(event.job).or_default();
        let kind = event.job_kind.expect("a kind").to_string();
        let pending = pending.entry(kind.clone()).or_default();
        let (done, total) = (event.tasks_done.expect("a count"), event.tasks_total.expect("a count"));
        let newly_done = done - life.tasks_done;
        let mut add = vec![("tasks_succeeded", newly_done)];
        life.tasks_done = done;
        let (mut waiting, mut running) = (None, None);
        match event.kind {
            EventKind::Submitted => {
                add.extend([("jobs_submitted", 1), ("tasks_submitted", total)]);
                (life.submitted_at, life.is_open) = (event.at, true);
                *pending += 1;
            }
            EventKind::Started => {
                add.push(("jobs_started", 1));
                waiting = Some(us(life.submitted_at, event.at));
                life.since = Some(event.at);
            }
            EventKind::Retried => {
                add.push(("jobs_retried", 1));
                *pending += i64::from(!life.is_open);
                life.is_open = true;
                life.since = life.since.map(|_| event.at);
            }
            EventKind::Succeeded | EventKind::Failed | EventKind::Canceled => {
                let is = |kind| u64::from(event.kind == kind);
                add.extend([
                    ("jobs_succeeded", is(EventKind::Succeeded)),
                    ("jobs_failed", is(EventKind::Failed)),
                    ("jobs_canceled", is(EventKind::Canceled)),
                ]);
                running = life.since.map(|since| us(since, event.at));
                *pending -= 1;
                life.is_open = false;
            }
            // Nothing of it is counted: a period in which nothing else happens has no figures.
            EventKind::Paused | EventKind::Resumed if newly_done == 0 => continue,
            EventKind::Progress | EventKind::Paused | EventKind::Resumed | EventKind::TaskFailed => (),
        }
        for length in [60, 3600, 86_400] {
            let start = event.at.as_second().div_euclid(length) * length;
            let counted = table.entry((length, start, kind.clone())).or_default();
            for &(name, figure) in &add {
                *counted.figures.entry(name).or_default() += figure;
            }
            counted.jobs_pending = *pending;
            for (sums, duration) in [(&mut counted.waiting, waiting), (&mut counted.running, running)] {
                let us = duration.unwrap_or(0);
                *sums = (sums.0 + u64::from(duration.is_some()), sums.1 + us);
            }
        }
    }
    table
}

/// The service's answer, in the same form.
fn answered(coordinator: &Coordinator) -> (Table, Vec<Value>) {
    let (mut table, mut days) = (Table::new(), Vec::new());
    for (length, grain) in [(60, "minute"), (3600, "hour"), (86_400, "day")] {
        let mut token = String::new();
        loop {
            let target = format!("/v1/statistics?grain={grain}&from=2020-01-01&limit=2{token}");
            let page = get(coordinator.public, &target).json();
            for period in page["periods"].as_array().expect("a page") {
                let number = |pointer: &str| period.pointer(pointer).and_then(Value::as_u64).expect("a number");
                let named = |name: &'static str| {
                    let (of, figure) = name.split_once('_').expect("two words");
                    (name, number(&format!("/{of}/{figure}")))
                };
                let durations = |name: &str| (number(&format!("/{name}/count")), number(&format!("/{name}/sum_us")));
                let counted = Counted {
                    figures: NAMES.into_iter().map(named).collect(),
                    jobs_pending: i64::try_from(number("/jobs/pending")).expect("few jobs"),
                    waiting: durations("waiting"),
                    running: durations("running"),
                };
                let start: Timestamp = period["start"].as_str().expect("a time").parse().expect("a time");
                let kind = period["kind"].as_str().expect("a kind").to_owned();
                table.insert((length, start.as_second(), kind), counted);
                days.extend((grain == "day").then(|| period.clone()));
            }
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => break,
            }
        }
    }
    (table, days)
}

const NAMES: [&str; 8] = [
    "jobs_submitted",
    "jobs_started",
    "jobs_succeeded",
    "jobs_failed",
    "jobs_canceled",
    "jobs_retried",
    "tasks_submitted",
    "tasks_succeeded",
];

/// Kills the coordinator at moments of its work while `puller` fetches.
fn storm(coordinator: &mut Coordinator, puller: &Puller) {
    let mut conducts = [Conduct::Complete, Conduct::Fail, Conduct::Complete, Conduct::Forget].into_iter().cycle();
    for kill in 0..KILLS {
        for _ in 0..5 {
            if let Some(claim) = puller.claim(3) {
                puller.end(&claim, conducts.next().expect("for ever"));
            }
        }
        // The test is about this time.
        sleep(Duration::from_millis(u64::from(kill) * 70));
        coordinator.kill();
        coordinator.start_again(&SETTINGS);
    }
}

#[test]
fn figures_are_what_the_events_say_to_the_last_number_over_failures_retries_cancels_and_crashes() {
    let _turn = heavy();
    let mut coordinator = Coordinator::start_to_stay(&SETTINGS);
    let _workers: Vec<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    let puller = Puller { coordinator: coordinator.internal, name: "puller".to_owned() };
    let client = coordinator.client();
    let succeeds = [Order::sum(1, 8), Order::count(1, 8), Order::sleep(50, 0.01), Order::squares(&[1, 2, 3, 4, 5, 6])];
    let mut ids: Vec<_> = succeeds.iter().map(|order| coordinator.submit(order)).collect();
    let submit = |body: Value| {
        let answer = request(coordinator.public, "POST", "/v1/jobs", &[], &body.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let fails = submit(json!({
        "kind": "sleep", "params": {"seconds": 0.01, "tasks": 20, "fail_rate": 1}, "max_attempts": 2,
    }));
    let waits = submit(json!({
        "kind": "sleep", "params": {"seconds": 1, "tasks": 9}, "requires": {"labels": {"gpu": "yes"}},
    }));
    let stays = submit(json!({
        "kind": "tasks", "params": {"list": [1, 2]}, "requires": {"labels": {"gpu": "yes"}},
    }));
    storm(&mut coordinator, &puller);
    eventually("it fails", || (client.job(&fails)["state"] == "failed").then_some(()));
    client.act(&fails, "retry");
    eventually("it fails again", || (client.job(&fails)["state"] == "failed").then_some(()));
    client.act(&waits, "cancel");
    client.act(&waits, "retry");
    client.act(&waits, "cancel");
    for id in &ids {
        eventually("the job's result", || {
            if let Some(claim) = puller.claim(3) {
                puller.end(&claim, Conduct::Complete);
            }
            client.result(id)
        });
    }
    ids.extend([fails, waits, stays]);
    coordinator.kill();
    coordinator.start_again(&SETTINGS);

    let latest = {
        // The pause is one more event, which is then the last.
        client.act(&ids[6], "pause");
        let mut events = Vec::new();
        for event in Events::follow(coordinator.public, 0).expect("a stream") {
            let is_last = event.kind == EventKind::Paused;
            events.push(event);
            if is_last {
                break;
            }
        }
        events
    };
    let (found, days) = answered(&coordinator);
    let mut expected = count(&latest);
    for counted in expected.values_mut() {
        NAMES.into_iter().for_each(|name| _ = counted.figures.entry(name).or_default());
    }
    assert_eq!(found, expected);

    let sum = |pointer: &str| -> u64 {
        days.iter().map(|day| day.pointer(pointer).and_then(Value::as_u64).expect("a number")).sum()
    };
    let jobs: Vec<_> = ids.iter().map(|id| client.job(id)).collect();
    let of_jobs = |pointer: &str| -> u64 {
        jobs.iter().map(|job| job.pointer(pointer).and_then(Value::as_u64).expect("a number")).sum()
    };
    assert_eq!(sum("/attempts/ended"), of_jobs("/attempts"));
    assert_eq!(sum("/computing/count"), sum("/attempts/ended") - sum("/attempts/failed"));
    assert_eq!(sum("/tasks/succeeded"), of_jobs("/tasks/succeeded"));
    // Each of 20 tasks failed twice for good; 9 were canceled twice, and opened again once.
    assert_eq!((sum("/tasks/failed"), sum("/tasks/retried"), sum("/tasks/canceled")), (40, 20 + 9, 18));
    assert_eq!((sum("/jobs/retried"), sum("/jobs/failed"), sum("/jobs/canceled")), (2, 2, 2));
    let last = |kind: &str| days.iter().rfind(|day| day["kind"] == kind).expect("a day").clone();
    assert_eq!((&last("tasks")["jobs"]["pending"], &last("tasks")["tasks"]["pending"]), (&json!(1), &json!(2)));
    assert_eq!((&last("sleep")["jobs"]["pending"], &last("sleep")["tasks"]["pending"]), (&json!(0), &json!(0)));
}

#[test]
fn figures_are_what_the_events_say_while_leaders_over_one_database_die() {
    let _turn = heavy();
    let mut group = Group::start(2, &SETTINGS);
    let _workers = [group.worker(&[("DIVVY_SLOTS", "2")]), group.worker(&[])];
    let mut jobs = Vec::new();
    for kill in 0..KILLS {
        let orders = [Order::sum(1, 7), Order::count(2, 7), Order::sleep(20, 0.02)];
        let leader = group.leader();
        for (number, order) in orders.into_iter().enumerate() {
            let id = group.client(leader).submit(&order, &format!("{kill}-{number}"));
            jobs.push((id, order));
        }
        // The test is about this time.
        sleep(Duration::from_millis(u64::from(kill) * 70));
        group.coordinators[leader].kill();
        group.leader_after(leader);
        group.start_again(leader);
    }
    let client = group.client(group.leader());
    for (id, order) in &jobs {
        assert_eq!(eventually("the job's result", || client.result(id)), order.result);
    }
    let mut expected = count(&all_events(group.coordinators[0].public));
    for counted in expected.values_mut() {
        NAMES.into_iter().for_each(|name| _ = counted.figures.entry(name).or_default());
    }
    for coordinator in &group.coordinators {
        let (found, _) = answered(coordinator);
        assert_eq!(found, expected);
    }
}
