//! A coordinator that dies or hangs under running workers.

use std::process::id;
use std::thread::sleep;
use std::time::Duration;

use crate::helpers::{Coordinator, LONG_TASKS, Signal, Worker, eventually, published_sum, within};

#[test]
fn workers_are_back_two_seconds_after_the_coordinator_is() {
    // An address that only this test has: the port cannot be taken while nobody listens on it.
    let [_, x, y, z] = id().to_be_bytes();
    let own = format!("127.{x}.{y}.{z}:0");
    let mut first = Coordinator::start(&[LONG_TASKS, ("DIVVY_PUBLIC_ADDR", &own), ("DIVVY_INTERNAL_ADDR", &own)]);
    let workers = [Worker::join(&first, &[]), Worker::join(&first, &[])];
    let _lost = first.ask_endless();
    first.wait_until_all_compute();
    first.kill();
    for worker in &workers {
        eventually("its leases are canceled", || {
            (worker.metric(r#"divvy_worker_leases_total{outcome="canceled"}"#) >= 1.0).then_some(())
        });
    }

    let (public, internal) = (first.public.to_string(), first.internal.to_string());
    let second = Coordinator::start(&[("DIVVY_PUBLIC_ADDR", &public), ("DIVVY_INTERNAL_ADDR", &internal)]);
    within(Duration::from_secs(2), "both workers are back", || (second.workers().len() == 2).then_some(()));
    for worker in &workers {
        assert!(second.find(&worker.boot_id).is_some(), "the same process under the same name");
    }
    assert_eq!(second.sum(1, 10_u64.pow(8)).sum(), published_sum(8));
}

#[test]
fn coordinator_that_was_away_evicts_nobody() {
    let coordinator = Coordinator::start(&[]);
    let workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    assert_eq!(coordinator.sum(1, 10_u64.pow(8)).sum(), published_sum(8));
    let job = coordinator.ask_sum(1, 10_u64.pow(10));
    eventually("it runs", || (coordinator.busy() > 0).then_some(()));
    coordinator.signal(Signal::STOP);
    // The time itself is what is tried: longer than the silence that evicts a worker.
    sleep(Duration::from_secs(7));
    coordinator.signal(Signal::CONT);
    assert_eq!(job.answer().sum(), published_sum(10));
    for worker in &workers {
        eventually("its heartbeats arrive", || {
            coordinator.find(&worker.boot_id).filter(|worker| worker["last_seen_ms_ago"].as_u64() < Some(1_000))
        });
    }
    assert_eq!(coordinator.metric(r#"divvy_evictions_total{reason="silent"}"#), 0.0);
    assert_eq!(coordinator.metric(r#"divvy_evictions_total{reason="replaced"}"#), 0.0);
}
