//! Pulling workers that hand the last tasks of a lease back.

use api::Claimed;
use coordinator::config::Config;
use model::JobState;
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, config, indices, numbered_tasks, problem, with};

/// The body of a request that names the lease without the tasks from `beyond` on.
fn before(claimed: &Claimed, beyond: u64) -> Value {
    let mut lease = claimed.lease.clone();
    lease.beyond = beyond;
    json!({ "lease": lease })
}

/// The body of a request that hands the tasks from `beyond` on back.
fn rest(claimed: &Claimed, beyond: u64) -> Value {
    with(before(claimed, beyond), &json!({ "beyond": beyond }))
}

/// A coordinator and a lease of all tasks of a sum of primes: the first three sum up to 129, the last one to 97 and all to 1060.
async fn claimed_sum() -> (TestCoordinator, model::JobId, Claimed) {
    let grid = TestCoordinator::start(Config { chunk_size: 9.try_into().expect("9"), ..config() });
    let job = grid.submit(&json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 100}})).await.id;
    let claimed = grid.claimed("one", &json!({"max_tasks": 10})).await;
    assert_eq!(indices(&claimed), (0..10).collect::<Vec<_>>());
    (grid, job, claimed)
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

#[actix_web::test]
async fn a_value_that_overtakes_the_division_of_its_lease_counts_for_the_tasks_that_it_names() {
    let (grid, job, claimed) = claimed_sum().await;
    let first = with(before(&claimed, 3), &json!({"value": "129"}));
    assert_eq!(grid.report(&claimed, "complete", &first).await.status(), 204);
    problem(grid.report(&claimed, "release", &rest(&claimed, 3)).await, 409).await;
    let other = grid.claimed("two", &json!({"max_tasks": 10})).await;
    assert_eq!(indices(&other), (3..10).collect::<Vec<_>>());
    assert_eq!(grid.report(&other, "complete", &json!({"value": "931"})).await.status(), 204);
    assert_eq!(grid.result(job).await["sum"], "1060");
}

#[actix_web::test]
async fn a_value_of_tasks_that_were_handed_back_does_not_count() {
    let (grid, job, claimed) = claimed_sum().await;
    assert_eq!(grid.report(&claimed, "release", &rest(&claimed, 9)).await.status(), 204);
    let all = json!({"value": "1060", "lease": claimed.lease});
    problem(grid.report(&claimed, "complete", &all).await, 422).await;
    let other = grid.claimed("two", &json!({"max_tasks": 10})).await;
    assert_eq!(grid.report(&other, "complete", &json!({"value": "97"})).await.status(), 204);
    // A renewal from before the division prolongs what is left of the lease.
    assert_eq!(grid.report(&claimed, "renew", &json!({ "lease": claimed.lease })).await.status(), 200);
    let first = with(before(&claimed, 9), &json!({"value": "963"}));
    assert_eq!(grid.report(&claimed, "complete", &first).await.status(), 204);
    assert_eq!(grid.result(job).await["sum"], "1060");
}

#[actix_web::test]
async fn a_failure_that_overtakes_the_division_of_its_lease_is_none_of_the_tasks_handed_back() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(3), &json!({"max_attempts": 1}))).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 3})).await;
    let failed = with(before(&claimed, 1), &json!({"error": "the first"}));
    assert_eq!(grid.report(&claimed, "fail", &failed).await.status(), 204);
    let other = grid.claimed("two", &json!({"max_tasks": 3})).await;
    assert_eq!(indices(&other), [1, 2]);
    grid.complete(&other, &json!([1, 2])).await;
    let job = grid.job_in(job.id, JobState::Failed).await;
    assert_eq!((job.tasks.succeeded, job.tasks.failed), (2, 1));
}

