//! Leases over a stream (`GET /leases`).

use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use api::client::http_client;
use api::{HeldState, MAX_STREAMED_BYTES};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use service::web_socket::{self, OpenError};

use crate::helpers::{DEADLINE, FakeCoordinator, Lease, Worker};

const RUNNING: &str = "divvy_worker_running_slots";
const CANCELED: &str = r#"divvy_worker_leases_total{outcome="canceled"}"#;
const UNREADABLE: &str = "a coordinator's message cannot be read: the stream of leases ends";

async fn pair(variables: &[(&str, &str)]) -> (FakeCoordinator, Worker) {
    let coordinator = FakeCoordinator::start(1).await;
    let worker = Worker::start(&format!("http://{}", coordinator.address), variables).await;
    (coordinator, worker)
}

/// Opens a stream: messages to the worker, and its answers.
async fn open(
    worker: &Worker,
) -> (impl Sink<String, Error: Debug> + Unpin + use<>, impl Stream<Item = Value> + Unpin + use<>) {
    let request = http_client(DEADLINE).expect("a client").get(worker.url("/leases"));
    let (sink, source) = web_socket::open(request, MAX_STREAMED_BYTES).await.expect("a stream");
    (sink, source.map(|text| serde_json::from_slice(&text.expect("a text")).expect("JSON")))
}

fn order(lease: &Lease) -> String {
    json!({ "lease": lease.body }).to_string()
}

/// A lease that ends with its stream.
fn bound(mut lease: Lease, slot: u32) -> Lease {
    lease.body["outlives_connection"] = json!(false);
    lease.body["slot"] = json!(slot);
    lease
}

#[tokio::test]
async fn leases_of_a_stream_run_side_by_side_and_a_revocation_ends_one() {
    let (_coordinator, worker) = pair(&[("DIVVY_SLOTS", "2")]).await;
    let (mut orders, mut answers) = open(&worker).await;
    let endless = bound(worker.nap(3600.0), 0);
    let sum = bound(worker.lease("sum-of-primes", json!({"a": 10, "b": 3_700_000, "horizon": 3_700_000})), 1);
    orders.send(order(&endless)).await.expect("sent");
    orders.send(order(&sum)).await.expect("sent");
    let answer = answers.next().await.expect("an answer");
    assert_eq!(answer["outcome"]["attempt"], json!(sum.attempt));
    // The worked example of the project's description.
    assert_eq!(answer["outcome"]["value"], "468476582935");
    worker.wait_for_metric(RUNNING, 1.0).await;
    orders.send(json!({ "revoke": endless.attempt }).to_string()).await.expect("sent");
    worker.wait_for_metric(CANCELED, 1.0).await;
    // The slot is free.
    let next = bound(worker.nap(0.0), 0);
    orders.send(order(&next)).await.expect("sent");
    assert_eq!(answers.next().await.expect("an answer")["outcome"]["attempt"], json!(next.attempt));
    // An attempt without a lease, such as one whose answer is on its way.
    orders.send(json!({ "revoke": next.attempt }).to_string()).await.expect("sent");
    let last = bound(worker.nap(0.0), 0);
    orders.send(order(&last)).await.expect("sent");
    assert_eq!(answers.next().await.expect("an answer")["outcome"]["attempt"], json!(last.attempt));
}

#[tokio::test]
async fn a_lease_ends_with_its_stream_unless_it_outlives_the_connection() {
    let (coordinator, worker) = pair(&[("DIVVY_SLOTS", "2")]).await;
    let (mut orders, answers) = open(&worker).await;
    let (bound, mut held) = (bound(worker.nap(3600.0), 0), worker.nap(3600.0));
    held.body["slot"] = json!(1);
    orders.send(order(&bound)).await.expect("sent");
    orders.send(order(&held)).await.expect("sent");
    worker.wait_for_metric(RUNNING, 2.0).await;
    drop((orders, answers));
    worker.wait_for_metric(CANCELED, 1.0).await;
    worker.wait_for_metric(RUNNING, 1.0).await;
    coordinator.wait("the other one runs", |state| state.is_held(held.attempt, HeldState::Running)).await;
    assert!(worker.log(UNREADABLE).is_empty(), "a coordinator ends its streams so");
}

