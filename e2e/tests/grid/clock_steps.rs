//! The clock of the coordinator's machine is set while it runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{Coordinator, JobClient, Order, Worker, eventually, get, path, request};
use crate::several_clocks::faketime;

/// Longer than the test takes to set the clock and the coordinator to notice the step.
const TASK_SECONDS: f64 = 6.0;

/// Sets the clock of the process that reads it from this file, such as to `-1h`.
fn set(file: &Path, ahead: &str) {
    let new = file.with_extension("new");
    fs::write(&new, ahead).expect("room");
    fs::rename(new, file).expect("renamed");
}

/// Starts a coordinator whose clock is that of a file.
fn start(file: &Path) -> Coordinator {
    start_on(Arc::new(TempDir::new().expect("a directory")), file)
}

/// As [`start`], on the data that another coordinator left.
fn start_on(data_dir: Arc<TempDir>, file: &Path) -> Coordinator {
    let library = faketime();
    let clock = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", path(file)),
        ("FAKETIME_CACHE_DURATION", "1"),
        // Only the calendar: a monotonic clock cannot be wrong.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    Coordinator::start_on(data_dir, &clock)
}

/// A count of the primes up to `b`, whose result is `primes`.
fn count(b: u64, primes: &str) -> Order {
    let params = json!({"a": 1, "b": b, "algorithm": "sieve"});
    let body = json!({"kind": "count-primes", "params": params, "output": "newest"});
    Order { body: body.to_string(), result: json!({"a": 1, "b": b, "count": primes}), ..Order::sleep(1, 0.0) }
}

fn time(of: &Value, field: &str) -> Timestamp {
    of[field].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {field}: {of}"))
}

/// Checks that later events have later times.
fn is_in_order(client: JobClient, id: &str) {
    let job = client.job(id);
    assert!(time(&job, "submitted_at") <= time(&job, "started_at"), "{job}");
    assert!(time(&job, "started_at") <= time(&job, "finished_at"), "{job}");
}

#[test]
fn steps_of_the_clock_repeat_no_task_and_leave_what_came_last_the_newest() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("clock");
    set(&file, "+0");
    let coordinator = start(&file);
    let worker = Worker::join(&coordinator, &[]);
    let client = coordinator.client();
    let mut newest_first = Vec::new();
    for (ahead, b, primes) in [("+0", 10, "4"), ("-1h", 100, "25"), ("+31d", 1000, "168"), ("+0", 10_000, "1229")] {
        let long = coordinator.submit(&Order::sleep(1, TASK_SECONDS));
        eventually("its worker has it", || {
            (worker.metric(r#"divvy_worker_held_leases{state="running"}"#) == 1.0).then_some(())
        });
        set(&file, ahead);
        if ahead == "+31d" {
            coordinator.logged("the clock has leapt ahead: it is followed once it has stayed there for ten minutes");
        }
        eventually("it ends", || client.result(&long));
        assert_eq!(client.job(&long)["attempts"], 1, "after {ahead}");
        is_in_order(client, &long);
        let order = count(b, primes);
        let named = coordinator.submit(&order);
        assert_eq!(eventually("its result", || client.result(&named)), order.result);
        is_in_order(client, &named);
        assert_eq!(get(coordinator.public, "/v1/results/newest").json(), order.result, "after {ahead}");
        newest_first.splice(0..0, [named, long]);
        let listed: Vec<_> = client.jobs().iter().map(|job| job["id"].clone()).collect();
        assert_eq!(listed, newest_first, "after {ahead}");
    }
    assert_eq!(coordinator.workers().len(), 1);
    // A late heartbeat suspends the worker until the next one.
    eventually("it is ready", || coordinator.find(&worker.boot_id).filter(|worker| worker["state"] == "ready"));
}

#[test]
fn a_start_under_a_wrong_clock_that_ends_a_job_forgets_no_other() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("clock");
    set(&file, "+0");
    let mut first = start(&file);
    let _worker = Worker::join(&first, &[]);
    let order = count(10, "4");
    let old = first.submit(&order);
    eventually("its result", || first.client().result(&old));
    let simulation = json!({"tasks": 1, "seconds": 3_600, "workers": 1}).to_string();
    let started = request(first.public, "POST", "/v1/simulate", &[], &simulation);
    assert_eq!(started.status, 201, "{started:?}");
    first.kill();

    // The next coordinator ends the simulation, whose workers are gone: the newest event has the wrong date.
    set(&file, "+31d");
    let second = start_on(first.shared_data_dir(), &file);
    let started = started.json();
    let simulated = started["jobs"][0]["id"].as_str().expect("an id");
    assert_eq!(second.client().job(simulated)["state"], "canceled");
    second.logged(
        "the clock is far from the time that was expected: nothing is forgotten by it until it has stayed there for an \
         hour",
    );
    assert_eq!(second.client().result(&old), Some(order.result));
}
