//! Individual tasks, each with its state and its story.

use api::TaskPage;
use model::{JobState, TaskState};
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, config, indices, numbered_tasks, problem, read, sleeps, with};

#[actix_web::test]
async fn every_state_is_told_with_who_when_why_and_what() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(4), &json!({"max_attempts": 2}))).await;
    let [done, poison, running] = [
        grid.claimed("good", &Value::Null).await,
        grid.claimed("bad", &Value::Null).await,
        grid.claimed("slow", &Value::Null).await,
    ];
    assert_eq!([indices(&done), indices(&poison), indices(&running)], [[0], [1], [2]]);
    grid.complete(&done, &json!([{"x": 1.50}])).await;
    grid.fail(&poison, "no luck").await;
    let again = grid.claimed("worse", &Value::Null).await;
    assert_eq!(indices(&again), [1], "what failed comes before what is new");
    grid.fail(&again, "no luck either").await;
    let shown = grid.job_in(job.id, JobState::Running).await;
    let counts = json!({"total": 4, "pending": 1, "running": 1, "succeeded": 1, "failed": 1});
    assert_eq!(serde_json::to_value(shown.tasks).expect("JSON"), counts);
    assert_eq!(shown.attempts, 4);

    let failed = grid.first_task(job.id, "?state=failed").await;
    assert_eq!((failed.index, failed.attempts), (1, 2));
    assert_eq!(failed.worker.expect("a worker").as_str(), "worse");
    assert_eq!(failed.last_error.as_deref(), Some("no luck either"));
    assert!(failed.error_at.expect("it did") >= failed.pending_at && failed.completed_at.is_none());
    let succeeded = grid.first_task(job.id, "?state=succeeded").await;
    assert_eq!((succeeded.index, succeeded.attempts), (0, 1));
    assert_eq!(succeeded.result.expect("a result").get(), r#"{"x":1.5}"#);
    assert!(succeeded.completed_at >= succeeded.running_at && succeeded.running_at >= succeeded.allocated_at);
    let running = grid.first_task(job.id, "?state=running").await;
    assert_eq!((running.index, running.attempts), (2, 1));
    assert_eq!(running.worker.expect("a worker").as_str(), "slow");
    assert!(running.allocated_at.is_some() && running.completed_at.is_none() && running.result.is_none());
    let pending = grid.first_task(job.id, "?state=pending").await;
    assert_eq!((pending.index, pending.attempts, pending.worker), (3, 0, None));
    assert_eq!(pending.pending_at, job.submitted_at);
}

#[actix_web::test]
async fn a_task_that_failed_alone_and_succeeded_with_others_has_succeeded() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(3), &json!({"max_attempts": 1}))).await;
    for _ in 0..3 {
        let claimed = grid.claimed("one", &Value::Null).await;
        grid.fail(&claimed, "not yet").await;
    }
    grid.job_in(job.id, JobState::Failed).await;
    assert_eq!(grid.act(job.id, "retry").await.status(), 200);
    let claimed = grid.claimed("two", &json!({"max_tasks": 3})).await;
    assert_eq!(indices(&claimed), [0, 1, 2]);
    grid.complete(&claimed, &json!(["a", "b", "c"])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": ["a", "b", "c"]}));
    for (task, result) in grid.tasks(job.id, "").await.iter().zip([r#""a""#, r#""b""#, r#""c""#]) {
        assert_eq!((task.state, task.attempts), (TaskState::Succeeded, 2), "{task:?}");
        assert_eq!(task.worker.as_ref().expect("a worker").as_str(), "two");
        assert_eq!(task.result.as_ref().expect("a result").get(), result);
        assert_eq!(task.last_error.as_deref(), Some("not yet"));
    }
}

#[actix_web::test]
async fn no_task_is_shown_with_a_lease_beside_the_attempt_that_the_lease_was() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(40)).await.id;
    let work = async {
        for _ in 0..40 {
            let claimed = grid.claimed("one", &json!({"max_tasks": 1})).await;
            grid.complete(&claimed, &json!([7])).await;
        }
    };
    let look = async {
        while !grid.job(job).await.state.is_over() {
            for task in grid.tasks(job, "").await {
                let is_done = task.state == TaskState::Succeeded;
                assert!(task.attempts <= 1 && is_done == task.result.is_some(), "{task:?}");
            }
        }
    };
    futures_util::future::join(work, look).await;
}

#[actix_web::test]
async fn a_task_that_was_done_without_a_result_has_the_result_null() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await;
    let path = format!("/v1/jobs/{}/tasks/1/result", job.id);
    problem(grid.get(&path).await, 409).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
    grid.complete(&claimed, &json!([])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [null, null]}));
    assert_eq!(read::<Value>(grid.get(&path).await, 200).await, Value::Null);
}

#[actix_web::test]
async fn a_task_that_failed_is_pending_after_a_retry_of_its_job() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(2), &json!({"max_attempts": 1}))).await;
    for _ in 0..2 {
        grid.fail(&grid.claimed("one", &Value::Null).await, "not yet").await;
    }
    grid.job_in(job.id, JobState::Failed).await;
    assert_eq!(grid.tasks(job.id, "?state=failed").await.len(), 2);
    assert_eq!(grid.act(job.id, "retry").await.status(), 200);
    for canceled in [false, true] {
        if canceled {
            assert_eq!(grid.act(job.id, "cancel").await.status(), 200);
        }
        assert_eq!(grid.tasks(job.id, "?state=failed").await.len(), 0);
        let pending = grid.tasks(job.id, "?state=pending").await;
        let seen: Vec<_> = pending.iter().map(|task| (task.attempts, task.last_error.as_deref())).collect();
        assert_eq!(seen, [(1, Some("not yet")); 2]);
        assert_eq!(grid.job(job.id).await.tasks.pending, 2);
    }
    assert_eq!(grid.act(job.id, "retry").await.status(), 200);
    grid.fail(&grid.claimed("one", &Value::Null).await, "again").await;
    assert_eq!(grid.first_task(job.id, "?state=failed").await.last_error.as_deref(), Some("again"));
}

