//! Leases of stored jobs: they outlive their connection, and their outcomes are kept until they are settled.

use std::io::Read;

use api::HeldState;
use serde_json::{Value, json};

use crate::helpers::{FakeCoordinator, Gate, Worker};

const RUNNING: &str = "divvy_worker_running_slots";

async fn pair(variables: &[(&str, &str)]) -> (FakeCoordinator, Worker) {
    let coordinator = FakeCoordinator::start(1).await;
    let worker = Worker::start(&format!("http://{}", coordinator.address), variables).await;
    (coordinator, worker)
}

#[tokio::test]
async fn a_lease_whose_connection_breaks_goes_on_and_is_delivered_and_forgotten_when_it_is_settled() {
    let (coordinator, gate) = (FakeCoordinator::start(1).await, Gate::new());
    let worker = gate.worker(&coordinator, &[]).await;
    let held = gate.lease(&worker);
    let sum = worker.lease("sum-of-primes", json!({"a": 10, "b": 3_700_000, "horizon": 3_700_000}));
    let connections = (worker.begin(&held), worker.begin(&sum));
    let both = |wanted| {
        move |state: &crate::helpers::FakeState| {
            [held.attempt, sum.attempt].iter().all(|attempt| state.is_held(*attempt, wanted))
        }
    };
    coordinator.wait("both run", both(HeldState::Running)).await;
    drop(connections);
    gate.open();
    coordinator.wait("both have finished", both(HeldState::Finished)).await;
    coordinator.change(|state| state.asks_for_outcomes = true);
    let report = coordinator.wait_for(
        "the outcome",
        |state| state.report(sum.attempt).is_some(),
        |state| state.report(sum.attempt).cloned(),
    );
    let report = report.await.expect("a report");
    // The worked example of the project's description.
    assert_eq!((report.what.as_str(), &report.body["value"]), ("complete", &json!("468476582935")));
    let name = json!({"worker_id": "worker", "job": sum.body["job"], "first": 3, "beyond": 4});
    assert_eq!(report.body["lease"], name);
    assert!(report.body["compute_us"].as_u64() > Some(0), "{}", report.body);
    coordinator.wait("it is kept after its delivery", |state| state.is_held(sum.attempt, HeldState::Finished)).await;
    coordinator.change(|state| state.settled = vec![held.attempt, sum.attempt]);
    coordinator
        .wait("both are forgotten", |state| state.heartbeats.last().is_some_and(|last| last.held.is_empty()))
        .await;
    worker.wait_for_metric("divvy_worker_held_bytes", 0.0).await;
}

