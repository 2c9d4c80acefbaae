//! Pulling workers that hand the last tasks of a lease back.

use api::Claimed;
use model::JobState;
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, config, indices, numbered_tasks, problem};

/// The body of a request that hands the tasks from `beyond` on back.
fn rest(claimed: &Claimed, beyond: u64) -> Value {
    let mut lease = claimed.lease.clone();
    lease.beyond = beyond;
    json!({ "lease": lease, "beyond": beyond })
}

#[actix_web::test]
async fn the_rest_of_a_lease_is_free_for_others_and_the_lease_goes_on_without_it() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(8)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 8})).await;
    for beyond in [3, 3, 8] {
        assert_eq!(grid.report(&claimed, "release", &json!({ "beyond": beyond })).await.status(), 204);
    }
    let other = grid.claimed("two", &json!({"max_tasks": 8})).await;
    assert_eq!(indices(&other), [3, 4, 5, 6, 7]);
    assert_eq!(grid.report(&claimed, "renew", &Value::Null).await.status(), 200);
    let of_all = json!({"results": [0, 1, 2, 3, 4, 5, 6, 7]});
    problem(grid.report(&claimed, "complete", &of_all).await, 400).await;
    grid.complete(&claimed, &json!([0, 1, 2])).await;
    problem(grid.report(&claimed, "release", &json!({"beyond": 3})).await, 409).await;
    grid.complete(&other, &json!([3, 4, 5, 6, 7])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1, 2, 3, 4, 5, 6, 7]}));
    assert_eq!(grid.job_in(job.id, JobState::Succeeded).await.attempts, 2);
}

#[actix_web::test]
async fn a_lease_that_cannot_be_divided_there_keeps_all_its_tasks() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
    problem(grid.report(&claimed, "release", &json!({"beyond": 0})).await, 422).await;
    problem(grid.report(&claimed, "release", &json!({"behind": 1})).await, 400).await;
    assert!(grid.claim("two", &Value::Null).await.is_none());
    grid.complete(&claimed, &json!([0, 1])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1]}));
}

#[actix_web::test]
async fn the_rest_may_be_handed_back_to_a_coordinator_that_was_started_since() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(4)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 4})).await;
    let grid = grid.restart(config()).await;
    let other = grid.claimed("two", &json!({"max_tasks": 4})).await;
    assert_eq!(indices(&other), [0, 1, 2, 3]);
    problem(grid.report(&claimed, "release", &rest(&claimed, 1)).await, 409).await;
    assert_eq!(grid.report(&other, "release", &rest(&other, 2)).await.status(), 204);
    let grid = grid.restart(config()).await;
    assert_eq!(grid.report(&other, "release", &rest(&other, 2)).await.status(), 204);
    let next = grid.claimed("one", &json!({"max_tasks": 4})).await;
    assert_eq!(indices(&next), [2, 3]);
    grid.complete(&other, &json!([0, 1])).await;
    grid.complete(&next, &json!([2, 3])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1, 2, 3]}));
}
