//! `GET /sum-of-primes` for clients that would rather not wait.

use std::num::NonZeroU64;

use api::{Job, SumOfPrimes};
use coordinator::config::Config;
use model::{JobState, Labels};
use reqwest::Response;
use serde_json::json;

use crate::helpers::{TestCoordinator, config, problem, read};

impl TestCoordinator {
    async fn sum(&self, query: &str, prefer: &str) -> Response {
        let url = format!("http://{}/sum-of-primes?{query}", self.public);
        self.client.get(url).header("Prefer", prefer).send().await.expect("an answer")
    }
}

#[actix_web::test]
async fn who_would_rather_not_wait_gets_a_job() {
    let grid = TestCoordinator::start(config());
    for (prefer, query) in [
        ("respond-async", "a=0&b=100"),
        ("x, Respond-Async", "a=0&b=100&priority=9"),
        ("wait=0", "a=0&b=100"),
        ("Wait = \"0\"; x=1, wait=60", "a=0&b=100"),
    ] {
        let response = grid.sum(query, prefer).await;
        assert_eq!(response.headers()["preference-applied"], "respond-async");
        let location = response.headers()["location"].to_str().expect("text").to_owned();
        let job: Job = read(response, 202).await;
        assert_eq!(location, format!("/v1/jobs/{}", job.id));
        assert_eq!((job.state, job.priority.get()), (JobState::Queued, if query.contains("priority") { 9 } else { 5 }));
        assert_eq!(job.params.get(), r#"{"a":0,"b":100}"#);
    }
    let jobs: api::JobPage = read(grid.get("/v1/jobs").await, 200).await;
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    for job in jobs.jobs {
        assert_eq!(grid.result(job.id).await, json!({"a": 0, "b": 100, "sum": "1060"}));
    }
}

#[actix_web::test]
async fn who_waits_a_while_gets_the_sum_if_it_is_there_by_then() {
    let grid = TestCoordinator::start(config());
    let job: Job = read(grid.sum("a=0&b=100", "wait=1").await, 202).await;
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    let sum: SumOfPrimes = read(grid.sum("a=0&b=100", "respond-async, wait=60").await, 200).await;
    assert_eq!((sum.sum, sum.tasks), (1060, 1));
    assert_eq!(grid.result(job.id).await, json!({"a": 0, "b": 100, "sum": "1060"}));
}

#[actix_web::test]
async fn a_preference_that_nobody_understands_is_none() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    for prefer in ["", "return=minimal", "wait=soon", "respond-asynchronously"] {
        let sum: SumOfPrimes = read(grid.sum("a=0&b=100&priority=1", prefer).await, 200).await;
        assert_eq!(sum.sum, 1060, "{prefer}");
    }
    let jobs: api::JobPage = read(grid.get("/v1/jobs").await, 200).await;
    assert!(jobs.jobs.is_empty(), "who waits for the sum leaves no job");
}

#[actix_web::test]
async fn a_range_of_too_many_tasks_is_stored_by_no_way() {
    let grid = TestCoordinator::start(Config { chunk_size: NonZeroU64::MIN, ..config() });
    let params = json!({"a": 0, "b": u64::MAX, "algorithm": "sieve"});
    let submitted = grid.post("/v1/jobs", &json!({"kind": "sum-of-primes", "params": params})).await;
    let asked = grid.sum(&format!("a=0&b={}&algorithm=sieve", u64::MAX), "respond-async").await;
    for refused in [submitted, asked] {
        let refused = problem(refused, 400).await;
        assert!(refused.detail.ends_with("it has more than 2^53 tasks"), "{refused:?}");
    }
}

#[actix_web::test]
async fn a_wrong_priority_is_named() {
    let grid = TestCoordinator::start(config());
    for priority in ["0", "10", "x", "", "5&priority=5"] {
        let query = format!("a=0&b=100&priority={priority}");
        for prefer in ["", "respond-async"] {
            let problem = problem(grid.sum(&query, prefer).await, 400).await;
            assert_eq!(problem.field.as_deref(), Some("priority"), "{priority}");
        }
    }
}
