//! Programs whose coordinator is silent or refuses their bytes, outputs or stderr.

use std::fs;
use std::time::Duration;

use api::HeldState;
use model::ProgramHash;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::helpers::{FakeCoordinator, FakeState, Lease, Worker};

/// Prints more than what stands in an outcome.
const FLOOD: &str = "[program.flood]\ncommand = [\"/bin/sh\", \"-c\", \"head -c 70000 /dev/zero | tr '\\\\0' x\"]\n";

const TALK: &str = "[program.talk]\ncommand = [\"/bin/sh\", \"-c\", \"echo last words >&2\"]\n";

/// A lease of a program by the first leader.
fn lease(worker: &Worker, program: &str) -> Lease {
    let work = json!({"program": program, "limits": {"memory_bytes": 64 << 20, "output_bytes": 1 << 20}, "seconds": 60,
        "range": {"from": 0, "to": 9, "step": 1}, "hand_in_above": 65_536});
    let mut lease = worker.lease("program", work);
    lease.body["epoch"] = json!(2);
    lease
}

/// Two coordinators, of which the first leads, and their worker, with its directory.
async fn grid() -> (FakeCoordinator, FakeCoordinator, Worker, TempDir) {
    let (first, second) = (FakeCoordinator::start(2).await, FakeCoordinator::start(1).await);
    let directory = TempDir::new().expect("a directory");
    let names = directory.path().join("programs.toml");
    fs::write(&names, format!("{FLOOD}{TALK}")).expect("write a file");
    let programs = directory.path().join("programs");
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let variables = [("DIVVY_PROGRAMS", path(&names)), ("DIVVY_PROGRAM_DIR", path(&programs))];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let urls = format!("http://{},http://{}", first.address, second.address);
    let worker = Worker::start(&urls, &variables).await;
    for coordinator in [&first, &second] {
        coordinator.wait("two heartbeats", |state| state.heartbeats.len() >= 2).await;
    }
    (first, second, worker, directory)
}

#[tokio::test]
async fn an_output_goes_to_the_next_leader_where_the_first_one_took_it_and_says_nothing() {
    let (first, second, worker, _directory) = grid().await;
    first.change(|state| state.is_silent = true);
    let lease = lease(&worker, "flood");
    let _connection = worker.begin(&lease);
    first.wait("the output comes", |state| state.outputs == [70_000]).await;
    second.change(|state| state.epoch = 3);
    second.wait("it comes to the next one", |state| state.outputs == [70_000]).await;
    second.wait("it is done", |state| state.is_held(lease.attempt, HeldState::Finished)).await;
}

#[tokio::test]
async fn a_program_is_fetched_of_the_next_leader_where_the_first_one_says_nothing() {
    let (first, second, worker, _directory) = grid().await;
    first.change(|state| state.is_silent = true);
    let lease = lease(&worker, &"ab".repeat(32));
    let _connection = worker.begin(&lease);
    first.wait("it is asked", |state| state.fetches == 1).await;
    second.change(|state| state.epoch = 3);
    second.wait("the next one is asked", |state| state.fetches == 1).await;
}

/// Asserts that the age of a lease stands still.
async fn grows_no_older(first: &FakeCoordinator, lease: &Lease) {
    first.wait_for_new_heartbeats().await;
    let age = |state: &FakeState| state.held(lease.attempt).map(|held| held.elapsed_ms);
    let before = first.wait_for("it is listed", |state| age(state).is_some(), age).await.expect("listed");
    // At least two heartbeats each time, which leave once a second.
    for _ in 0..2 {
        first.wait_for_new_heartbeats().await;
    }
    let after = first.wait_for("it is listed", |state| age(state).is_some(), age).await.expect("listed");
    let between = Duration::from_millis(after.saturating_sub(before));
    assert!(between < Duration::from_millis(1_500), "{between:?} in three seconds or more");
}

#[tokio::test]
async fn an_attempt_grows_no_older_while_its_output_is_handed_in() {
    let (first, _second, worker, _directory) = grid().await;
    first.change(|state| state.is_silent = true);
    let lease = lease(&worker, "flood");
    let _connection = worker.begin(&lease);
    first.wait("the output comes", |state| state.outputs == [70_000]).await;
    grows_no_older(&first, &lease).await;
}

