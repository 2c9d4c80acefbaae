//! Every kind of job to its result, on a real worker. The sums and counts are from published tables.

use std::time::Instant;

use actix_web::HttpResponse;
use api::WorkerState;
use futures_util::future::join;
use model::{JobState, Labels, TaskState};
use serde_json::{Value, json};

use crate::helpers::{PATIENCE, TestCoordinator, compute, config, numbered_tasks, pause, problem, sleeps, with};

#[actix_web::test]
async fn a_range_is_summed_and_counted_exactly() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 2, Labels::new()).await;
    let range = |kind: &str, b: u64| json!({"kind": kind, "params": {"a": 1, "b": b, "algorithm": "sieve"}});
    let sum = grid.submit(&range("sum-of-primes", 200_000_000)).await;
    let count = grid.submit(&range("count-primes", 100_000_000)).await;
    assert_eq!(grid.result(sum.id).await, json!({"a": 1, "b": 200_000_000, "sum": "1075207199997334"}));
    assert_eq!(grid.result(count.id).await, json!({"a": 1, "b": 100_000_000, "count": "5761455"}));
    let sum = grid.job(sum.id).await;
    assert_eq!((sum.state, sum.tasks.succeeded, sum.tasks.total), (JobState::Succeeded, 80, 80));
    assert!((sum.progress.fraction - 1.0).abs() < f64::EPSILON);
    assert_eq!(sum.progress.numbers_done, Some(200_000_000));
    let (started_at, finished_at) = (sum.started_at.expect("it was"), sum.finished_at.expect("it is"));
    assert!(sum.submitted_at <= started_at && started_at <= finished_at);
}

#[actix_web::test]
async fn every_sleep_is_a_task_of_its_own() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 2, Labels::new()).await;
    let job = grid.submit(&sleeps(0.001, 20)).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": 20}));
    let tasks = grid.tasks(job.id, "").await;
    assert_eq!(tasks.iter().map(|task| task.index).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    for task in tasks {
        assert_eq!((task.state, task.attempts), (TaskState::Succeeded, 1));
        assert_eq!(task.worker.expect("a worker").as_str(), "one");
        let [allocated_at, running_at, completed_at] =
            [task.allocated_at, task.running_at, task.completed_at].map(|at| at.expect("it was"));
        assert!(task.pending_at <= allocated_at && allocated_at <= running_at && running_at <= completed_at);
    }
}

#[actix_web::test]
async fn sleeps_that_always_fail_fail_each_after_its_attempts() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 2, Labels::new()).await;
    let failing = json!({"params": {"seconds": 0, "fail_rate": 1, "tasks": 2}, "max_attempts": 2});
    let job = grid.submit(&with(sleeps(0.0, 1), &failing)).await;
    let job = grid.job_in(job.id, JobState::Failed).await;
    assert_eq!((job.tasks.failed, job.error.as_deref()), (2, Some("2 of 2 tasks failed")));
    let failed = grid.tasks(job.id, "?state=failed").await;
    assert_eq!(failed.len(), 2);
    for task in failed {
        assert_eq!(task.attempts, 2);
        assert!(task.error_at.is_some() && task.last_error.is_some(), "{task:?}");
    }
}

#[actix_web::test]
async fn a_worker_that_does_not_run_a_kind_costs_no_attempt_and_gets_no_more_of_it() {
    let grid = TestCoordinator::start(config());
    let serving = grid.add_worker("old", |_| HttpResponse::NotImplemented().body("of an earlier release")).await;
    let body = json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 100, "algorithm": "sieve"}, "max_attempts": 1});
    let job = grid.submit(&body).await;
    let deadline = Instant::now() + PATIENCE;
    while grid.workers().await.iter().any(|worker| !worker.kinds.is_empty()) {
        assert!(Instant::now() < deadline, "it still runs the kind");
        pause().await;
    }
    assert_eq!(grid.state_of("old").await, WorkerState::Ready, "other kinds may go on");
    let why: Value = grid.get(&format!("/v1/jobs/{}/explain", job.id)).await.json().await.expect("JSON");
    assert!(why.to_string().contains("jobs of the kind sum-of-primes"), "{why}");
    assert_eq!(grid.job(job.id).await.attempts, 0);
    let _new = grid.add_worker("new", compute).await;
    assert_eq!(grid.result(job.id).await, json!({"a": 1, "b": 100, "sum": "1060"}));
    assert_eq!(grid.job(job.id).await.attempts, 1);
    serving.abort();
}