#[tokio::test]
async fn a_lease_without_an_outcome_is_answered_with_the_status_of_a_request() {
    let (_coordinator, worker) = pair(&[]).await;
    let (mut orders, mut answers) = open(&worker).await;
    let mut of_another_run = worker.nap(0.0);
    of_another_run.body["boot_id"] = of_another_run.body["job"].clone();
    let failing = worker.lease("sleep", json!({"seconds": 0, "fail_rate": 1}));
    for (lease, status) in [(of_another_run, 409), (failing, 422), (bound(worker.lease("paint", json!({})), 0), 501)] {
        orders.send(order(&lease)).await.expect("sent");
        let refusal = answers.next().await.expect("an answer")["refusal"].clone();
        assert_eq!((&refusal["attempt"], &refusal["problem"]["status"]), (&json!(lease.attempt), &json!(status)));
        assert!(refusal["problem"]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{refusal}");
    }
}

#[tokio::test]
async fn a_worker_that_stops_hands_the_leases_of_a_stream_back_and_ends_it() {
    let (_coordinator, mut worker) = pair(&[("DIVVY_DRAIN_TIMEOUT_MS", "0"), ("DIVVY_SLOTS", "2")]).await;
    let (mut orders, mut answers) = open(&worker).await;
    let (bound, mut held) = (bound(worker.nap(3600.0), 0), worker.nap(3600.0));
    held.body["slot"] = json!(1);
    orders.send(order(&bound)).await.expect("sent");
    orders.send(order(&held)).await.expect("sent");
    worker.wait_for_metric(RUNNING, 2.0).await;
    worker.signal(Signal::TERM);
    let refusals: Vec<_> =
        answers.by_ref().take(2).map(|answer| answer["refusal"]["problem"]["status"].clone()).collect().await;
    assert_eq!(refusals, [json!(503), json!(503)]);
    assert_eq!(answers.next().await, None, "the stream ends");
    drop((orders, answers));
    assert!(worker.exit_status().await.success());
}

#[tokio::test]
async fn an_unused_stream_does_not_hold_a_stopping_worker_up() {
    let (_coordinator, mut worker) = pair(&[]).await;
    let (orders, mut answers) = open(&worker).await;
    worker.signal(Signal::TERM);
    assert_eq!(answers.next().await, None);
    drop((orders, answers));
    assert!(worker.exit_status().await.success());
}

#[tokio::test]
async fn a_message_that_is_no_order_ends_the_stream_and_nothing_else() {
    let (_coordinator, worker) = pair(&[]).await;
    let too_long = format!(r#"{{"lease": "{}"}}"#, "x".repeat(MAX_STREAMED_BYTES));
    for wrong in ["", "{}", "[]", r#"{"lease": {}}"#, r#"{"revoke": "me"}"#, r#"{"paint": 1}"#, &too_long] {
        let (mut orders, mut answers) = open(&worker).await;
        orders.send(wrong.to_owned()).await.expect("sent");
        assert_eq!(answers.next().await, None, "{:.40}", wrong);
    }
    worker.logged(UNREADABLE).await;
    let (mut orders, mut answers) = open(&worker).await;
    orders.send(order(&worker.nap(0.0))).await.expect("sent");
    assert!(answers.next().await.is_some());
}

#[tokio::test]
async fn a_message_above_the_bound_ends_the_stream_before_the_rest_of_it_has_come() {
    let (_coordinator, worker) = pair(&[]).await;
    let mut stream = TcpStream::connect(worker.address).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let fields = "host: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13";
    let head = format!("GET /leases HTTP/1.1\r\n{fields}\r\nsec-websocket-key: ZGl2dnkgbWVzc2FnZXMgLg==\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("send the head");
    // The head of a masked text of 2^40 bytes, and more of it than a message may have.
    let mut frame = vec![0x81_u8, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame.resize(MAX_STREAMED_BYTES + 100, 0);
    stream.write_all(&frame).expect("send a part of a message");
    let (mut received, close_frame) = (Vec::new(), [0x88_u8, 0]);
    while !received.ends_with(&close_frame) {
        let mut part = [0_u8; 1024];
        let length = stream.read(&mut part).expect("the worker closes the stream");
        assert_ne!(length, 0, "{received:?}");
        received.extend_from_slice(&part[..length]);
    }
    assert!(received.starts_with(b"HTTP/1.1 101 "), "{received:?}");
}

#[tokio::test]
async fn a_stream_demands_the_token_and_a_web_socket() {
    let (_coordinator, worker) = pair(&[("DIVVY_WORKER_TOKEN", "hush")]).await;
    let request = || http_client(DEADLINE).expect("a client").get(worker.url("/leases"));
    let status_of = async |request| match web_socket::open(request, MAX_STREAMED_BYTES).await {
        Err(OpenError::Status(status)) => status.as_u16(),
        Err(error @ OpenError::Request(_)) => panic!("{error:?}"),
        Ok(_) => 101,
    };
    assert_eq!(status_of(request()).await, 401);
    assert_eq!(status_of(request().bearer_auth("other")).await, 401);
    assert_eq!(status_of(request().bearer_auth("hush")).await, 101);
    let of_a_page = request().bearer_auth("hush").header("origin", "http://evil.example");
    assert_eq!(status_of(of_a_page).await, 403, "a browser lets a page open a WebSocket to any origin");
    let plain = worker.send(request().bearer_auth("hush")).await;
    assert_eq!(plain.status().as_u16(), 400);
    let problem: Value = plain.json().await.expect("a problem");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("WebSocket")), "{problem}");
}
