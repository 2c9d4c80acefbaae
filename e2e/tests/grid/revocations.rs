//! Canceling and pausing take effect at once, however large the job.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::helpers::{Coordinator, Order, Worker, eventually, heavy, in_time};

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
