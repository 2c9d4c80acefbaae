//! Workers that fetch their tasks.

use std::time::{Duration, Instant};

use api::{Claimed, Job};
use coordinator::config::Config;
use futures_util::future::{join, join_all};
use model::{JobState, TaskState};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::helpers::{
    PATIENCE, TestCoordinator, claim, config, indices, labels, numbered_tasks, problem, read, sleeps, with,
};

#[actix_web::test]
async fn a_claim_gives_consecutive_tasks_of_one_job_or_nothing() {
    let grid = TestCoordinator::start(config());
    assert!(grid.claim("one", &Value::Null).await.is_none());
    let body = r#"{"kind": "tasks", "params": {"list": ["text", {"b": 1, "a": [1.0, null]}, 3]}}"#;
    let response = grid
        .client
        .post(format!("http://{}/v1/jobs", grid.public))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    let job: Job = read(response.expect("an answer"), 201).await;
    let other = grid.submit(&numbered_tasks(1)).await;
    let first = grid.claimed("one", &json!({"max_tasks": 2})).await;
    assert_eq!((first.job, first.kind.as_str(), indices(&first)), (job.id, "tasks", vec![0, 1]));
    let payloads: Vec<_> = first.tasks.iter().map(|task| task.payload.get()).collect();
    assert_eq!(payloads, [r#""text""#, r#"{"b": 1, "a": [1.0, null]}"#], "as they were submitted");
    assert!(first.expires_at > jiff::Timestamp::now());
    assert_eq!(grid.claimed("one", &json!({"max_tasks": 9})).await.job, other.id, "jobs take turns");
    assert_eq!(indices(&grid.claimed("two", &json!({"max_tasks": 9})).await), [2]);
    assert!(grid.claim("one", &Value::Null).await.is_none());
}

#[actix_web::test]
async fn a_report_that_comes_after_its_attempt_was_handed_back_takes_no_lease_up() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
    let lease = json!({ "lease": claimed.lease });
    assert_eq!(grid.report(&claimed, "release", &lease).await.status(), 204);
    for (how, body) in [
        ("renew", lease.clone()),
        ("release", lease.clone()),
        ("fail", with(lease.clone(), &json!({"error": "late"}))),
        ("complete", with(lease, &json!({"results": [1, 2]}))),
    ] {
        assert_eq!(grid.report(&claimed, how, &body).await.status(), 409, "{how}");
    }
    let again = grid.claimed("two", &json!({"max_tasks": 2})).await;
    assert_eq!(indices(&again), [0, 1], "they were free");
    grid.complete(&again, &json!([1, 2])).await;
    assert_eq!(grid.job_in(job.id, JobState::Succeeded).await.attempts, 1);
}

#[actix_web::test]
async fn a_claim_that_waits_wakes_when_a_job_comes() {
    let grid = TestCoordinator::start(config());
    let request = grid.client.post(format!("http://{}/v1/worker/claim", grid.internal));
    let waiting = tokio::spawn(request.json(&claim("one", &json!({"wait_seconds": 60}))).send());
    grid.wait_for_pulling(1).await;
    let asked_at = Instant::now();
    let job = grid.submit(&numbered_tasks(1)).await;
    let claimed: Claimed = read(waiting.await.expect("no panic").expect("an answer"), 200).await;
    assert_eq!(claimed.job, job.id);
    assert!(asked_at.elapsed() < Duration::from_secs(30), "it waited to the end");
    let asked_at = Instant::now();
    assert!(grid.claim("one", &json!({"wait_seconds": 0.2})).await.is_none());
    assert!(asked_at.elapsed() >= Duration::from_millis(200));
}

#[actix_web::test]
async fn the_grid_is_counted_while_workers_come() {
    let grid = TestCoordinator::start(config());
    let url = format!("http://{}/v1/worker/claim", grid.internal);
    let coming = (0..8).map(|stream| {
        let (client, url) = (grid.client.clone(), url.clone());
        tokio::spawn(async move {
            for number in 0..100 {
                let claim = claim(&format!("worker-{stream}-{number}"), &Value::Null);
                let response = client.post(&url).json(&claim).send().await.expect("an answer");
                assert_eq!(response.status(), StatusCode::NO_CONTENT);
            }
        })
    });
    let coming = join_all(coming.collect::<Vec<_>>());
    let counting = async {
        while grid.get("/v1/stats").await.json::<Value>().await.expect("JSON")["workers"]["pulling"] != 800 {
            assert_eq!(grid.get_internal("/metrics").await.status(), StatusCode::OK);
        }
    };
    let (came, ()) = tokio::time::timeout(PATIENCE, join(coming, counting)).await.expect("an answer in time");
    assert!(came.into_iter().all(|came| came.is_ok()));
}

#[actix_web::test]
async fn a_claim_of_long_payloads_ends_after_eight_mebibytes_and_the_rest_is_no_attempt() {
    let grid = TestCoordinator::start(config());
    let payload = "x".repeat(6_000);
    let long = "y".repeat(9 << 20);
    let mut list = vec![Value::from(payload.as_str()); 3_000];
    list.push(Value::from(long.as_str()));
    list.push(Value::from(1));
    let job = grid.submit(&json!({"kind": "tasks", "params": {"list": list}})).await;
    let (fitting, mut next) = ((8 << 20) / (payload.len() as u64 + 2), 0);
    for expected in [fitting, fitting, 3_000 - 2 * fitting, 1, 1] {
        let claimed = grid.claimed("one", &json!({"max_tasks": 10_000})).await;
        assert_eq!(indices(&claimed), (next..next + expected).collect::<Vec<_>>());
        next += expected;
        let results: Vec<_> = claimed.tasks.iter().map(|task| task.payload.get().len()).collect();
        grid.complete(&claimed, &json!(results)).await;
    }
    assert!(grid.claim("one", &Value::Null).await.is_none());
    let job = grid.job_in(job.id, JobState::Succeeded).await;
    assert_eq!((job.tasks.succeeded, job.attempts), (3_002, 5));
}

#[actix_web::test]
async fn one_worker_may_claim_many_times_at_once() {
    let grid = TestCoordinator::start(config());
    grid.submit(&numbered_tasks(40)).await;
    for round in 0..10 {
        let id = format!("worker-{round}");
        let waiting = json!({"wait_seconds": 10});
        let claims = join_all((0..4).map(|_| grid.claimed(&id, &waiting))).await;
        for claimed in &claims {
            grid.complete(claimed, &json!([1])).await;
        }
    }
    let stats: Value = read(grid.get("/v1/stats").await, 200).await;
    assert_eq!(stats["workers"]["pulling"], 10);
}

#[actix_web::test]
async fn a_report_counts_once_and_only_from_who_holds_the_lease() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    for wrong in [json!([1, 2]), json!({}), json!("x")] {
        problem(grid.report(&claimed, "complete", &json!({"results": wrong})).await, 400).await;
    }
    let next =
        grid.report(&claimed, "complete", &json!({"results": ["first"], "claim": claim("one", &Value::Null)})).await;
    let next: Claimed = read(next, 200).await;
    assert_eq!(indices(&next), [1]);
    for how in ["complete", "fail", "renew"] {
        let body = if how == "fail" { json!({"error": "late"}) } else { json!({}) };
        let refused = problem(grid.report(&claimed, how, &body).await, 409).await;
        assert_eq!(refused.detail, "the attempt holds no lease: it ended, expired or never was");
        let url = format!("/v1/worker/tasks/0198c5f0-0000-7000-8000-000000000001/{how}");
        problem(grid.post_internal(&url, &body).await, 409).await;
    }
    let last = json!({"results": ["second"], "claim": claim("one", &Value::Null)});
    let answer = grid.report(&next, "complete", &last).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT, "it counts, and nothing is left");
    assert_eq!(grid.result(job.id).await, json!({"tasks": ["first", "second"]}));
}

