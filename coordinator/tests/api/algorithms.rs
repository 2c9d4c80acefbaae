//! Sums by either algorithm, by both, and for workers that know only the first one.

use actix_web::HttpResponse;
use api::{LeaseOutcome, LeaseRequest, SumOfPrimes};
use model::{Algorithm, JobState, Labels};
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, compute, config, impatient, indices, problem, read};

/// The sum of all primes up to 10^9 and 10^10, and how many there are: OEIS A046731, A006880.
const SUM_TO_1E9: u128 = 24_739_512_092_254_535;
const SUM_TO_1E10: u128 = 2_220_822_432_581_729_238;
const COUNT_TO_1E10: &str = "455052511";

fn range(kind: &str, params: &Value) -> Value {
    json!({"kind": kind, "params": params})
}

async fn sum(grid: &TestCoordinator, query: &str) -> SumOfPrimes {
    read(grid.get(&format!("/sum-of-primes?{query}")).await, 200).await
}

#[actix_web::test]
async fn every_algorithm_gives_the_published_sum_and_the_answer_says_which_it_was() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 2, Labels::new()).await;
    for (query, algorithm, verified) in [
        ("", Algorithm::Combinatorial, false),
        ("&algorithm=auto", Algorithm::Combinatorial, false),
        ("&algorithm=sieve", Algorithm::Sieve, false),
        ("&algorithm=combinatorial", Algorithm::Combinatorial, false),
        ("&verify=true", Algorithm::Combinatorial, true),
    ] {
        let answer = sum(&grid, &format!("a=1&b=1000000000{query}")).await;
        assert_eq!((answer.sum, answer.algorithm, answer.verified), (SUM_TO_1E9, algorithm, verified), "{query}");
    }
    let upper = sum(&grid, "a=1000000001&b=10000000000").await;
    assert_eq!((upper.sum, upper.algorithm), (SUM_TO_1E10 - SUM_TO_1E9, Algorithm::Combinatorial));
    let short = sum(&grid, "a=1&b=100&verify=true").await;
    assert_eq!((short.sum, short.algorithm, short.verified), (1060, Algorithm::Sieve, true));
    for (query, field) in
        [("algorithm=magic", "algorithm"), ("verify=1", "verify"), ("verify=true&verify=true", "verify")]
    {
        let problem = problem(grid.get(&format!("/sum-of-primes?a=1&b=2&{query}")).await, 400).await;
        assert!(problem.detail.starts_with(field), "{}", problem.detail);
    }
}

#[actix_web::test]
async fn stored_jobs_show_which_algorithm_was_chosen_and_have_the_published_results() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 2, Labels::new()).await;
    let to = |b: u64| json!({"a": 1, "b": b});
    let sum = grid.submit(&range("sum-of-primes", &to(10_000_000_000))).await;
    let count = grid.submit(&range("count-primes", &json!({"a": 1, "b": 10_000_000_000_u64, "verify": true}))).await;
    let short = grid.submit(&range("sum-of-primes", &to(100))).await;
    let shown = |job: &api::Job| (serde_json::from_str::<Value>(job.params.get()).expect("JSON"), job.algorithm);
    let b = 10_000_000_000_u64;
    assert_eq!(shown(&sum), (to(b), Some(Algorithm::Combinatorial)));
    assert_eq!(shown(&count), (json!({"a": 1, "b": b, "verify": true}), Some(Algorithm::Combinatorial)));
    assert_eq!(shown(&short), (to(100), Some(Algorithm::Sieve)));
    assert_eq!(grid.result(sum.id).await, json!({"a": 1, "b": b, "sum": SUM_TO_1E10.to_string()}));
    assert_eq!(grid.result(count.id).await, json!({"a": 1, "b": b, "count": COUNT_TO_1E10}));
    assert_eq!(grid.result(short.id).await, json!({"a": 1, "b": 100, "sum": "1060"}));
    let done = grid.job(sum.id).await;
    assert!((done.progress.fraction - 1.0).abs() < 1e-9, "{:?}", done.progress);
    assert_eq!(shown(&done), shown(&sum));
}

#[actix_web::test]
async fn a_job_with_its_defaults_spelled_out_is_the_same_and_one_by_another_algorithm_is_not() {
    let grid = TestCoordinator::start(config());
    let path = "/v1/jobs/0198c5f0-0000-7000-8000-000000000007";
    let put = async |params: Value| {
        let url = format!("http://{}{path}", grid.public);
        grid.client.put(url).json(&range("sum-of-primes", &params)).send().await.expect("an answer").status().as_u16()
    };
    let b = 10_000_000_000_u64;
    assert_eq!(put(json!({"a": 1, "b": b})).await, 201);
    assert_eq!(put(json!({"b": b, "a": 1, "algorithm": "auto", "verify": false})).await, 200);
    assert_eq!(put(json!({"a": 1, "b": b, "algorithm": "combinatorial"})).await, 422);
    assert_eq!(put(json!({"a": 1, "b": b, "verify": true})).await, 422);
}