#[tokio::test]
async fn a_failure_is_kept_and_delivered_as_a_failure() {
    let (coordinator, worker) = pair(&[]).await;
    let lease = worker.lease("sleep", json!({"seconds": 0, "fail_rate": 1}));
    let answer = worker.run(&lease).await;
    assert_eq!(answer.status().as_u16(), 422);
    let problem: Value = answer.json().await.expect("a problem");
    coordinator.change(|state| state.asks_for_outcomes = true);
    let report = coordinator
        .wait_for("the failure", |state| state.report(lease.attempt).is_some(), |state| state.reports[0].clone())
        .await;
    assert_eq!((report.what.as_str(), &report.body["error"]), ("fail", &problem["detail"]));
    assert_eq!(report.body["lease"]["job"], lease.body["job"]);
    assert_eq!(worker.metric(r#"divvy_worker_leases_total{outcome="failed"}"#).await, 1.0);
}

#[tokio::test]
async fn a_failure_that_an_earlier_coordinator_was_told_of_is_given_back_to_the_next_one() {
    let (coordinator, worker) = pair(&[]).await;
    let lease = worker.lease("sleep", json!({"seconds": 0, "fail_rate": 1}));
    assert_eq!(worker.run(&lease).await.status().as_u16(), 422);
    coordinator.change(|state| (state.epoch, state.asks_for_outcomes) = (2, true));
    let report =
        coordinator.wait_for("a report", |state| !state.reports.is_empty(), |state| state.reports[0].clone()).await;
    assert_eq!((report.attempt, report.what.as_str()), (lease.attempt, "release"));
    assert_eq!(report.body["lease"]["job"], lease.body["job"]);
    coordinator.wait("it is forgotten", |state| state.heartbeats.last().is_some_and(|last| last.held.is_empty())).await;
}

#[tokio::test]
async fn a_failure_whose_report_was_not_taken_is_given_back_to_the_next_coordinator() {
    let (coordinator, worker) = pair(&[]).await;
    coordinator.change(|state| (state.asks_for_outcomes, state.report_status) = (true, Some(503)));
    let lease = worker.lease("sleep", json!({"seconds": 1.2, "fail_rate": 1}));
    drop(worker.begin(&lease));
    coordinator.wait("a report", |state| state.reports.iter().any(|report| report.what == "fail")).await;
    coordinator.change(|state| (state.epoch, state.report_status) = (2, None));
    coordinator.wait("it is given back", |state| state.reports.iter().any(|report| report.what == "release")).await;
}

#[tokio::test]
async fn a_delivery_is_tried_again_while_it_is_asked_for_and_a_void_one_is_forgotten() {
    let (coordinator, worker) = pair(&[]).await;
    coordinator.change(|state| (state.asks_for_outcomes, state.report_status) = (true, Some(503)));
    let lease = worker.nap(0.0);
    assert!(worker.run(&lease).await.status().is_success());
    coordinator.wait("a second try", |state| state.reports.len() >= 2).await;
    worker.logged("kept outcomes could not be delivered").await;
    assert_eq!(worker.log("kept outcomes could not be delivered").len(), 1);
    coordinator.change(|state| state.report_status = Some(409));
    coordinator.wait("it is forgotten", |state| state.heartbeats.last().is_some_and(|last| last.held.is_empty())).await;
}

#[tokio::test]
async fn an_outcome_that_is_too_long_for_the_coordinator_is_reported_as_a_failure() {
    let (coordinator, worker) = pair(&[]).await;
    coordinator.change(|state| (state.asks_for_outcomes, state.report_status) = (true, Some(413)));
    let lease = worker.nap(0.0);
    assert!(worker.run(&lease).await.status().is_success());
    let failure = coordinator.wait_for(
        "the failure",
        |state| state.reports.iter().any(|report| report.what == "fail"),
        |state| state.reports.iter().find(|report| report.what == "fail").cloned(),
    );
    let failure = failure.await.expect("a report");
    assert_eq!((failure.attempt, &failure.body["error"]), (lease.attempt, &json!("its results are too long")));
    assert_eq!(failure.body["lease"]["job"], lease.body["job"]);
}

#[tokio::test]
async fn an_outcome_that_was_answered_is_kept_until_a_later_lease_settles_it() {
    let (coordinator, worker) = pair(&[]).await;
    let first = worker.nap(0.0);
    let answer: Value = worker.run(&first).await.json().await.expect("an outcome");
    assert_eq!((&answer["attempt"], &answer["value"]), (&first.body["attempt"], &json!("0")));
    coordinator.wait("it is kept", |state| state.is_held(first.attempt, HeldState::Finished)).await;
    let mut second = worker.nap(0.0);
    second.body["settled"] = json!([first.attempt]);
    assert!(worker.run(&second).await.status().is_success());
    coordinator.wait("only the second is held", |state| state.held(second.attempt).is_some()).await;
    coordinator.wait("only the second is held", |state| state.held(first.attempt).is_none()).await;
}

#[tokio::test]
async fn an_attempt_that_is_sent_again_is_answered_and_not_computed_again() {
    let (coordinator, gate) = (FakeCoordinator::start(1).await, Gate::new());
    let worker = gate.worker(&coordinator, &[("DIVVY_SLOTS", "2")]).await;
    let mut lease = gate.lease(&worker);
    drop(worker.begin(&lease));
    coordinator.wait("it runs", |state| state.is_held(lease.attempt, HeldState::Running)).await;
    lease.body["slot"] = json!(1);
    let (while_it_runs, ()) = tokio::join!(worker.run(&lease), async { gate.open() });
    for answer in [while_it_runs, worker.run(&lease).await] {
        let outcome: Value = answer.json().await.expect("an outcome");
        assert_eq!(outcome["attempt"], lease.body["attempt"]);
    }
    coordinator
        .wait("it is kept once", |state| {
            state.held(lease.attempt).is_some_and(|held| held.slot == 0 && held.state == HeldState::Finished)
        })
        .await;
    assert_eq!(worker.metric("divvy_worker_compute_seconds_count").await, 1.0);
}

#[tokio::test]
async fn a_lease_grows_no_older_while_it_waits_for_its_slot() {
    let (coordinator, worker) = pair(&[]).await;
    let (first, second) = (worker.nap(3600.0), worker.nap(3600.0));
    let _first = worker.begin(&first);
    worker.wait_for_metric(RUNNING, 1.0).await;
    let _second = worker.begin(&second);
    coordinator.wait("it is listed", |state| state.held(second.attempt).is_some()).await;
    coordinator.wait_for_new_heartbeats().await;
    let ages = |state: &crate::helpers::FakeState| {
        [first.attempt, second.attempt].map(|attempt| state.held(attempt).map(|held| held.elapsed_ms))
    };
    let [running, waiting] =
        coordinator.wait_for("both are listed", |state| ages(state).iter().all(Option::is_some), ages).await;
    assert!(running > Some(0), "{running:?}");
    assert_eq!(waiting, Some(0));
}

#[tokio::test]
async fn a_revoked_lease_stops_at_once_and_its_connection_is_told() {
    let (coordinator, worker) = pair(&[]).await;
    let lease = worker.nap(3600.0);
    let mut connection = worker.begin(&lease);
    worker.wait_for_metric(RUNNING, 1.0).await;
    let revoked_at = std::time::Instant::now();
    assert_eq!(worker.revoke(lease.attempt, "").await.status().as_u16(), 204);
    // On the same slot: it is free.
    assert!(worker.run(&worker.nap(0.0)).await.status().is_success());
    eprintln!("stopped within {:?}", revoked_at.elapsed());
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 409");
    assert_eq!(worker.revoke(lease.attempt, "").await.status().as_u16(), 204, "it is unknown by now");
    coordinator.wait_for_new_heartbeats().await;
    coordinator.wait("it is not listed", |state| state.held(lease.attempt).is_none()).await;
    assert_eq!(worker.metric(r#"divvy_worker_leases_total{outcome="canceled"}"#).await, 1.0);
}

#[tokio::test]
async fn a_lease_of_a_waiting_client_ends_with_its_connection_and_is_never_listed() {
    let (coordinator, worker) = pair(&[]).await;
    let mut lease = worker.nap(3600.0);
    lease.body["outlives_connection"] = json!(false);
    let connection = worker.begin(&lease);
    worker.wait_for_metric(RUNNING, 1.0).await;
    coordinator.wait_for_new_heartbeats().await;
    drop(connection);
    worker.wait_for_metric(RUNNING, 0.0).await;
    coordinator
        .wait("no lease was listed", |state| state.heartbeats.iter().all(|heartbeat| heartbeat.held.is_empty()))
        .await;
}

#[tokio::test]
async fn outcomes_beyond_the_memory_for_them_are_refused_until_the_coordinator_settles() {
    let (coordinator, worker) = pair(&[("DIVVY_MAX_HELD_BYTES", "1")]).await;
    let first = worker.nap(0.0);
    assert!(worker.run(&first).await.status().is_success());
    let refused = worker.run(&worker.nap(0.0)).await;
    assert_eq!(refused.status().as_u16(), 503);
    let problem: Value = refused.json().await.expect("a problem");
    assert!(problem["detail"].as_str().expect("text").contains("1 outcomes"), "{problem}");
    assert!(worker.run(&first).await.status().is_success(), "what is kept is answered");
    let mut of_client = worker.nap(0.0);
    of_client.body["outlives_connection"] = json!(false);
    assert!(worker.run(&of_client).await.status().is_success(), "nothing is kept for a waiting client");
    coordinator.change(|state| state.settled = vec![first.attempt]);
    worker.wait_for_metric("divvy_worker_held_bytes", 0.0).await;
    assert!(worker.run(&worker.nap(0.0)).await.status().is_success());
}

#[tokio::test]
async fn a_kind_that_the_worker_does_not_run_is_refused_and_nothing_is_kept() {
    let (coordinator, worker) = pair(&[]).await;
    let refused = worker.run(&worker.lease("paint", json!({}))).await;
    assert_eq!(refused.status().as_u16(), 501);
    let problem: Value = refused.json().await.expect("a problem");
    assert_eq!(problem["detail"], "this worker does not run paint");
    assert_eq!(worker.run(&worker.lease("sleep", json!({"minutes": 1}))).await.status().as_u16(), 501);
    assert_eq!(worker.metric(r#"divvy_worker_held_leases{state="finished"}"#).await, 0.0);
    let pushed: Vec<_> =
        workloads::KINDS.iter().filter(|kind| kind.is_pushed()).map(|kind| kind.name().to_string()).collect();
    coordinator
        .wait("its kinds", |state| {
            let kinds =
                state.heartbeats.last().map(|last| last.kinds.iter().map(ToString::to_string).collect::<Vec<_>>());
            kinds.is_some_and(|kinds| kinds == pushed)
        })
        .await;
}

#[tokio::test]
async fn what_no_coordinator_asks_for_any_more_is_given_up() {
    let (coordinator, worker) = pair(&[("DIVVY_ORPHAN_TIMEOUT_MS", "5000"), ("DIVVY_SLOTS", "2")]).await;
    let (done, mut endless) = (worker.nap(0.0), worker.nap(3600.0));
    endless.body["slot"] = json!(1);
    assert!(worker.run(&done).await.status().is_success());
    drop(worker.begin(&endless));
    coordinator.wait("both are held", |state| state.heartbeats.last().is_some_and(|last| last.held.len() == 2)).await;
    coordinator.wait_for_new_heartbeats().await;
    assert_eq!(worker.metric("divvy_worker_orphaned_leases_total").await, 0.0, "heartbeats are taken");
    coordinator.stop().await;
    let given_up = worker.logged("no coordinator takes heartbeats: gave up the leases of stored jobs").await;
    assert_eq!((&given_up["level"], &given_up["leases"]), (&json!("WARN"), &json!(2)));
    worker.wait_for_metric(RUNNING, 0.0).await;
    assert_eq!(worker.metric("divvy_worker_orphaned_leases_total").await, 2.0);
}

#[tokio::test]
async fn a_worker_with_a_token_demands_it_of_revocations_too() {
    let (_coordinator, worker) = pair(&[("DIVVY_WORKER_TOKEN", "hush")]).await;
    assert_eq!(worker.revoke(worker.nap(0.0).attempt, "").await.status().as_u16(), 401);
}

#[tokio::test]
async fn a_malformed_lease_is_refused() {
    let (_coordinator, worker) = pair(&[]).await;
    let mut lease = worker.nap(0.0);
    lease.body["beyond"] = json!(2);
    assert_eq!(worker.run(&lease).await.status().as_u16(), 400);
    assert_eq!(worker.get("/lease/mine").await.status().as_u16(), 405);
    lease.body["boot_id"] = lease.body["job"].clone();
    assert_eq!(worker.run(&lease).await.status().as_u16(), 409);
}
