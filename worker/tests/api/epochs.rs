//! Coordinators that take over, and those that were taken over from.

use api::HeldState;
use serde_json::{Value, json};

use crate::helpers::{FakeCoordinator, Gate, Worker};

#[tokio::test]
async fn a_coordinator_of_a_higher_epoch_finds_what_the_last_one_left_running() {
    let (first, gate) = (FakeCoordinator::start(1).await, Gate::new());
    let worker = gate.worker(&first, &[]).await;
    let lease = gate.lease(&worker);
    drop(worker.begin(&lease));
    first.wait("it runs", |state| state.is_held(lease.attempt, HeldState::Running)).await;
    let second = FakeCoordinator::listen(first.stop().await, 2).await;
    let epoch = second
        .wait_for(
            "it is listed",
            |state| state.held(lease.attempt).is_some(),
            |state| state.held(lease.attempt).map(|held| held.epoch),
        )
        .await;
    assert_eq!(epoch, Some(1), "the epoch under which it was given");
    gate.open();
    second.change(|state| (state.asks_for_outcomes, state.settles_reports) = (true, true));
    second
        .wait("the outcome", |state| state.report(lease.attempt).is_some_and(|report| report.what == "complete"))
        .await;
    second.wait("it is forgotten", |state| state.heartbeats.last().is_some_and(|last| last.held.is_empty())).await;
    assert_eq!(second.wait_for("reports", |_| true, |state| state.reports.len()).await, 1);
}

#[tokio::test]
async fn a_lower_epoch_than_the_highest_seen_gives_revokes_and_settles_nothing() {
    let (old, new) = (FakeCoordinator::start(1).await, FakeCoordinator::start(2).await);
    let worker = Worker::start(&format!("http://{},http://{}", old.address, new.address), &[]).await;
    new.wait("a heartbeat", |state| state.heartbeats.len() >= 2).await;
    let mut lease = worker.nap(3600.0);
    let refused = worker.run(&lease).await;
    assert_eq!(refused.status().as_u16(), 409);
    let problem: Value = refused.json().await.expect("a problem");
    assert_eq!(problem["detail"], "this is of epoch 1, but this worker has seen a coordinator of epoch 2");
    lease.body["epoch"] = json!(2);
    drop(worker.begin(&lease));
    new.wait("it runs", |state| state.is_held(lease.attempt, HeldState::Running)).await;
    assert_eq!(worker.revoke(lease.attempt, "?epoch=1").await.status().as_u16(), 409);
    old.change(|state| state.settled = vec![lease.attempt]);
    old.wait_for_new_heartbeats().await;
    new.wait_for_new_heartbeats().await;
    new.wait("it still runs", |state| state.is_held(lease.attempt, HeldState::Running)).await;
    assert_eq!(worker.metric("divvy_worker_refused_epochs_total").await, 2.0);
    assert_eq!(worker.revoke(lease.attempt, "?epoch=2").await.status().as_u16(), 204);
    worker.wait_for_metric("divvy_worker_running_slots", 0.0).await;
    assert_eq!(worker.revoke(lease.attempt, "?epoch=soon").await.status().as_u16(), 400);
}

#[tokio::test]
async fn a_lease_of_a_higher_epoch_raises_the_bar_before_any_heartbeat_does() {
    let coordinator = FakeCoordinator::start(0).await;
    let worker = Worker::start(&format!("http://{}", coordinator.address), &[]).await;
    let mut lease = worker.nap(0.0);
    lease.body["epoch"] = json!(7);
    assert!(worker.run(&lease).await.status().is_success());
    let mut late = worker.nap(0.0);
    late.body["epoch"] = json!(6);
    late.body["settled"] = json!([lease.attempt]);
    assert_eq!(worker.run(&late).await.status().as_u16(), 409);
    coordinator
        .wait("it is not settled by a refused lease", |state| state.is_held(lease.attempt, HeldState::Finished))
        .await;
}
