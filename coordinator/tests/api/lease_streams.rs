//! Leases over streams of workers that end them.

use std::future::ready;
use std::time::Instant;

use actix_web::web::{self, Json, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use api::{Heartbeat, LeaseRequest, MAX_STREAMED_BYTES};
use futures_util::StreamExt;
use service::{ApiError, web_socket};
use tokio::task::JoinHandle;

use crate::helpers::{ANY_PORT, PATIENCE, TestCoordinator, compute, config, heartbeat, pause};

/// Starts a worker that answers requests well, and closes each stream when a lease comes.
fn start_closing_worker() -> (Heartbeat, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind(ANY_PORT).expect("a free port");
    let heartbeat = heartbeat(listener.local_addr().expect("bound").port());
    let lease = |lease: Json<LeaseRequest>| async move { compute(lease.into_inner()) };
    let app = move || {
        App::new().route("/lease", web::post().to(lease)).route("/leases", web::get().to(close_with_the_first_lease))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("serve").run();
    (heartbeat, tokio::spawn(async move { server.await.expect("serve") }))
}

async fn close_with_the_first_lease(request: HttpRequest, body: Payload) -> Result<HttpResponse, ApiError> {
    let orders = web_socket::received(body, MAX_STREAMED_BYTES);
    web_socket::accept(&request, orders.take(1).filter_map(|_| ready(None)))
}

/// Whether no lease has ended so.
async fn is_none(grid: &TestCoordinator, outcome: &str) -> bool {
    let line = format!("divvy_leases_total{{outcome=\"{outcome}\"}} 0");
    grid.get_internal("/metrics").await.text().await.expect("text").lines().any(|found| found == line)
}

#[actix_web::test]
async fn a_lease_on_a_stream_that_its_worker_closes_is_handed_back_and_sent_again() {
    let grid = TestCoordinator::start(config());
    let (heartbeat, serving) = start_closing_worker();
    assert_eq!(grid.register("closing", &heartbeat).await.status(), 200);
    let since = Instant::now();
    // The first lease of each thread is a request, and so is the one after a stream.
    while is_none(&grid, "returned").await {
        assert!(since.elapsed() < PATIENCE, "no lease went over a stream");
        let url = format!("http://{}/sum-of-primes?a=1&b=10", grid.public);
        let sum = tokio::spawn(grid.client.get(url).send());
        while !sum.is_finished() {
            // The worker is suspended for a while, until its next heartbeat.
            assert_eq!(grid.register("closing", &heartbeat).await.status(), 200);
            pause().await;
        }
        let answer = sum.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("text");
        assert!(text.contains(r#""sum":"17""#), "{text}");
    }
    for outcome in ["disconnected", "failed", "expired"] {
        assert!(is_none(&grid, outcome).await, "{outcome}");
    }
    serving.abort();
}
