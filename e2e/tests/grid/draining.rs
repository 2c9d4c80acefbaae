//! SIGTERM, Ctrl-C and the end of the terminal: leases in flight are answered or handed back, and the exit code is 0.

use std::collections::VecDeque;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::helpers::{
    Coordinator, LONG_TASKS, Process, Signal, Worker, command, eventually, get, heavy, published_sum,
};

/// The promise of the coordinator's drain.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// With it a single attempt that is counted as failed fails the job.
const NO_RETRY: (&str, &str) = ("DIVVY_MAX_ATTEMPTS", "1");

/// All of a request is one task.
const ONE_TASK: (&str, &str) = ("DIVVY_CHUNK_SIZE", "18446744073709551615");

#[test]
fn workers_that_leave_during_a_job_fail_no_attempt() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[NO_RETRY, ("DIVVY_CHUNK_SIZE", "25000000")]);
    let mut workers: VecDeque<_> = (0..2).map(|_| Worker::join(&coordinator, &[])).collect();
    let job = coordinator.ask_sum(1, 10_u64.pow(11));
    let mut left = 0;
    loop {
        let before = coordinator.completed_leases();
        eventually("the job goes on", || (job.is_answered() || coordinator.completed_leases() > before).then_some(()));
        if job.is_answered() {
            break;
        }
        workers.push_back(Worker::join(&coordinator, &[]));
        let mut leaving = workers.pop_front().expect("three workers");
        leaving.signal(Signal::TERM);
        assert_eq!(leaving.exit_status().code(), Some(0));
        left += 1;
    }
    assert_eq!(job.answer().sum(), published_sum(11));
    assert!(left >= 2, "only {left} workers left");
}

#[test]
fn worker_hands_back_what_it_cannot_finish_in_time() {
    let coordinator = Coordinator::start(&[NO_RETRY, ONE_TASK]);
    let mut leaving = Worker::join(&coordinator, &[("DIVVY_DRAIN_TIMEOUT_MS", "100")]);
    let endless = coordinator.ask_endless();
    leaving.wait_until_it_computes();
    let other = Worker::join(&coordinator, &[]);
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.exit_status().code(), Some(0));
    eventually("the other one computes", || coordinator.find(&other.boot_id).filter(|worker| worker["busy"] == 1));
    coordinator.wait_for_metric(r#"divvy_leases_total{outcome="returned"}"#, 1.0);
    assert!(!endless.is_answered());
}

#[test]
fn sum_is_exact_when_a_worker_hands_its_lease_back() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[NO_RETRY, ONE_TASK]);
    let mut leaving = Worker::join(&coordinator, &[("DIVVY_DRAIN_TIMEOUT_MS", "0")]);
    let job = coordinator.ask_sum(1, 10_u64.pow(11));
    leaving.wait_until_it_computes();
    let _other = Worker::join(&coordinator, &[]);
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.exit_status().code(), Some(0));
    assert_eq!(job.answer().sum(), published_sum(11));
    coordinator.wait_for_metric(r#"divvy_leases_total{outcome="returned"}"#, 1.0);
}

#[test]
fn draining_worker_is_alive_but_not_ready() {
    let coordinator = Coordinator::start(&[ONE_TASK]);
    let worker = Worker::join(&coordinator, &[("DIVVY_DRAIN_TIMEOUT_MS", "600000")]);
    // It is registered a moment before it hears so.
    eventually("it is ready", || (get(worker.address, "/readyz").status == 200).then_some(()));
    let _endless = coordinator.ask_endless();
    worker.wait_until_it_computes();
    worker.signal(Signal::TERM);
    eventually("it is not ready", || (get(worker.address, "/readyz").status == 503).then_some(()));
    assert_eq!(get(worker.address, "/livez").status, 200);
    eventually("it is draining", || coordinator.find(&worker.boot_id).filter(|worker| worker["state"] == "draining"));
}

#[test]
fn coordinator_answers_what_is_in_flight_before_it_stops() {
    // Longer than any test: the coordinator stops once it has answered all requests.
    let mut coordinator =
        Coordinator::start(&[("DIVVY_DRAIN_TIMEOUT_MS", "600000"), ("DIVVY_EVICT_AFTER_MS", "600000")]);
    let worker = Worker::join(&coordinator, &[]);
    // The request stays in flight for as long as this test needs.
    worker.signal(Signal::STOP);
    let job = coordinator.ask_sum(1, 10_u64.pow(7));
    eventually("it is leased", || (coordinator.busy() > 0).then_some(()));
    coordinator.signal(Signal::TERM);
    coordinator.logged("stopping: answering the requests in flight");
    worker.signal(Signal::CONT);
    assert_eq!(job.answer().sum(), published_sum(7));
    assert_eq!(coordinator.exit_status().code(), Some(0));
}

#[test]
fn coordinator_gives_up_what_takes_longer_than_its_drain() {
    let mut coordinator = Coordinator::start(&[LONG_TASKS, ("DIVVY_DRAIN_TIMEOUT_MS", "300")]);
    let worker = Worker::join(&coordinator, &[]);
    let endless = coordinator.ask_endless();
    coordinator.wait_until_all_compute();
    coordinator.signal(Signal::TERM);
    let told_at = Instant::now();
    assert_eq!(endless.answer().problem(503), "the coordinator is stopping; try again later");
    assert_eq!(coordinator.exit_status().code(), Some(0));
    assert!(told_at.elapsed() < STOP_LIMIT, "{:?}", told_at.elapsed());
    eventually("the worker stops", || {
        (worker.metric(r#"divvy_worker_leases_total{outcome="canceled"}"#) >= 1.0).then_some(())
    });
}

#[test]
fn idle_services_stop_on_each_signal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut coordinator = Coordinator::start(&[]);
        let mut worker = Worker::join(&coordinator, &[]);
        worker.signal(signal);
        assert_eq!(worker.exit_status().code(), Some(0));
        coordinator.signal(signal);
        assert_eq!(coordinator.exit_status().code(), Some(0));
    }
}

#[test]
fn what_nohup_starts_goes_on_ignoring_the_end_of_its_terminal() {
    let data_dir = Arc::new(TempDir::new().expect("a directory"));
    let mut nohup = Command::new("nohup");
    nohup.arg(command("divvy-coordinator").get_program()).stdout(Stdio::null());
    nohup.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
    nohup.env("DIVVY_DATA_DIR", data_dir.path()).env("DIVVY_LOG_FORMAT", "json");
    let mut coordinator = Coordinator::of(Process::spawn(&mut nohup), data_dir);
    coordinator.signal(Signal::HUP);
    let status = format!("/proc/{}/status", coordinator.pid().as_raw_nonzero());
    let status = fs::read_to_string(status).expect("a process");
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    assert_eq!(ignored.expect("a mask") & 1, 1, "SIGHUP is signal 1");
    assert_eq!(get(coordinator.public, "/livez").status, 200);
    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.exit_status().code(), Some(0));
}
