//! Probes and metrics.

use serde_json::json;

use crate::helpers::{TestCoordinator, compute, config};

#[actix_web::test]
async fn both_ports_are_alive_and_ready() {
    let grid = TestCoordinator::start(config());
    for path in ["/livez", "/readyz"] {
        assert_eq!(grid.get(path).await.status(), 200);
        assert_eq!(grid.get_internal(path).await.status(), 200);
    }
}

#[actix_web::test]
async fn metrics_tell_requests_leases_queue_and_workers() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_worker("one", compute).await;
    assert_eq!(grid.get("/sum-of-primes?a=1&b=10").await.status(), 200);
    assert_eq!(grid.get("/sum-of-primes?a=1").await.status(), 400);
    let metrics = grid.get_internal("/metrics").await.text().await.expect("text");
    for line in [
        "divvy_http_requests_total{route=\"/sum-of-primes\",code=\"200\"} 1",
        "divvy_http_requests_total{route=\"/sum-of-primes\",code=\"400\"} 1",
        "divvy_http_request_duration_seconds_count{route=\"/sum-of-primes\"} 2",
        "divvy_leases_total{outcome=\"completed\"} 1",
        "divvy_lease_duration_seconds_count 1",
        "divvy_refused_outcomes_total 0",
        "divvy_queue_depth_tasks 0",
        "divvy_workers{state=\"ready\"} 1",
        "divvy_workers{state=\"suspended\"} 0",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no line {line:?} in:\n{metrics}");
    }
}

/// An autoscaler must add no pushed workers for jobs that only pulling workers can run.
#[actix_web::test]
async fn metrics_tell_wanted_slots_by_kind() {
    let grid = TestCoordinator::start(config());
    grid.submit(&json!({ "kind": "tasks", "params": { "list": [1, 2, 3] } })).await;
    grid.submit(&json!({ "kind": "sleep", "params": { "seconds": 1, "tasks": 2, "tasks_per_lease": 1 } })).await;
    let metrics = grid.get_internal("/metrics").await.text().await.expect("text");
    for line in [
        "divvy_wanted_slots 5",
        "divvy_wanted_slots_by_kind{kind=\"tasks\"} 3",
        "divvy_wanted_slots_by_kind{kind=\"sleep\"} 2",
        "divvy_wanted_slots_by_kind{kind=\"program\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no line {line:?} in:\n{metrics}");
    }
}