#[actix_web::test]
async fn an_outcome_with_a_wrong_claim_does_not_count() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    let wrong = claim("one", &json!({"max_tasks": 0}));
    let refused = problem(grid.report(&claimed, "complete", &json!({"results": [1], "claim": wrong})).await, 400).await;
    assert_eq!(refused.field.as_deref(), Some("claim.max_tasks"));
    assert_eq!(grid.job(job.id).await.tasks.running, 1);
    grid.complete(&claimed, &json!([2])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [2]}));
}

#[actix_web::test]
async fn a_renewed_lease_lasts_and_an_expired_one_runs_elsewhere() {
    let short = Config { lease_timeout_ms: 3_000, ..config() };
    let grid = TestCoordinator::start(short);
    let job = grid.submit(&numbered_tasks(2)).await;
    let (kept, lost) = (grid.claimed("keeps", &Value::Null).await, grid.claimed("vanishes", &Value::Null).await);
    let mut until = kept.expires_at;
    // The worker renews for longer than one lease lasts.
    while grid.job(job.id).await.tasks.running == 2 || until < kept.expires_at + jiff::SignedDuration::from_millis(500)
    {
        let renewed: api::Renewed = read(grid.report(&kept, "renew", &Value::Null).await, 200).await;
        assert!(renewed.expires_at >= until);
        until = renewed.expires_at;
        crate::helpers::pause().await;
    }
    problem(grid.report(&lost, "complete", &json!({"results": ["late"]})).await, 409).await;
    let again = grid.claimed("other", &Value::Null).await;
    assert_eq!(indices(&again), indices(&lost));
    grid.complete(&again, &json!(["again"])).await;
    grid.complete(&kept, &json!(["kept"])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": ["kept", "again"]}));
    let tasks = grid.tasks(job.id, "").await;
    assert_eq!((tasks[1].attempts, tasks[1].last_error.as_deref()), (2, Some("its lease expired")));
}

#[actix_web::test]
async fn a_worker_gets_the_kinds_and_requirements_that_it_meets() {
    let grid = TestCoordinator::start(config());
    let sleeping = grid.submit(&sleeps(0.5, 1)).await;
    let range = grid.submit(&json!({"kind": "count-primes", "params": {"a": 5, "b": 10}})).await;
    let gpu = grid.submit(&with(numbered_tasks(1), &json!({"requires": {"labels": {"gpu": "yes"}}}))).await;
    assert!(grid.claim("one", &json!({"kinds": ["sum-of-primes", "tasks"]})).await.is_none());
    let claimed = grid.claimed("two", &json!({"kinds": ["sleep"]})).await;
    assert_eq!((claimed.job, claimed.tasks[0].payload.get()), (sleeping.id, r#"{"seconds":0.5}"#));
    let claimed = grid.claimed("three", &json!({"kinds": ["count-primes"]})).await;
    assert_eq!((claimed.job, claimed.tasks[0].payload.get()), (range.id, r#"{"a":5,"b":10}"#));
    assert!(grid.claim("four", &json!({"labels": {"gpu": "no"}})).await.is_none());
    assert_eq!(grid.claimed("four", &json!({"labels": labels(&[("gpu", "yes")])})).await.job, gpu.id);
}

#[actix_web::test]
async fn a_claim_that_makes_no_sense_is_refused_with_its_field() {
    let grid = TestCoordinator::start(config());
    for (more, field) in [
        (json!({"max_tasks": 0}), "max_tasks"),
        (json!({"max_tasks": 10_001}), "max_tasks"),
        (json!({"wait_seconds": 61}), "wait_seconds"),
        (json!({"wait_seconds": -1}), "wait_seconds"),
        (json!({"kinds": []}), "kinds"),
        (json!({"kinds": ["sum"]}), "kinds"),
        (json!({"labels": {"": "x"}}), "labels"),
        (json!({"worker_id": "a/b"}), "worker_id"),
        (json!({"resources": {"cpus": "many"}}), "resources.cpus"),
    ] {
        let problem = problem(grid.post_internal("/v1/worker/claim", &claim("one", &more)).await, 400).await;
        assert_eq!(problem.field.as_deref(), Some(field), "{}", problem.detail);
    }
    let stats: Value = read(grid.get("/v1/stats").await, 200).await;
    assert_eq!(stats["workers"]["pulling"], 0, "none of them is known for it");
    problem(grid.post("/v1/worker/claim", &claim("one", &Value::Null)).await, 404).await;
}

#[actix_web::test]
async fn the_token_is_demanded_from_who_fetches() {
    let grid =
        TestCoordinator::start(Config { worker_token: "secret".to_owned().try_into().expect("a token"), ..config() });
    grid.submit(&numbered_tasks(2)).await;
    let base = format!("http://{}/v1/worker", grid.internal);
    problem(grid.post_internal("/v1/worker/claim", &claim("one", &Value::Null)).await, 401).await;
    let request = grid.client.post(format!("{base}/claim")).bearer_auth("secret").json(&claim("one", &Value::Null));
    let claimed: Claimed = read(request.send().await.expect("an answer"), 200).await;
    for (how, body) in [("renew", json!(null)), ("fail", json!({"error": "x"})), ("complete", json!({"results": [1]}))]
    {
        problem(grid.report(&claimed, how, &body).await, 401).await;
    }
    let complete = grid.client.post(format!("{base}/tasks/{}/complete", claimed.attempt)).bearer_auth("secret");
    assert_eq!(complete.json(&json!({"results": [1]})).send().await.expect("an answer").status(), 204);
}

#[actix_web::test]
async fn a_poison_task_fails_alone_and_the_rest_of_its_batch_succeeds() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(8)).await;
    let batch = json!({"max_tasks": 8});
    while let Some(claimed) = grid.claim("one", &batch).await {
        if indices(&claimed).contains(&5) {
            grid.fail(&claimed, "5 is poison").await;
        } else {
            grid.complete(&claimed, &json!(indices(&claimed))).await;
        }
    }
    let job = grid.job_in(job.id, JobState::Failed).await;
    assert_eq!((job.tasks.succeeded, job.tasks.failed), (7, 1));
    assert_eq!(job.error.as_deref(), Some("1 of 8 tasks failed"));
    for task in grid.tasks(job.id, "").await {
        if task.index == 5 {
            assert_eq!((task.state, task.last_error.as_deref()), (TaskState::Failed, Some("5 is poison")));
            assert!(task.attempts >= 4, "{task:?}");
        } else {
            assert_eq!(task.state, TaskState::Succeeded, "{task:?}");
            assert_eq!(task.result.expect("a result").get(), task.index.to_string());
        }
    }
}

#[actix_web::test]
async fn sums_computed_by_who_fetches_are_added_up_exactly() {
    let grid = TestCoordinator::start(Config { chunk_size: 9.try_into().expect("9"), ..config() });
    let job = grid.submit(&json!({"kind": "sum-of-primes", "params": {"a": 0, "b": 1_000}})).await;
    let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let mut is_first = true;
    while let Some(claimed) = grid.claim("one", &json!({"max_tasks": 7})).await {
        let sums = claimed.tasks.iter().map(|task| {
            let range: model::NumberRange = serde_json::from_str(task.payload.get()).expect("a range");
            (range.a()..=range.b()).filter(is_prime).sum::<u64>().to_string()
        });
        let sums: Vec<_> = sums.collect();
        if std::mem::take(&mut is_first) {
            let too_large = vec!["340282366920938463463374607431768211455"; sums.len()];
            for wrong in [json!(too_large), json!([]), json!([1, 2, 3, 4, 5, 6, 7]), json!(["-1"])] {
                let refused = problem(grid.report(&claimed, "complete", &json!({"results": wrong})).await, 400).await;
                assert_eq!(refused.field.as_deref(), Some("results"));
            }
        }
        grid.complete(&claimed, &json!(sums)).await;
    }
    assert_eq!(grid.result(job.id).await, json!({"a": 0, "b": 1_000, "sum": "76127"}));
}

#[actix_web::test]
async fn a_worker_that_comes_back_with_other_abilities_is_another() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(2), &json!({"requires": {"labels": {"gpu": "yes"}}}))).await;
    assert!(grid.claim("one", &Value::Null).await.is_none());
    let able = json!({"labels": {"gpu": "yes"}});
    let first = grid.claimed("one", &able).await;
    assert!(grid.claim("one", &Value::Null).await.is_none(), "it has no label any more");
    grid.complete(&first, &json!([1])).await;
    let second = grid.claimed("one", &able).await;
    grid.complete(&second, &json!([2])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [1, 2]}));
    let tasks = grid.tasks(job.id, "").await;
    assert!(tasks.iter().all(|task| task.worker.as_ref().is_some_and(|worker| worker.as_str() == "one")), "{tasks:?}");
}

