//! Readiness and liveness.

use serde_json::Value;

use crate::helpers::{FakeCoordinator, Worker, eventually, own_address};

async fn wait_for_readiness(worker: &Worker, status: u16) {
    let is_so = async || (worker.get("/readyz").await.status().as_u16() == status).then_some(());
    eventually(&format!("readiness is {status}"), is_so).await;
}

#[tokio::test]
async fn a_worker_is_ready_while_a_coordinator_takes_its_heartbeats() {
    let address = own_address();
    let worker = Worker::start(&format!("http://{address}"), &[]).await;
    let not_ready = worker.get("/readyz").await;
    assert_eq!(not_ready.status().as_u16(), 503);
    let problem: Value = not_ready.json().await.expect("a problem");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("no coordinator takes its heartbeats"), "{detail}");
    let coordinator = FakeCoordinator::listen(address, 1).await;
    wait_for_readiness(&worker, 200).await;
    coordinator.stop().await;
    wait_for_readiness(&worker, 503).await;
    assert!(worker.get("/livez").await.status().is_success());
    let _coordinator = FakeCoordinator::listen(address, 2).await;
    wait_for_readiness(&worker, 200).await;
}

#[tokio::test]
async fn the_ends_of_leases_are_counted_from_zero() {
    let worker = Worker::start(&format!("http://{}", own_address()), &[]).await;
    let metrics = worker.get("/metrics").await.text().await.expect("text");
    for outcome in ["completed", "failed", "canceled", "returned"] {
        let sample = format!("divvy_worker_leases_total{{outcome=\"{outcome}\"}} 0\n");
        assert!(metrics.contains(&sample), "{sample} in {metrics}");
    }
}

#[tokio::test]
async fn a_worker_answers_sums_by_itself_without_any_coordinator() {
    let worker = Worker::start(&format!("http://{}", own_address()), &[]).await;
    let answer: Value = worker.get("/sum-of-primes?a=10&b=3700000").await.json().await.expect("an answer");
    assert_eq!((&answer["sum"], &answer["tasks"]), (&"468476582935".into(), &1.into()));
}