#[actix_web::test]
async fn a_late_renewal_at_a_new_coordinator_keeps_tasks_that_were_handed_back_only_until_the_next_report() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(8)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 8})).await;
    assert_eq!(grid.report(&claimed, "release", &rest(&claimed, 3)).await.status(), 204);
    let grid = grid.restart(config()).await;
    // Written before the division, and sent again to the coordinator that was started since.
    assert_eq!(grid.report(&claimed, "renew", &json!({ "lease": claimed.lease })).await.status(), 200);
    assert!(grid.claim("two", &Value::Null).await.is_none());
    assert_eq!(grid.report(&claimed, "renew", &before(&claimed, 3)).await.status(), 200);
    let other = grid.claimed("two", &json!({"max_tasks": 8})).await;
    assert_eq!(indices(&other), [3, 4, 5, 6, 7]);
    grid.complete(&other, &json!([3, 4, 5, 6, 7])).await;
    let first = with(before(&claimed, 3), &json!({"results": [0, 1, 2]}));
    assert_eq!(grid.report(&claimed, "complete", &first).await.status(), 204);
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1, 2, 3, 4, 5, 6, 7]}));
}

#[actix_web::test]
async fn a_renewal_that_is_held_up_over_a_restart_while_its_lease_is_handed_back_costs_no_attempt() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(2), &json!({"max_attempts": 1}))).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
    let named = json!({ "lease": claimed.lease });
    assert_eq!(grid.report(&claimed, "release", &named).await.status(), 204);
    let grid = grid.restart(Config { lease_timeout_ms: 5_000, ..config() }).await;
    assert_eq!(grid.report(&claimed, "renew", &named).await.status(), 200);
    let other = grid.claimed("two", &json!({"max_tasks": 2, "wait_seconds": 30})).await;
    assert_eq!(indices(&other), [0, 1]);
    assert_eq!(grid.report(&other, "complete", &json!({"results": [0, 1]})).await.status(), 204);
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1]}));
    assert_eq!(grid.job_in(job.id, JobState::Succeeded).await.attempts, 1);
}

#[actix_web::test]
async fn a_report_on_an_attempt_that_names_the_lease_of_another_is_refused() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(4)).await;
    let first = grid.claimed("one", &json!({"max_tasks": 2})).await;
    let second = grid.claimed("two", &json!({"max_tasks": 2})).await;
    let outcome = json!({"results": ["a", "b"]});
    for wrong in [json!({"worker_id": "two"}), json!({"first": 1}), json!({"job": first.attempt})] {
        let lease = with(json!(first.lease), &wrong);
        for (how, body) in [
            ("renew", json!({})),
            ("release", json!({})),
            ("fail", json!({"error": "wrong"})),
            ("complete", outcome.clone()),
        ] {
            let body = with(body, &json!({ "lease": lease }));
            let refused = problem(grid.report(&first, how, &body).await, 409).await;
            assert_eq!(refused.detail, "the report names another lease than the attempt holds", "{how} {wrong}");
        }
    }
    let crossed = with(outcome, &json!({ "lease": second.lease }));
    problem(grid.report(&first, "complete", &crossed).await, 409).await;
    grid.complete(&first, &json!([0, 1])).await;
    grid.complete(&second, &json!([2, 3])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1, 2, 3]}));
}

#[actix_web::test]
async fn a_hand_back_that_is_sent_again_and_names_the_whole_lease_is_taken_while_another_worker_has_the_rest() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(4)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 4})).await;
    let whole = json!({"beyond": 2, "lease": claimed.lease});
    assert_eq!(grid.report(&claimed, "release", &whole).await.status(), 204);
    let other = grid.claimed("two", &json!({"max_tasks": 4})).await;
    assert_eq!(indices(&other), [2, 3]);
    let grid = grid.restart(config()).await;
    assert_eq!(grid.report(&other, "renew", &json!({ "lease": other.lease })).await.status(), 200);
    assert_eq!(grid.report(&claimed, "release", &whole).await.status(), 204);
    grid.complete(&claimed, &json!([0, 1])).await;
    grid.complete(&other, &json!([2, 3])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1, 2, 3]}));
}
