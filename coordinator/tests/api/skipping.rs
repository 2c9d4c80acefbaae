//! Tasks that a client does not want any more while their job goes on.

use api::Skipped;
use model::{JobId, JobState, TaskState};
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, config, indices, numbered_tasks, problem, read, sleeps};

async fn skip(grid: &TestCoordinator, job: JobId, tasks: &[u64]) -> Vec<u64> {
    let answer = grid.post(&format!("/v1/jobs/{job}/tasks/skip"), &json!({ "tasks": tasks })).await;
    read::<Skipped>(answer, 200).await.skipped
}

#[actix_web::test]
async fn a_skipped_task_is_never_run_also_after_a_restart_and_its_result_is_null() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(5)).await.id;
    let held = grid.claimed("one", &Value::Null).await;
    assert_eq!(indices(&held), [0]);
    assert_eq!(skip(&grid, job, &[3, 0, 1]).await, [3, 1], "the first one runs");
    assert_eq!(skip(&grid, job, &[3]).await, [3], "the first answer may be lost");
    grid.complete(&held, &json!(["first"])).await;
    assert_eq!(skip(&grid, job, &[0]).await, [0_u64; 0], "a worker has done it");

    let grid = grid.restart(config()).await;
    assert_eq!(skip(&grid, job, &[3, 0, 1]).await, [3, 1], "as the first answer");
    for expected in [2, 4] {
        let claimed = grid.claimed("one", &json!({"max_tasks": 1})).await;
        assert_eq!(indices(&claimed), [expected]);
        grid.complete(&claimed, &json!([expected])).await;
    }
    assert_eq!(grid.result(job).await, json!({"tasks": ["first", null, 2, null, 4]}));
    let tasks = grid.tasks(job, "").await;
    assert!(tasks.iter().all(|task| task.state == TaskState::Succeeded), "{tasks:?}");
    let has_worker: Vec<_> = tasks.iter().map(|task| task.worker.is_some()).collect();
    assert_eq!(has_worker, [true, false, true, false, true]);
    assert_eq!(skip(&grid, job, &[0, 1, 3, 3]).await, [1, 3], "as an earlier answer");
    let path = format!("/v1/jobs/{job}/tasks/skip");
    assert!(problem(grid.post(&path, &json!({"tasks": [0, 4]})).await, 409).await.detail.contains("it has succeeded"));
}

#[actix_web::test]
async fn a_job_of_which_every_task_is_skipped_succeeds_also_while_it_is_paused() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await.id;
    assert_eq!(grid.act(job, "pause").await.status(), 200);
    assert_eq!(skip(&grid, job, &[0, 1]).await, [0, 1]);
    grid.job_in(job, JobState::Succeeded).await;
    assert_eq!(grid.result(job).await, json!({"tasks": [null, null]}));
    assert_eq!(skip(&grid, job, &[0, 1]).await, [0, 1], "the answer that ended the job may be lost");
}

#[actix_web::test]
async fn what_cannot_be_skipped_is_refused() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await.id;
    let path = |job: &str| format!("/v1/jobs/{job}/tasks/skip");
    let too_many: Vec<_> = (0..1_001).collect();
    for body in [json!({"tasks": []}), json!({"tasks": too_many}), json!({"tasks": [-1]}), json!({})] {
        problem(grid.post(&path(&job.to_string()), &body).await, 400).await;
    }
    let absent = problem(grid.post(&path(&job.to_string()), &json!({"tasks": [0, 1]})).await, 404).await;
    assert!(absent.detail.contains(&format!("job {job} has no task 1")), "{absent:?}");
    assert_eq!(grid.tasks(job, "").await[0].state, TaskState::Pending, "nothing is skipped then");
    let unknown = "0190163d-8694-739b-aea5-966c26f8ad91";
    problem(grid.post(&path(unknown), &json!({"tasks": [0]})).await, 404).await;
    let other = grid.submit(&sleeps(0.0, 2)).await.id;
    let refused = problem(grid.post(&path(&other.to_string()), &json!({"tasks": [0]})).await, 409).await;
    assert!(refused.detail.contains("not those of the kind sleep"), "{refused:?}");
}