/// A worker of the first release: it cannot read parts, and takes a sieve's stretch for nothing.
fn first_release(lease: LeaseRequest) -> HttpResponse {
    let work: Value = serde_json::from_str(lease.work.get()).expect("JSON");
    assert!(work.get("horizon").is_some(), "it knows no {work}");
    HttpResponse::Ok().json(LeaseOutcome { attempt: lease.attempt, value: 0, results: Vec::new(), compute_us: 1 })
}

#[actix_web::test]
async fn workers_of_the_first_release_are_sent_what_they_can_compute() {
    let grid = TestCoordinator::start(impatient());
    let _worker = grid.add_worker("old", first_release).await;
    let answer = sum(&grid, "a=1&b=10000000000").await;
    assert_eq!((answer.algorithm, answer.tasks), (Algorithm::Sieve, 4_000));
    let stored = grid.submit(&range("sum-of-primes", &json!({"a": 1, "b": 10_000_000_000_u64}))).await;
    assert_eq!(stored.algorithm, Some(Algorithm::Sieve));
    let demanded = json!({"a": 1, "b": 10_000_000_000_u64, "algorithm": "combinatorial"});
    let waiting = grid.submit(&range("sum-of-primes", &demanded)).await;
    let notice = waiting.notice.expect("no worker can run it");
    assert!(notice.ends_with("the label divvy.prime-plan=1"), "{notice}");
    let refused = problem(grid.get("/sum-of-primes?a=1&b=10000000000&algorithm=combinatorial").await, 503).await;
    assert_eq!(refused.detail, "no worker was ready for 50 ms; try again later");
}

#[actix_web::test]
async fn a_canceled_job_shows_the_share_of_its_work_that_it_showed_while_it_ran() {
    let grid = TestCoordinator::start(config());
    let params = json!({"a": 1, "b": 100_000_000_000_u64, "algorithm": "combinatorial"});
    let job = grid.submit(&range("sum-of-primes", &params)).await.id;
    let claim = json!({"labels": {"divvy.prime-plan": "1"}, "max_tasks": 1});
    let claimed = grid.claimed("one", &claim).await;
    assert_eq!(indices(&claimed).len(), 1);
    grid.complete(&claimed, &json!(["0"])).await;
    let running = grid.job(job).await;
    assert_eq!((running.state, running.tasks.succeeded), (JobState::Running, 1));
    assert_eq!(grid.act(job, "cancel").await.status(), 200);
    let canceled = grid.job(job).await;
    assert_eq!((canceled.state, canceled.tasks.succeeded), (JobState::Canceled, 1));
    let (before, after) = (running.progress.fraction, canceled.progress.fraction);
    assert!(before > 0.0 && (after - before).abs() < 1e-8, "{before}, then {after}");
}

/// Computes honestly by a sieve, and says that every part is 7.
fn contradict(lease: LeaseRequest) -> HttpResponse {
    if lease.work.get().contains("horizon") {
        return compute(lease);
    }
    HttpResponse::Ok().json(LeaseOutcome { attempt: lease.attempt, value: 7, results: Vec::new(), compute_us: 1 })
}

#[actix_web::test]
async fn algorithms_that_disagree_are_an_error_and_never_an_answer() {
    let grid = TestCoordinator::start(config());
    let (mut heartbeat, _worker) = crate::helpers::start_worker(contradict);
    heartbeat.abilities = Labels::from([("divvy.prime-plan".to_owned(), "1".to_owned())]);
    assert_eq!(grid.register("liar", &heartbeat).await.status(), 200);
    let message = "the two algorithms disagree: sieve gives 1060, combinatorial gives 7";
    let loud = problem(grid.get("/sum-of-primes?a=1&b=100&verify=true").await, 500).await;
    assert_eq!(loud.detail, format!("the computation failed: {message}"));
    let url = format!("http://{}/sum-of-primes?a=1&b=100&verify=true", grid.public);
    let stored = grid.client.get(url).header("Prefer", "wait=10").send().await.expect("an answer");
    assert_eq!(problem(stored, 500).await.detail, loud.detail);
    let job = grid.submit(&range("sum-of-primes", &json!({"a": 1, "b": 100, "verify": true}))).await;
    let failed = grid.job_in(job.id, JobState::Failed).await;
    assert_eq!(failed.error.as_deref(), Some(message));
}