#[tokio::test]
async fn an_attempt_grows_no_older_while_its_program_is_fetched() {
    let (first, _second, worker, _directory) = grid().await;
    first.change(|state| state.is_silent = true);
    let lease = lease(&worker, &"ab".repeat(32));
    let _connection = worker.begin(&lease);
    first.wait("it is asked for the program", |state| state.fetches == 1).await;
    grows_no_older(&first, &lease).await;
}

#[tokio::test]
async fn an_output_waits_for_its_worker_to_be_known_again_where_its_credential_is_refused() {
    let (first, _second, worker, _directory) = grid().await;
    first.change(|state| state.output_status = Some(401));
    let lease = lease(&worker, "flood");
    let _connection = worker.begin(&lease);
    first.wait("it comes again", |state| state.outputs.len() >= 2).await;
    first.change(|state| state.output_status = None);
    first.wait("its outcome is kept", |state| state.is_held(lease.attempt, HeldState::Finished)).await;
    first.change(|state| state.asks_for_outcomes = true);
    let report = first.wait_for(
        "a report",
        |state| state.report(lease.attempt).is_some(),
        |state| state.report(lease.attempt).cloned(),
    );
    assert_eq!(report.await.expect("reported").what, "complete");
}

#[tokio::test]
async fn the_last_words_of_a_program_are_reported_until_a_coordinator_takes_them() {
    let (first, second, worker, _directory) = grid().await;
    first.change(|state| state.log_status = Some(503));
    let _connection = worker.begin(&lease(&worker, "talk"));
    let last_reports = |state: &FakeState| state.logs.iter().filter(|report| report.is_final).count();
    first.wait("they are refused again and again", |state| last_reports(state) > 3).await;
    second.change(|state| state.epoch = 3);
    let has_them = |state: &FakeState| state.logs.iter().any(|log| log.is_final && log.text == "last words\n");
    second.wait("the next one has them", has_them).await;
}

#[tokio::test]
async fn a_worker_whose_directory_is_removed_makes_it_again() {
    let (first, _second, worker, directory) = grid().await;
    fs::remove_dir_all(directory.path().join("programs")).expect("remove the directory");
    let lease = lease(&worker, "flood");
    let _connection = worker.begin(&lease);
    first.wait("the output comes", |state| state.outputs == [70_000]).await;
}

#[tokio::test]
async fn what_a_killed_worker_with_the_same_process_number_left_keeps_no_program_from_being_fetched() {
    let (first, _second, worker, directory) = grid().await;
    let program = b"#!/bin/sh\n".to_vec();
    let hash = ProgramHash(Sha256::digest(&program).into()).to_string();
    let kept = directory.path().join("programs/programs");
    for number in 0..100 {
        fs::write(kept.join(format!("{hash}.{}.{number}.part", worker.process())), "#!/").expect("write a file");
    }
    first.change(|state| state.program = program);
    let lease = lease(&worker, &hash);
    let _connection = worker.begin(&lease);
    first.wait("it ends", |state| state.is_held(lease.attempt, HeldState::Finished)).await;
    assert!(kept.join(&hash).exists());
}

#[tokio::test]
async fn a_program_that_is_too_long_for_the_worker_fails_its_task_and_not_the_worker() {
    let coordinator = FakeCoordinator::start(2).await;
    coordinator.change(|state| state.program = b"#!/bin/sh\n".to_vec());
    let directory = TempDir::new().expect("a directory");
    let programs = directory.path().join("programs");
    let programs = programs.to_str().expect("UTF-8");
    let variables = [("DIVVY_PROGRAM_DIR", programs), ("DIVVY_PROGRAM_CACHE_BYTES", "9")];
    let worker = Worker::start(&format!("http://{}", coordinator.address), &variables).await;
    coordinator.wait("two heartbeats", |state| state.heartbeats.len() >= 2).await;
    let answer = worker.run(&lease(&worker, &"ab".repeat(32))).await;
    assert_eq!(answer.status().as_u16(), 422);
    let problem: serde_json::Value = answer.json().await.expect("a problem");
    let detail = problem["detail"].as_str().expect("text");
    assert_eq!(detail, "the program is longer than 9 bytes (DIVVY_PROGRAM_CACHE_BYTES)");
}
