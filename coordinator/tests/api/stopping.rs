//! A coordinator that stops ends endless requests, and loses nothing.

use std::time::{Duration, Instant};

use coordinator::config::Config;
use model::EventKind;
use serde_json::{Value, json};

use crate::helpers::{EventStream, TestCoordinator, claim, config, numbered_tasks, problem};

/// Much longer than anything here should take.
fn patient() -> Config {
    Config { drain_timeout_ms: 30_000, ..config() }
}

#[actix_web::test]
async fn streams_and_waits_end_at_once() {
    let grid = TestCoordinator::start(patient());
    let job = grid.submit(&numbered_tasks(1)).await;
    let mut of_job = EventStream::open(&grid, &format!("/v1/jobs/{}/events", job.id), None).await;
    let mut of_all = EventStream::open(&grid, "/v1/events?after=0", None).await;
    // Both requests have begun.
    assert_eq!(of_job.next().await.expect("an event").kind, EventKind::Submitted);
    assert_eq!(of_all.next().await.expect("an event").kind, EventKind::Submitted);
    let url = format!("http://{}/v1/jobs/{}/result?wait=60s", grid.public, job.id);
    let result = tokio::spawn(grid.client.get(url).send());
    let url = format!("http://{}/v1/worker/claim", grid.internal);
    let waiting = claim("one", &json!({"wait_seconds": 60, "kinds": ["sleep"]}));
    let claim = tokio::spawn(grid.client.post(url).json(&waiting).send());
    // The last of the two is known when its worker is.
    grid.wait_for_pulling(1).await;
    let stopped_at = Instant::now();
    let data_dir = grid.stop().await;
    assert!(stopped_at.elapsed() < Duration::from_secs(15), "it took {:?}", stopped_at.elapsed());
    assert_eq!((of_job.next().await, of_all.next().await), (None, None));
    // Either it was answered, or it came too late to be.
    if let Ok(answer) = result.await.expect("no panic") {
        problem(answer, 409).await;
    }
    if let Ok(answer) = claim.await.expect("no panic") {
        problem(answer, 503).await;
    }
    let grid = TestCoordinator::start_on(data_dir, config()).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    assert_eq!(claimed.job, job.id);
}

#[actix_web::test]
async fn the_store_is_closed_by_then() {
    let grid = TestCoordinator::start(config());
    grid.submit(&numbered_tasks(1)).await;
    let data_dir = grid.stop().await;
    // SQLite deletes its write-ahead log with the last connection.
    assert!(data_dir.path().join("divvy.db").exists());
    assert!(!data_dir.path().join("divvy.db-wal").exists(), "a connection is open");
}
