//! Leases over streams of workers that end them, or answer badly.

use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::web::{self, Data, Json, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use api::{Heartbeat, LeaseRequest, MAX_STREAMED_BYTES, StreamedOrder};
use futures_util::StreamExt;
use futures_util::stream::iter;
use serde_json::json;
use service::{ApiError, web_socket};
use tokio::task::JoinHandle;

use crate::helpers::{ANY_PORT, PATIENCE, TestCoordinator, compute, config, heartbeat, pause};

/// The messages that answer a lease.
type Answers = fn(&LeaseRequest) -> Vec<String>;

/// The behavior of a worker's streams.
struct Streams {
    /// The messages that answer the first lease of each stream; without one the worker closes the stream.
    first_answer: Answers,
    /// Leases that were answered so.
    first_leases: AtomicU64,
}

/// Starts a worker that answers requests well.
fn start_worker(streams: Data<Streams>) -> (Heartbeat, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind(ANY_PORT).expect("a free port");
    let heartbeat = heartbeat(listener.local_addr().expect("bound").port());
    let lease = |lease: Json<LeaseRequest>| async move { compute(lease.into_inner()) };
    let app = move || {
        let app = App::new().app_data(streams.clone());
        app.route("/lease", web::post().to(lease)).route("/leases", web::get().to(answer))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("serve").run();
    (heartbeat, tokio::spawn(async move { server.await.expect("serve") }))
}

async fn answer(streams: Data<Streams>, request: HttpRequest, body: Payload) -> Result<HttpResponse, ApiError> {
    let orders = web_socket::received(body, MAX_STREAMED_BYTES).filter_map(|order| ready(order.ok()));
    let leases = orders.filter_map(|order| {
        ready(match serde_json::from_slice::<StreamedOrder>(&order).expect("an order") {
            StreamedOrder::Lease(lease) => Some(lease),
            StreamedOrder::Revoke(_) => None,
        })
    });
    let answers = leases.enumerate().map(move |(number, lease)| {
        if number > 0 {
            return vec![outcome(&lease, "17")];
        }
        streams.first_leases.fetch_add(1, Ordering::SeqCst);
        (streams.first_answer)(&lease)
    });
    web_socket::accept(&request, answers.take_while(|answer| ready(!answer.is_empty())).flat_map(iter))
}

fn outcome(lease: &LeaseRequest, value: &str) -> String {
    json!({ "outcome": { "attempt": lease.attempt, "value": value, "compute_us": 1 } }).to_string()
}

fn refusal(lease: &LeaseRequest, status: u16) -> String {
    let problem = json!({ "title": "", "status": status, "detail": "no" });
    json!({ "refusal": { "attempt": lease.attempt, "problem": problem } }).to_string()
}

/// A grid with one worker, whose first streamed lease was answered so, and whose sums are right all the same.
async fn grid_after(first_answer: Answers) -> TestCoordinator {
    let grid = TestCoordinator::start(config());
    let streams = Data::new(Streams { first_answer, first_leases: AtomicU64::new(0) });
    let (heartbeat, serving) = start_worker(streams.clone());
    assert_eq!(grid.register("streaming", &heartbeat).await.status(), 200);
    let since = Instant::now();
    // The first lease of each of the coordinator's threads is a request, and so is the one after a stream.
    while streams.first_leases.load(Ordering::SeqCst) == 0 {
        assert!(since.elapsed() < PATIENCE, "no lease went over a stream");
        let url = format!("http://{}/sum-of-primes?a=1&b=10", grid.public);
        let sum = tokio::spawn(grid.client.get(url).send());
        while !sum.is_finished() {
            // The worker may be suspended until a heartbeat.
            assert_eq!(grid.register("streaming", &heartbeat).await.status(), 200);
            pause().await;
        }
        let answer = sum.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("text");
        assert!(text.contains(r#""sum":"17""#), "{text}");
    }
    serving.abort();
    grid
}

/// The outcomes of leases that are no success.
async fn failures(grid: &TestCoordinator) -> Vec<String> {
    let metrics = grid.get_internal("/metrics").await.text().await.expect("text");
    let leases = metrics.lines().filter_map(|line| line.strip_prefix("divvy_leases_total{outcome=\""));
    let counts = leases.filter_map(|line| line.split_once("\"} "));
    let failed = counts.filter(|(outcome, count)| *outcome != "completed" && *count != "0");
    failed.map(|(outcome, _)| outcome.to_owned()).collect()
}

#[actix_web::test]
async fn a_lease_on_a_stream_that_its_worker_closes_is_handed_back_and_sent_again() {
    let grid = grid_after(|_| Vec::new()).await;
    assert_eq!(failures(&grid).await, ["returned"]);
}

#[actix_web::test]
async fn a_wrong_answer_of_a_stream_fails_its_lease_and_no_sum() {
    let cases: [(Answers, &str); 4] = [
        (|_| vec!["garbage".to_owned()], "disconnected"),
        (|lease| vec![refusal(lease, 503)], "returned"),
        (|lease| vec![refusal(lease, 7)], "failed"),
        (|lease| vec![outcome(lease, &u128::MAX.to_string())], "failed"),
    ];
    for (first_answer, end) in cases {
        assert_eq!(failures(&grid_after(first_answer).await).await, [end]);
    }
}

#[actix_web::test]
async fn an_outcome_counts_once_though_a_stream_brings_it_twice() {
    let grid = grid_after(|lease| vec![outcome(lease, "17"); 2]).await;
    assert!(failures(&grid).await.is_empty());
}
