//! A coordinator that dies or hangs under running workers.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::helpers::{Coordinator, LONG_TASKS, Signal, Worker, eventually, in_time, published_sum};

#[test]
fn workers_are_back_two_seconds_after_the_coordinator_is() {
    let mut coordinator = Coordinator::start_to_stay(&[LONG_TASKS]);
    let workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    let _lost = coordinator.ask_endless();
    coordinator.wait_until_all_compute();
    in_time(Duration::from_secs(2), "both workers are back", || {
        coordinator.kill();
        for worker in &workers {
            eventually("its leases are canceled", || {
                (worker.metric(r#"divvy_worker_leases_total{outcome="canceled"}"#) >= 1.0).then_some(())
            });
        }
        coordinator.start_again(&[]);
        let back_at = Instant::now();
        eventually("both workers are back", || (coordinator.workers().len() == 2).then_some(()));
        back_at.elapsed()
    });
    for worker in &workers {
        assert!(coordinator.find(&worker.boot_id).is_some(), "the same process under the same name");
    }
    assert_eq!(coordinator.sum(1, 10_u64.pow(8)).sum(), published_sum(8));
}

#[test]
fn coordinator_that_was_away_evicts_nobody() {
    let coordinator = Coordinator::start(&[]);
    let workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    assert_eq!(coordinator.sum(1, 10_u64.pow(8)).sum(), published_sum(8));
    let job = coordinator.ask_sum(1, 10_u64.pow(10));
    eventually("it runs", || (coordinator.busy() > 0).then_some(()));
    coordinator.signal(Signal::STOP);
    // The test is about this time: it is longer than the silence that evicts a worker.
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
