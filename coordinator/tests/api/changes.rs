//! Jobs are canceled, paused, resumed and retried, one by one and many at once.

use api::{Changed, Job};
use model::{EventKind, JobState, Labels};
use serde_json::{Value, json};

use crate::helpers::{EventStream, TestCoordinator, config, numbered_tasks, problem, read, sleeps, with};

#[actix_web::test]
async fn a_change_is_made_once_and_again_is_no_other() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    for (action, state) in [
        ("pause", JobState::Paused),
        ("resume", JobState::Running),
        ("retry", JobState::Running),
        ("cancel", JobState::Canceled),
        ("retry", JobState::Running),
    ] {
        for _ in 0..2 {
            let changed: Job = read(grid.act(job.id, action).await, 200).await;
            assert_eq!((changed.id, changed.state), (job.id, state), "{action}");
        }
    }
    problem(grid.report(&claimed, "complete", &json!({"results": [1]})).await, 409).await;
    assert_eq!(grid.act(job.id, "cancel").await.status(), 200);
    let kinds = EventStream::open(&grid, &format!("/v1/jobs/{}/events", job.id), None).await.rest().await;
    use EventKind::{Canceled, Paused, Resumed, Retried, Started, Submitted};
    assert_eq!(kinds, [Submitted, Started, Paused, Resumed, Canceled, Retried, Canceled]);
}

#[actix_web::test]
async fn nothing_of_a_paused_job_runs_and_all_of_a_resumed_one() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    let paused: Job = read(grid.act(job.id, "pause").await, 200).await;
    assert_eq!((paused.tasks.running, paused.tasks.pending), (0, 2));
    assert!(grid.claim("one", &Value::Null).await.is_none());
    problem(grid.report(&claimed, "renew", &Value::Null).await, 409).await;
    let explained: Value = read(grid.get(&format!("/v1/jobs/{}/explain", job.id)).await, 200).await;
    assert_eq!(explained["reasons"], json!(["it is paused; resume it to let its tasks run"]));
    assert_eq!(grid.act(job.id, "resume").await.status(), 200);
    let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
    grid.complete(&claimed, &json!([1, 2])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [1, 2]}));
}

#[actix_web::test]
async fn a_real_worker_stops_when_its_job_is_canceled_or_paused() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    for action in ["cancel", "pause"] {
        let long = grid.submit(&sleeps(3_600.0, 1)).await;
        grid.job_when(long.id, |job| job.tasks.running == 1).await;
        assert_eq!(grid.act(long.id, action).await.status(), 200);
        let short = grid.submit(&sleeps(0.0, 1)).await;
        assert_eq!(grid.result(short.id).await, json!({"tasks": 1}), "{action}");
    }
}

#[actix_web::test]
async fn what_is_over_cannot_change_and_what_failed_can_be_retried() {
    let grid = TestCoordinator::start(config());
    let done = grid.submit(&numbered_tasks(1)).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    grid.complete(&claimed, &json!([1])).await;
    grid.job_in(done.id, JobState::Succeeded).await;
    for action in ["cancel", "pause", "resume", "retry"] {
        let detail = problem(grid.act(done.id, action).await, 409).await.detail;
        assert_eq!(detail, "the job is over: it has succeeded");
    }
    let failing = grid.submit(&with(numbered_tasks(2), &json!({"max_attempts": 1}))).await;
    let (bad, good) = (grid.claimed("one", &Value::Null).await, grid.claimed("one", &Value::Null).await);
    grid.fail(&bad, "no").await;
    grid.complete(&good, &json!(["good"])).await;
    let failed = grid.job_in(failing.id, JobState::Failed).await;
    assert_eq!((failed.error.as_deref(), failed.tasks.failed), (Some("1 of 2 tasks failed"), 1));
    for action in ["cancel", "pause", "resume"] {
        problem(grid.act(failing.id, action).await, 409).await;
    }
    let retried: Job = read(grid.act(failing.id, "retry").await, 200).await;
    assert_eq!((retried.state, retried.error, retried.finished_at), (JobState::Running, None, None));
    assert_eq!((retried.tasks.succeeded, retried.tasks.pending, retried.tasks.failed), (1, 1, 0));
    let again = grid.claimed("one", &Value::Null).await;
    assert_eq!(again.tasks[0].index, bad.tasks[0].index);
    grid.complete(&again, &json!(["better"])).await;
    assert_eq!(grid.result(failing.id).await, json!({"tasks": ["better", "good"]}));
}

