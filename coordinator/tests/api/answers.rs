//! Sums, and the answers to requests without one.

use api::{SumOfPrimes, WorkerState, WorkerSummary};
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, compute, config, impatient, problem, refuse};

#[actix_web::test]
async fn a_sum_is_the_decimal_string_of_the_parts_total() {
    let small_chunks = coordinator::config::Config { chunk_size: 10.try_into().expect("10"), ..config() };
    let grid = TestCoordinator::start(small_chunks);
    let _worker = grid.add_worker("one", compute).await;
    let answer: Value = grid.get("/sum-of-primes?a=0&b=100").await.json().await.expect("JSON");
    assert_eq!((&answer["a"], &answer["b"]), (&0.into(), &100.into()));
    assert_eq!((&answer["sum"], &answer["tasks"]), (&"1060".into(), &10.into()));
    assert!(answer["elapsed_ms"].is_u64(), "{answer}");
    assert_eq!((&answer["algorithm"], &answer["verified"]), (&"sieve".into(), &false.into()));
    assert_eq!(answer.as_object().expect("an object").len(), 7);
}

#[actix_web::test]
async fn the_list_of_workers_says_what_each_has_shown() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_worker("one", compute).await;
    let answer: SumOfPrimes = grid.get("/sum-of-primes?a=1&b=10").await.json().await.expect("a sum");
    assert_eq!(answer.sum, 17);
    let workers: Vec<WorkerSummary> = grid.get("/workers").await.json().await.expect("a list");
    let [worker] = &workers[..] else { panic!("one worker: {workers:?}") };
    assert_eq!((worker.id.as_str(), worker.slots, worker.busy), ("one", 1, 0));
    assert_eq!((worker.state, worker.completed_tasks), (WorkerState::Ready, 1));
    assert!(worker.address.expect("an address").ip().is_loopback() && worker.speed_numbers_per_s.is_some());
}

#[actix_web::test]
async fn a_job_that_fails_on_every_attempt_is_a_clear_error() {
    let one_attempt = coordinator::config::Config { max_attempts: std::num::NonZeroU32::MIN, ..config() };
    let grid = TestCoordinator::start(one_attempt);
    let _worker = grid.add_worker("broken", refuse).await;
    let problem = problem(grid.get("/sum-of-primes?a=1&b=10").await, 502).await;
    let detail = "the job failed: task 0 failed because its worker answered 500 Internal Server Error";
    assert_eq!(problem.detail, detail);
}

#[actix_web::test]
async fn a_worker_for_other_jobs_is_no_worker() {
    let grid = TestCoordinator::start(impatient());
    assert!(grid.claim("one", &json!({"kinds": ["tasks"]})).await.is_none());
    let simulation = json!({"tasks": 1, "seconds": 3_600, "workers": 1});
    assert_eq!(grid.post("/v1/simulate", &simulation).await.status(), 201);
    let problem = problem(grid.get("/sum-of-primes?a=1&b=10").await, 503).await;
    assert_eq!(problem.detail, "no worker was ready for 50 ms; try again later");
}

#[actix_web::test]
async fn no_worker_is_a_503_that_says_so_and_leaks_no_count() {
    let few = coordinator::config::Config { max_inflight: 2, ..impatient() };
    let grid = TestCoordinator::start(few);
    for _ in 0..5 {
        let response = grid.get("/sum-of-primes?a=1&b=10").await;
        assert_eq!(response.headers()["retry-after"], "1");
        let problem = problem(response, 503).await;
        assert_eq!(problem.detail, "no worker was ready for 50 ms; try again later");
    }
}
