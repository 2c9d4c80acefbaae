//! SIGTERM while leases of stored jobs are held.

use std::fs;
use std::io::Read;

use api::HeldState;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::helpers::{FakeCoordinator, Gate, Worker, eventually};

#[tokio::test]
async fn a_worker_goes_when_what_it_held_has_finished_and_is_settled() {
    let (coordinator, gate) = (FakeCoordinator::start(1).await, Gate::new());
    let mut worker = gate.worker(&coordinator, &[("DIVVY_DRAIN_TIMEOUT_MS", "600000")]).await;
    let (kept, running) = (worker.nap(0.0), gate.lease(&worker));
    assert!(worker.run(&kept).await.status().is_success());
    drop(worker.begin(&running));
    coordinator.wait("it runs", |state| state.is_held(running.attempt, HeldState::Running)).await;
    worker.signal(Signal::TERM);
    coordinator
        .wait("it drains", |state| state.heartbeats.last().is_some_and(|last| last.is_draining && last.held.len() == 2))
        .await;
    // Leases are let in until the coordinator has heard of it.
    let is_closed = async || (worker.get("/readyz").await.status().as_u16() == 503).then_some(());
    eventually("it is closed", is_closed).await;
    assert_eq!(worker.run(&worker.nap(0.0)).await.status().as_u16(), 503, "nothing new");
    gate.open();
    coordinator.wait("it waits to be settled", |state| state.is_held(running.attempt, HeldState::Finished)).await;
    coordinator.change(|state| (state.asks_for_outcomes, state.settles_reports) = (true, true));
    assert!(worker.exit_status().await.success());
    let whats = coordinator.wait_for(
        "reports",
        |_| true,
        |state| state.reports.iter().map(|report| report.what.clone()).collect::<Vec<_>>(),
    );
    assert_eq!(whats.await, ["complete", "complete"]);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_handed_back() {
    let coordinator = FakeCoordinator::start(1).await;
    let url = format!("http://{}", coordinator.address);
    let mut worker = Worker::start(&url, &[("DIVVY_DRAIN_TIMEOUT_MS", "0"), ("DIVVY_SLOTS", "2")]).await;
    let (cut, mut waited_for) = (worker.nap(3600.0), worker.nap(3600.0));
    waited_for.body["slot"] = json!(1);
    drop(worker.begin(&cut));
    let mut connection = worker.begin(&waited_for);
    coordinator.wait("both run", |state| state.heartbeats.last().is_some_and(|last| last.held.len() == 2)).await;
    worker.signal(Signal::TERM);
    assert!(worker.exit_status().await.success());
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 503");
    let report = coordinator
        .wait_for("it is released", |state| state.reports.len() == 1, |state| state.reports[0].clone())
        .await;
    assert_eq!((report.what.as_str(), report.attempt), ("release", cut.attempt));
    assert_eq!(report.body["lease"]["first"], 3);
}

#[tokio::test]
async fn a_worker_without_a_coordinator_and_without_leases_goes_at_once() {
    let coordinator = FakeCoordinator::start(1).await;
    let url = format!("http://{}", coordinator.stop().await);
    let mut worker = Worker::start(&url, &[("DIVVY_DRAIN_TIMEOUT_MS", "600000")]).await;
    worker.logged("the coordinator takes no heartbeat").await;
    worker.signal(Signal::TERM);
    assert!(worker.exit_status().await.success());
}

/// Says that it has begun, and that it was told to end, a moment after it was.
const TIDY: &str = r#"[program.tidy]
command = ["/bin/sh", "-c", "trap 'sleep 0.05; echo > ended; exit 1' TERM; echo > begun; while :; do sleep 0.02; done"]
"#;

/// Programs that are handed back. One of them may not end in its grace of half a second on a machine that stands still.
const HANDED_BACK: u32 = 4;

#[tokio::test]
async fn a_program_that_is_handed_back_is_told_to_end_and_has_its_grace() {
    for _ in 0..HANDED_BACK {
        if ends_when_it_is_handed_back().await {
            return;
        }
    }
    panic!("it was killed before it could end by itself");
}

/// Whether a program ends by itself that a worker hands back.
async fn ends_when_it_is_handed_back() -> bool {
    let coordinator = FakeCoordinator::start(1).await;
    let directory = TempDir::new().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let text = |name: &str| place(name).to_str().expect("UTF-8").to_owned();
    let working_directory = format!("working_directory = {:?}\n", text(""));
    fs::write(place("programs.toml"), TIDY.to_owned() + &working_directory).expect("write a file");
    let (names, programs) = (text("programs.toml"), text("programs"));
    let variables =
        [("DIVVY_DRAIN_TIMEOUT_MS", "0"), ("DIVVY_PROGRAMS", names.as_str()), ("DIVVY_PROGRAM_DIR", programs.as_str())];
    let mut worker = Worker::start(&format!("http://{}", coordinator.address), &variables).await;
    let work = json!({"program": "tidy", "limits": {"memory_bytes": 64 << 20, "output_bytes": 0}, "seconds": 60,
        "range": {"from": 0, "to": 9, "step": 1}});
    drop(worker.begin(&worker.lease("program", work)));
    eventually("it runs", async || place("begun").exists().then_some(())).await;
    worker.signal(Signal::TERM);
    assert!(worker.exit_status().await.success());
    // Where a slow machine lets the worker end before its slots, the supervisor removes the directory.
    let is_clean = async || {
        let runs = fs::read_dir(place("programs/scratch")).expect("a directory").flatten();
        let mut left = runs.filter_map(|run| fs::read_dir(run.path()).ok()).flatten().flatten();
        left.all(|entry| entry.file_name() == "lock").then_some(())
    };
    eventually("no scratch directory is left", is_clean).await;
    place("ended").exists()
}