#[actix_web::test]
async fn a_drained_worker_that_pulls_ends_what_it_holds_and_gets_nothing_more() {
    let grid = TestCoordinator::start(config());
    grid.submit(&numbered_tasks(3)).await;
    let claimed = grid.claimed("puller", &json!({"max_tasks": 1})).await;
    assert!(grid.get("/grid/workers").await.text().await.expect("text").contains("Drain puller"));
    for _ in 0..2 {
        assert_eq!(grid.post("/workers/puller/drain", &Value::Null).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(grid.state_of("puller").await, api::WorkerState::Draining);
    for more in [json!({}), json!({"wait_seconds": 0.05}), json!({"max_tasks": 2})] {
        let nothing = grid.post_internal("/v1/worker/claim", &claim("puller", &more)).await;
        assert_eq!(nothing.status(), StatusCode::NO_CONTENT);
        assert_eq!(nothing.headers()["retry-after"], "30");
    }
    grid.complete(&claimed, &json!(["done"])).await;
    // Other abilities do not make it another worker.
    let other = with(claim("puller", &Value::Null), &json!({"labels": {"new": "yes"}}));
    assert_eq!(grid.post_internal("/v1/worker/claim", &other).await.headers()["retry-after"], "30");
    assert_eq!(indices(&grid.claimed("other", &json!({"max_tasks": 9})).await), [1, 2]);
    let stats: Value = read(grid.get("/v1/stats").await, 200).await;
    assert_eq!((&stats["workers"]["pulling"], &stats["workers"]["draining"]), (&json!(1), &json!(1)));
    let page = grid.get("/grid/workers").await.text().await.expect("text");
    assert!(page.contains("Drain other") && !page.contains("Drain puller"), "{page}");
}

#[actix_web::test]
async fn a_claim_that_waits_when_its_worker_is_drained_gets_nothing() {
    let grid = TestCoordinator::start(config());
    let (waiting, ()) = join(grid.claim("puller", &json!({"wait_seconds": 1.0})), async {
        grid.wait_for_pulling(1).await;
        assert_eq!(grid.post("/workers/puller/drain", &Value::Null).await.status(), StatusCode::NO_CONTENT);
        grid.submit(&numbered_tasks(1)).await;
    })
    .await;
    assert!(waiting.is_none(), "{waiting:?}");
    assert!(grid.claim("other", &Value::Null).await.is_some());
}
