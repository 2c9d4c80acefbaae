//! Canceling, pausing and a client's departure take effect at once, however large the job.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::helpers::{Coordinator, Order, Worker, eventually, heavy, in_time, published_sum};

/// Longest time from the answer until no worker computes for the job.
const STOP_LIMIT: Duration = Duration::from_secs(1);

#[test]
fn canceled_job_of_a_million_tasks_stops_at_once() {
    stops_at_once("cancel", "canceled");
}

#[test]
fn paused_job_of_a_million_tasks_stops_at_once_and_goes_on_when_it_is_resumed() {
    stops_at_once("pause", "paused");
}

#[test]
fn sum_without_its_client_stops_though_its_worker_stays_connected() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let running = || worker.metric("divvy_worker_running_slots");
    let requests = || worker.metric(r#"divvy_http_requests_total{route="/lease",code="client-gone"}"#);
    // The first lease of each of the coordinator's threads is a request, which ends with its connection.
    eventually("the lease of a stream is revoked", || {
        let before = requests();
        let endless = coordinator.ask_endless();
        eventually("it computes", || (running() == 1.0).then_some(()));
        drop(endless);
        eventually("it stops", || (running() == 0.0).then_some(()));
        (requests() == before).then_some(())
    });
    assert!(worker.metric(r#"divvy_http_requests_total{route="/leases",code="101"}"#) >= 1.0);
    assert_eq!(coordinator.sum(1, 10_u64.pow(7)).sum(), published_sum(7));
}

fn stops_at_once(action: &str, state: &str) {
    let _turn = heavy();
    // Many leases a second, of which one could slip through, and leases that would go on far beyond the limit.
    for lease_target_ms in ["100", "5000"] {
        in_time(STOP_LIMIT, "nobody computes", || stop_leases(action, state, lease_target_ms));
    }
}

/// Time for which workers went on after the answer.
fn stop_leases(action: &str, state: &str, lease_target_ms: &str) -> Duration {
    let coordinator = Coordinator::start(&[("DIVVY_LEASE_TARGET_MS", lease_target_ms)]);
    let client = coordinator.client();
    let workers = [(); 2].map(|()| Worker::join(&coordinator, &[("DIVVY_SLOTS", "2")]));
    let id = coordinator.submit(&Order::sleep(1_000_000, 0.005));
    let running = |worker: &Worker| worker.metric("divvy_worker_running_slots");
    eventually("every slot computes", || {
        let is_busy = |worker: &Value| worker["busy"] != 0 && worker["completed_tasks"].as_u64() > Some(0);
        (workers.iter().all(|worker| running(worker) == 2.0) && coordinator.workers().iter().all(is_busy)).then_some(())
    });

    let job = client.act(&id, action);
    let answered_at = Instant::now();
    assert_eq!(job["state"], state);
    eventually("nobody computes", || {
        (coordinator.busy() == 0 && workers.iter().all(|worker| running(worker) == 0.0)).then_some(())
    });
    let stopped_after = answered_at.elapsed();
    // The other job has many leases. No lease of this job may be among them: its number of attempts stays.
    let other = Order::sleep(200, 0.005);
    let other_id = coordinator.submit(&other);
    assert_eq!(eventually("the other job's result", || client.result(&other_id)), other.result);
    eventually("nobody computes", || (coordinator.busy() == 0).then_some(()));
    assert_eq!(client.job(&id)["attempts"], job["attempts"]);

    if action == "pause" {
        let done = job["tasks"]["succeeded"].as_u64();
        assert_eq!(client.act(&id, "resume")["state"], "running");
        eventually("it goes on", || (client.job(&id)["tasks"]["succeeded"].as_u64() > done).then_some(()));
    }
    stopped_after
}
