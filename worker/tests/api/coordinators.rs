//! Several coordinators, by URLs and by the addresses of a name.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::json;

use crate::helpers::{FakeCoordinator, Worker, eventually, own_address};

/// The answer to a heartbeat may take long on a slow machine.
const PATIENT: &[(&str, &str)] = &[("DIVVY_HEARTBEAT_TIMEOUT_MS", "60000")];

#[tokio::test]
async fn a_coordinator_that_hangs_delays_no_other_and_no_farewell() {
    // It takes connections and reads nothing.
    let hanging = TcpListener::bind(own_address()).expect("bind");
    let hanging_url = format!("http://{}", hanging.local_addr().expect("an address"));
    let (first, second) = (FakeCoordinator::start(1).await, FakeCoordinator::start(1).await);
    let urls = format!("{hanging_url}, http://{},http://{}", first.address, second.address);
    let mut worker = Worker::start(&urls, &[]).await;
    // On a machine that stands still the others may be late as well.
    eventually("the hanging one is told of", async || {
        let lost = worker.log("the coordinator takes no heartbeat");
        lost.iter().any(|lost| lost["coordinator"] == format!("{hanging_url}/")).then_some(())
    })
    .await;
    for coordinator in [&first, &second] {
        coordinator.wait("heartbeats", |state| state.heartbeats.len() >= 3).await;
    }
    worker.wait_for_metric("divvy_worker_coordinators", 2.0).await;
    eventually("it is ready", async || worker.get("/readyz").await.status().is_success().then_some(())).await;
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.exit_status().await.success());
    for coordinator in [&first, &second] {
        coordinator.wait("it was told", |state| state.deregistrations == 1).await;
    }
}

#[tokio::test]
async fn an_outcome_goes_to_the_coordinator_that_asks_for_it() {
    let (asking, other) = (FakeCoordinator::start(1).await, FakeCoordinator::start(1).await);
    let worker = Worker::start(&format!("http://{},http://{}/", other.address, asking.address), &[]).await;
    let lease = worker.nap(0.0);
    assert!(worker.run(&lease).await.status().is_success());
    // The outcome is kept until a coordinator asks for it, so that both coordinators see it.
    other.wait("it is listed to all", |state| state.held(lease.attempt).is_some()).await;
    asking.change(|state| (state.asks_for_outcomes, state.settles_reports) = (true, true));
    other.wait("it is forgotten", |state| state.held(lease.attempt).is_none()).await;
    asking.wait("the outcome", |state| state.reports.len() == 1).await;
    other.wait("no outcome", |state| state.reports.is_empty()).await;
}

#[tokio::test]
async fn a_name_stands_for_all_its_addresses_and_the_last_ones_stay_while_it_cannot_be_looked_up() {
    let addresses = shared_port();
    let first = FakeCoordinator::listen(addresses[0], 1).await;
    let second = FakeCoordinator::listen(addresses[1], 1).await;
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    let entry = |address: SocketAddr| format!("{} coordinators.test\n", address.ip());
    fs::write(hosts.path(), entry(first.address)).expect("write");
    // A file system of its own, in which the name is known.
    let mut command = Command::new("unshare");
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$1\"";
    command.args(["--mount", "sh", "-c", mount]).arg(hosts.path()).arg(env!("CARGO_BIN_EXE_divvy-worker"));
    let url = format!("http://coordinators.test:{}/inside", first.address.port());
    let worker = Worker::spawn(command, &url, PATIENT).await;
    first.wait("a heartbeat", |state| !state.heartbeats.is_empty()).await;
    let asked = first.wait_for("asked", |_| true, |state| state.asked[0].clone()).await;
    let host = format!("coordinators.test:{}", first.address.port());
    assert_eq!(asked, ("/inside/worker/register/worker".to_owned(), host));

    fs::write(hosts.path(), entry(first.address) + &entry(second.address)).expect("write");
    second.wait("a heartbeat", |state| !state.heartbeats.is_empty()).await;
    fs::write(hosts.path(), "").expect("write");
    worker.logged("the coordinators' name cannot be looked up; the last known addresses stay").await;
    first.wait_for_new_heartbeats().await;
    second.wait_for_new_heartbeats().await;

    // An address that is gone from the name is used for as long as it takes heartbeats.
    fs::write(hosts.path(), entry(second.address)).expect("write");
    second.wait_for_new_heartbeats().await;
    first.wait_for_new_heartbeats().await;
    let gone = first.stop().await;
    worker.wait_for_metric("divvy_worker_coordinators", 1.0).await;
    second.wait_for_new_heartbeats().await;
    let again = FakeCoordinator::listen(gone, 1).await;
    second.wait_for_new_heartbeats().await;
    again.wait("no heartbeat", |state| state.heartbeats.is_empty()).await;
}

#[tokio::test]
async fn a_list_of_urls_that_is_wrong_is_refused_and_no_password_is_shown() {
    for (list, expected) in [
        ("http://me:hush@127.0.0.1:1", "DIVVY_WORKER_TOKEN"),
        ("http://127.0.0.1:1,http://127.0.0.1:2/?hush", "a query or a fragment"),
        ("hush", "http://127.0.0.1:8081"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_divvy-worker")).env("DIVVY_COORDINATOR", list).output();
        let output = output.expect("run the worker");
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("DIVVY_COORDINATOR") && message.contains(expected), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }
}

#[tokio::test]
async fn a_worker_whose_name_is_taken_says_so_once_and_comes_back() {
    let coordinator = FakeCoordinator::start(1).await;
    coordinator.change(|state| state.refusal = Some(409));
    let worker = Worker::start(&format!("http://{}", coordinator.address), PATIENT).await;
    coordinator.wait("it goes on to ask", |state| state.heartbeats.len() >= 3).await;
    worker.logged("the coordinator takes no heartbeat").await;
    let warned = worker.log("the coordinator takes no heartbeat");
    assert_eq!((warned.len(), &warned[0]["level"]), (1, &json!("WARN")));
    let error = warned[0]["error"].as_str().expect("text");
    assert_eq!(error, "it answered 409 Conflict: refused for the 1th time");
    assert_eq!(worker.get("/readyz").await.status().as_u16(), 503);
    coordinator.change(|state| state.refusal = None);
    worker.logged("the coordinator takes heartbeats").await;
}

/// Two addresses with the same port.
fn shared_port() -> [SocketAddr; 2] {
    let (first, mut second) = (own_address(), own_address());
    second.set_port(first.port());
    [first, second]
}