#[actix_web::test]
async fn retry_that_is_sent_again_does_not_run_what_has_failed_since() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(1), &json!({"max_attempts": 1}))).await;
    for asked_ms_ago in ["600000", "0", ""] {
        let claimed = grid.claimed("one", &Value::Null).await;
        grid.fail(&claimed, "no").await;
        grid.job_in(job.id, JobState::Failed).await;
        let url = format!("http://{}/v1/jobs/{}/retry", grid.public, job.id);
        let retry = grid.client.post(&url).header("Divvy-Asked-Ms-Ago", asked_ms_ago).json(&Value::Null);
        let retried: Job = read(retry.send().await.expect("an answer"), 200).await;
        assert_eq!(retried.tasks.pending, 1, "asked {asked_ms_ago:?} ms ago");
    }
    let claimed = grid.claimed("one", &Value::Null).await;
    grid.fail(&claimed, "no").await;
    let failed = grid.job_in(job.id, JobState::Failed).await;
    let url = format!("http://{}/v1/jobs/{}/retry", grid.public, job.id);
    let again = grid.client.post(&url).header("Divvy-Asked-Ms-Ago", "600000").json(&Value::Null);
    let shown: Job = read(again.send().await.expect("an answer"), 200).await;
    assert_eq!((shown.state, shown.finished_at), (JobState::Failed, failed.finished_at));
    let url = format!("http://{}/v1/jobs/all/retry?state=failed", grid.public);
    let all = grid.client.post(&url).header("Divvy-Asked-Ms-Ago", "600000").json(&Value::Null);
    let changed: Changed = read(all.send().await.expect("an answer"), 200).await;
    assert_eq!(changed, Changed { matched: 1, changed: 0 });
    // The forms of the pages, which another coordinator passes on and sends again, too.
    let form_of_job = format!("/jobs/{}/retry", job.id);
    for form in [form_of_job.as_str(), "/jobs/all/retry?state=failed", "/jobs/all/retry?state=failed&since=24h"] {
        let sent = grid.client.post(format!("http://{}{form}", grid.public)).header("Divvy-Asked-Ms-Ago", "600000");
        assert_eq!(sent.send().await.expect("an answer").status(), 303, "{form}");
        assert_eq!(grid.job(job.id).await.finished_at, failed.finished_at, "{form}");
    }
    for path in [format!("{}/retry", job.id), "all/retry?state=failed".to_owned()] {
        let url = format!("http://{}/v1/jobs/{path}", grid.public);
        let wrong = grid.client.post(&url).header("Divvy-Asked-Ms-Ago", "1.5s").json(&Value::Null);
        let refused = problem(wrong.send().await.expect("an answer"), 400).await;
        assert_eq!(refused.detail, "Divvy-Asked-Ms-Ago must be a number of milliseconds");
    }
}

#[actix_web::test]
async fn failed_tasks_of_a_running_job_are_retried_and_count_anew() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(2), &json!({"max_attempts": 1}))).await;
    let (bad, held) = (grid.claimed("one", &Value::Null).await, grid.claimed("two", &Value::Null).await);
    grid.fail(&bad, "no").await;
    let retried: Job = read(grid.act(job.id, "retry").await, 200).await;
    assert_eq!((retried.tasks.pending, retried.tasks.running, retried.tasks.failed), (1, 1, 0));
    let again = grid.claimed("one", &Value::Null).await;
    grid.complete(&again, &json!([0])).await;
    grid.complete(&held, &json!([1])).await;
    assert_eq!(grid.result(job.id).await, json!({"tasks": [0, 1]}));
}

