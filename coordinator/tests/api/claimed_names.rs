//! Names of workers that fetch: two that live cannot share one, unless they can do the same.

use std::time::{Duration, Instant};

use api::Claimed;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::helpers::{PATIENCE, TestCoordinator, claim, config, numbered_tasks, pause, problem, read};

const TAKEN: &str = "the name one belongs to a living worker with other kinds, labels or resources: give each worker a \
    worker_id of its own";

#[actix_web::test]
async fn a_worker_that_waits_keeps_its_name_from_one_with_other_abilities() {
    let grid = TestCoordinator::start(config());
    let url = format!("http://{}/v1/worker/claim", grid.internal);
    let waiting = tokio::spawn(grid.client.post(&url).json(&claim("one", &json!({"wait_seconds": 60}))).send());
    grid.wait_for_pulling(1).await;
    for other in [
        json!({"labels": {"gpu": "yes"}}),
        json!({"resources": {"cpus": 2}, "wait_seconds": 30}),
        json!({"kinds": ["tasks"]}),
    ] {
        let refused = problem(grid.post_internal("/v1/worker/claim", &claim("one", &other)).await, 409).await;
        assert_eq!(refused.detail, TAKEN);
    }
    let in_other_order = json!({"kinds": ["tasks", "sleep", "count-primes", "sum-of-primes", "sleep"]});
    for same in [Value::Null, in_other_order] {
        assert!(grid.claim("one", &same).await.is_none(), "the same abilities may be the same worker");
    }
    let job = grid.submit(&numbered_tasks(1)).await;
    let claimed: Claimed = read(waiting.await.expect("no panic").expect("an answer"), 200).await;
    assert_eq!(claimed.job, job.id, "the first one is not robbed");
}

#[actix_web::test]
async fn a_name_is_free_for_other_abilities_when_its_worker_does_not_wait_any_more() {
    let grid = TestCoordinator::start(config());
    let own_connection = api::client::http_client(Duration::from_secs(1)).expect("a client");
    let url = format!("http://{}/v1/worker/claim", grid.internal);
    let waiting = tokio::spawn(own_connection.post(&url).json(&claim("one", &json!({"wait_seconds": 60}))).send());
    grid.wait_for_pulling(1).await;
    let other = claim("one", &json!({"labels": {"gpu": "yes"}}));
    problem(grid.post_internal("/v1/worker/claim", &other).await, 409).await;
    // The abort closes the connection as a kill of the waiting process does.
    waiting.abort();
    drop((waiting.await, own_connection));
    let deadline = Instant::now() + PATIENCE;
    while grid.post_internal("/v1/worker/claim", &other).await.status() != StatusCode::NO_CONTENT {
        assert!(Instant::now() < deadline, "the name is never free");
        pause().await;
    }
}