#[actix_web::test]
async fn attempts_are_counted_also_where_their_failures_are_not_kept() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(1), &json!({"max_attempts": 100}))).await;
    for attempt in 0..100 {
        // A run that has failed is held back from the worker that had it last.
        let claimed = grid.claimed(["one", "two"][attempt % 2], &Value::Null).await;
        grid.fail(&claimed, &format!("failure {attempt}")).await;
    }
    let failed = grid.job_in(job.id, JobState::Failed).await;
    let task = grid.first_task(job.id, "").await;
    assert_eq!((task.state, task.attempts, failed.attempts), (TaskState::Failed, 100, 100));
    assert_eq!(task.last_error.as_deref(), Some("failure 99"));
}

#[actix_web::test]
async fn pages_of_tasks_hold_each_once_also_by_state() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(250)).await;
    for (max_tasks, results) in [(7, json!([])), (90, json!((0..90).collect::<Vec<_>>()))] {
        let claimed = grid.claimed("one", &json!({ "max_tasks": max_tasks })).await;
        grid.complete(&claimed, &results).await;
    }
    assert_eq!(grid.first_task(job.id, "?state=succeeded&page_token=96").await.index, 96);
    for (query, limit, expected) in [
        ("", 100, 0..250),
        ("state=succeeded&", 10, 0..97),
        ("state=pending&", 50, 97..250),
        ("state=failed&", 3, 0..0),
    ] {
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let page = grid.get(&format!("/v1/jobs/{}/tasks?{query}limit={limit}{token}", job.id)).await;
            let page: TaskPage = read(page, 200).await;
            assert!(page.tasks.len() <= limit);
            listed.extend(page.tasks);
            let Some(next) = page.next_page_token else { break };
            token = format!("&page_token={next}");
        }
        let indices: Vec<_> = listed.iter().map(|task| task.index).collect();
        assert_eq!(indices, expected.collect::<Vec<_>>(), "{query}");
        for task in listed.iter().filter(|task| (7..97).contains(&task.index)) {
            assert_eq!(task.result.as_ref().expect("a result").get(), (task.index - 7).to_string());
        }
    }
}

#[actix_web::test]
async fn tasks_that_are_not_there_are_refused() {
    let grid = TestCoordinator::start(config());
    let range = grid.submit(&json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 10}})).await;
    let refused = problem(grid.get(&format!("/v1/jobs/{}/tasks", range.id)).await, 409).await;
    assert_eq!(refused.detail, "the tasks of a job of the kind sum-of-primes are not individual");
    problem(grid.get("/v1/jobs/0198c5f0-0000-7000-8000-000000000001/tasks").await, 404).await;
    let huge = grid.submit(&sleeps(0.0, 10_000_000)).await;
    for (query, field) in [("state=over", "state"), ("limit=0", "limit"), ("page_token=x", "page_token")] {
        let problem = problem(grid.get(&format!("/v1/jobs/{}/tasks?{query}", huge.id)).await, 400).await;
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    let beyond = grid.get(&format!("/v1/jobs/{}/tasks?page_token={}", huge.id, u64::MAX)).await;
    assert_eq!(read::<Value>(beyond, 200).await, json!({"tasks": []}));
    let page: Value = read(grid.get(&format!("/v1/jobs/{}/tasks?state=failed", huge.id)).await, 200).await;
    assert!(page["tasks"] == json!([]) && page["next_page_token"].is_string(), "one look is bounded: {page}");
}

#[actix_web::test]
async fn a_page_of_large_results_ends_early_and_the_pages_have_every_task_once() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(24)).await;
    let result = "x".repeat(1 << 20);
    for _ in 0..12 {
        let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
        grid.complete(&claimed, &json!([result, result])).await;
    }
    grid.job_in(job.id, JobState::Succeeded).await;
    for query in ["", "&state=succeeded"] {
        let (mut token, mut indices, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let path = format!("/v1/jobs/{}/tasks?limit=1000{query}{token}", job.id);
            let page: TaskPage = read(grid.get(&path).await, 200).await;
            assert!((1..=9).contains(&page.tasks.len()), "{} tasks of 1 MiB in a page", page.tasks.len());
            indices.extend(page.tasks.iter().map(|task| task.index));
            pages += 1;
            match page.next_page_token {
                Some(next) => token = format!("&page_token={next}"),
                None => break,
            }
        }
        assert!(indices.iter().copied().eq(0..24), "{indices:?}");
        assert!(pages >= 3, "{pages}");
    }
}

#[actix_web::test]
async fn a_large_claim_comes_whole() {
    let grid = TestCoordinator::start(config());
    let payload = "y".repeat(10_000);
    let job = json!({"kind": "tasks", "params": {"list": vec![payload.as_str(); 50]}});
    grid.submit(&job).await;
    let mut claimed = 0;
    while claimed < 50 {
        let some = grid.claimed("one", &json!({"max_tasks": 50})).await;
        assert!(some.tasks.iter().all(|task| task.payload.get().len() == 10_002));
        claimed += some.tasks.len();
    }
}