#[actix_web::test]
async fn a_worker_that_refuses_the_token_costs_no_attempt_and_is_named_to_the_job_that_waits() {
    let grid = TestCoordinator::start(config());
    let serving = grid.add_worker("closed", |_| HttpResponse::Unauthorized().body("another token")).await;
    let body = json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 100, "algorithm": "sieve"}, "max_attempts": 1});
    let job = grid.submit(&body).await;
    let deadline = Instant::now() + PATIENCE;
    // Without another heartbeat it stays so.
    while grid.state_of("closed").await != WorkerState::Suspended {
        assert!(Instant::now() < deadline, "it is not suspended");
        pause().await;
    }
    let workers = grid.workers().await;
    let suspension = workers[0].suspension.as_ref().map(|suspension| suspension.reason.as_str());
    assert_eq!(suspension, Some("it did not take a lease"), "{workers:?}");
    let why: Value = grid.get(&format!("/v1/jobs/{}/explain", job.id)).await.json().await.expect("JSON");
    assert_eq!(why["reasons"], json!(["no worker is ready; the worker closed is suspended: it did not take a lease"]));
    assert_eq!(grid.job(job.id).await.attempts, 0);
    let _new = grid.add_worker("new", compute).await;
    assert_eq!(grid.result(job.id).await, json!({"a": 1, "b": 100, "sum": "1060"}));
    assert_eq!(grid.job(job.id).await.attempts, 1);
    serving.abort();
}

#[actix_web::test]
async fn individual_tasks_wait_for_workers_that_fetch() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    let job = grid.submit(&numbered_tasks(2)).await;
    let notice = grid.job(job.id).await.notice.expect("a notice");
    assert_eq!(notice, "the only ready worker does not run jobs of the kind tasks");
    assert_eq!(grid.job(job.id).await.params.get(), r#"{"count":2}"#);
    let claimed = grid.claimed("other", &json!({"max_tasks": 2})).await;
    grid.complete(&claimed, &json!([{"any": ["json"]}, null])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [{"any": ["json"]}, null]}));
}

#[actix_web::test]
async fn a_job_that_outlives_its_timeout_fails() {
    let grid = TestCoordinator::start(config());
    // The claim waits for the job: a later claim might find the job over.
    let (claimed, job) = join(grid.claimed("one", &json!({"wait_seconds": 60})), async {
        grid.wait_for_pulling(1).await;
        grid.submit(&with(numbered_tasks(1), &json!({"timeout": {"job_seconds": 1}}))).await
    })
    .await;
    let job = grid.job_in(job.id, JobState::Failed).await;
    assert_eq!(job.error.as_deref(), Some("it was not done within its timeout"));
    problem(grid.report(&claimed, "complete", &json!({"results": [1]})).await, 409).await;
}

#[actix_web::test]
async fn a_task_that_outlives_its_timeout_has_failed_an_attempt() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    let limits = json!({"timeout": {"task_seconds": 1}, "max_attempts": 1});
    let job = grid.submit(&with(sleeps(3_600.0, 1), &limits)).await;
    let job = grid.job_in(job.id, JobState::Failed).await;
    assert_eq!(job.error.as_deref(), Some("its only task failed"));
    let task = grid.tasks(job.id, "").await.remove(0);
    assert_eq!((task.attempts, task.last_error.as_deref()), (1, Some("it took longer than its time limit of 1s")));
}

#[actix_web::test]
async fn more_urgent_jobs_come_first_and_equal_ones_take_turns() {
    let grid = TestCoordinator::start(config());
    let urgent = |priority: u8| with(numbered_tasks(2), &json!({"priority": priority}));
    let (least, first, second) =
        (grid.submit(&urgent(1)).await, grid.submit(&urgent(5)).await, grid.submit(&urgent(5)).await);
    let most = grid.submit(&urgent(9)).await;
    let mut order = Vec::new();
    for _ in 0..8 {
        order.push(grid.claimed("one", &Value::Null).await.job);
    }
    assert_eq!(order, [most.id, most.id, first.id, second.id, first.id, second.id, least.id, least.id]);
    let stats: Value = crate::helpers::read(grid.get("/v1/stats").await, 200).await;
    assert_eq!(stats["queue_depth_by_priority"], json!({}));
}

#[actix_web::test]
async fn affinity_is_a_wish_and_a_requirement_is_not() {
    let grid = TestCoordinator::start(config());
    let (near, far) = (json!({"labels": {"zone": "a"}}), json!({"labels": {"zone": "b"}}));
    let plain = grid.submit(&numbered_tasks(1)).await;
    let wish = grid.submit(&with(numbered_tasks(1), &json!({"affinity": {"labels": {"zone": "a"}}}))).await;
    let bound = grid.submit(&with(numbered_tasks(1), &json!({"requires": {"labels": {"zone": "a"}}}))).await;
    let large = json!({"requires": {"cpus": 8, "memory_bytes": 1_000}});
    let large = grid.submit(&with(numbered_tasks(1), &large)).await;
    assert_eq!(grid.claimed("near", &near).await.job, wish.id);
    assert_eq!(grid.claimed("far", &far).await.job, plain.id);
    assert!(grid.claim("far", &far).await.is_none());
    assert_eq!(grid.claimed("near", &near).await.job, bound.id);
    let resources = |cpus: u32, memory: u64| json!({"resources": {"cpus": cpus, "memory_bytes": memory}});
    assert!(grid.claim("small", &resources(4, 1_000)).await.is_none());
    assert!(grid.claim("tight", &resources(8, 999)).await.is_none());
    assert_eq!(grid.claimed("large", &resources(8, 1_000)).await.job, large.id);
}