#[actix_web::test]
async fn tasks_that_fail_while_their_job_is_retried_are_neither_lost_nor_stuck() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(20), &json!({"max_attempts": 1}))).await;
    let failing = async {
        for _ in 0..100 {
            if let Some(claimed) = grid.claim("bad", &Value::Null).await {
                grid.fail(&claimed, "no").await;
            }
        }
    };
    let retrying = async {
        for _ in 0..50 {
            assert_eq!(grid.act(job.id, "retry").await.status(), 200);
        }
    };
    futures_util::future::join(failing, retrying).await;
    grid.job_when(job.id, |job| job.tasks.running == 0 && job.state != JobState::Queued).await;
    assert_eq!(grid.act(job.id, "retry").await.status(), 200);
    while let Some(claimed) = grid.claim("good", &json!({"max_tasks": 20})).await {
        grid.complete(&claimed, &json!(vec![1; claimed.tasks.len()])).await;
    }
    assert_eq!(grid.result(job.id).await, json!({ "tasks": vec![1; 20] }));
}

#[actix_web::test]
async fn a_filter_changes_all_that_it_finds() {
    let grid = TestCoordinator::start(config());
    let tagged = |tag: &str| with(numbered_tasks(1), &json!({"tags": {"batch": tag}}));
    let mut jobs = Vec::new();
    for _ in 0..30 {
        jobs.push(grid.submit(&tagged("one")).await.id);
    }
    let other = grid.submit(&tagged("two")).await.id;
    let act = async |action: &str, query: &str| {
        read::<Changed>(grid.post(&format!("/v1/jobs/all/{action}?{query}"), &Value::Null).await, 200).await
    };
    assert_eq!(act("pause", "tag=batch:one").await, Changed { matched: 30, changed: 30 });
    assert_eq!(act("pause", "tag=batch").await, Changed { matched: 31, changed: 1 });
    assert_eq!(act("resume", "state=paused&tag=batch:one").await, Changed { matched: 30, changed: 30 });
    assert_eq!(grid.act(jobs[0], "cancel").await.status(), 200);
    assert_eq!(act("cancel", "kind=tasks&tag=batch:one").await, Changed { matched: 30, changed: 29 });
    assert_eq!(act("cancel", "tag=nothing").await, Changed { matched: 0, changed: 0 });
    assert_eq!(act("resume", "state=canceled").await, Changed { matched: 30, changed: 0 });
    assert_eq!(grid.job(other).await.state, JobState::Paused);
    assert!(grid.claim("one", &Value::Null).await.is_none());
    assert_eq!(act("retry", "tag=batch").await, Changed { matched: 1, changed: 0 }, "canceled jobs stay canceled");
    assert_eq!(act("retry", "state=canceled").await, Changed { matched: 30, changed: 30 });
    assert_eq!(grid.job(jobs[7]).await.state, JobState::Queued);
}

#[actix_web::test]
async fn a_change_of_nothing_or_of_no_kind_is_refused() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await.id;
    problem(grid.act(job, "explode").await, 404).await;
    problem(grid.post("/v1/jobs/0198c5f0-0000-7000-8000-000000000001/cancel", &Value::Null).await, 404).await;
    problem(grid.post("/v1/jobs/x/cancel", &Value::Null).await, 404).await;
    problem(grid.post("/v1/jobs/all/explode?tag=x", &Value::Null).await, 404).await;
    for query in ["", "?state=over", "?stat=queued", "?limit=1"] {
        problem(grid.post(&format!("/v1/jobs/all/cancel{query}"), &Value::Null).await, 400).await;
    }
    let response = grid.get(&format!("/v1/jobs/{job}/cancel")).await;
    assert_eq!(response.headers()["allow"], "POST");
    problem(response, 405).await;
    assert_eq!(grid.job(job).await.state, JobState::Queued);
}
