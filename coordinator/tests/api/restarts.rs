//! Jobs go on where they were when the coordinator ended.

use model::{JobState, Labels, TaskState};
use serde_json::{Value, json};

use crate::helpers::{EventStream, TestCoordinator, config, indices, numbered_tasks, problem, read, sleeps, with};

#[actix_web::test]
async fn jobs_go_on_in_the_state_they_were_in() {
    let grid = TestCoordinator::start(config());
    let running = grid.submit(&with(numbered_tasks(4), &json!({"priority": 9, "max_attempts": 3}))).await.id;
    let done = grid.claimed("one", &json!({"max_tasks": 1})).await;
    grid.complete(&done, &json!(["before"])).await;
    let failed = grid.claimed("one", &json!({"max_tasks": 1})).await;
    grid.fail(&failed, "no").await;
    let queued = grid.submit(&numbered_tasks(1)).await.id;
    let paused = grid.submit(&numbered_tasks(1)).await.id;
    assert_eq!(grid.act(paused, "pause").await.status(), 200);
    let canceled = grid.submit(&numbered_tasks(1)).await.id;
    assert_eq!(grid.act(canceled, "cancel").await.status(), 200);
    let held = grid.claimed("two", &json!({"max_tasks": 1})).await;
    assert_eq!((held.job, indices(&held)), (running, vec![1]));

    let grid = grid.restart(config()).await;
    let states = [
        (running, JobState::Running),
        (queued, JobState::Queued),
        (paused, JobState::Paused),
        (canceled, JobState::Canceled),
    ];
    for (id, state) in states {
        assert_eq!(grid.job(id).await.state, state);
    }
    problem(grid.report(&held, "complete", &json!({"results": ["late"]})).await, 409).await;
    let rest =
        [grid.claimed("one", &json!({"max_tasks": 9})).await, grid.claimed("one", &json!({"max_tasks": 9})).await];
    assert_eq!(rest.each_ref().map(|claimed| claimed.job), [running, running]);
    assert_eq!(rest.each_ref().map(indices), [vec![1], vec![2, 3]]);
    for claimed in &rest {
        grid.complete(claimed, &json!(indices(claimed))).await;
    }
    assert_eq!(grid.result(running).await, json!({"tasks": ["before", 1, 2, 3]}));
    let told = grid.tasks(running, "").await;
    assert_eq!(told.iter().map(|task| task.attempts).collect::<Vec<_>>(), [1, 2, 1, 1]);
    assert!(told.iter().all(|task| task.state == TaskState::Succeeded), "{told:?}");
    let next = grid.claimed("one", &Value::Null).await;
    assert_eq!(next.job, queued);
    grid.complete(&next, &json!([null])).await;
    assert_eq!(grid.act(paused, "resume").await.status(), 200);
    assert_eq!(grid.claimed("one", &Value::Null).await.job, paused);
}

#[actix_web::test]
async fn a_sum_that_was_interrupted_twice_is_exact() {
    let small = || coordinator::config::Config { lease_target_ms: 1, ..config() };
    let mut grid = TestCoordinator::start(small());
    let range = json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 10_000_000_000_u64, "algorithm": "sieve"}});
    let job = grid.submit(&range).await.id;
    for interrupted_after in [1, 400] {
        let worker = grid.add_real_worker("one", 1, Labels::new()).await;
        grid.job_when(job, |job| job.tasks.succeeded > interrupted_after).await;
        let data_dir = grid.stop().await;
        drop(worker);
        grid = TestCoordinator::start_on(data_dir, small()).await;
        let job = grid.job(job).await;
        assert!(job.tasks.succeeded > interrupted_after, "what was done is done: {:?}", job.tasks);
        assert_eq!((job.state, job.tasks.running), (JobState::Running, 0));
    }
    let _worker = grid.add_real_worker("two", 2, Labels::new()).await;
    let answer = json!({"a": 1, "b": 10_000_000_000_u64, "sum": "2220822432581729238"});
    assert_eq!(grid.result(job).await, answer);
}

#[actix_web::test]
async fn a_range_keeps_its_division_whatever_the_next_coordinator_is_told() {
    let chunks_of =
        |numbers: u64| coordinator::config::Config { chunk_size: numbers.try_into().expect("not 0"), ..config() };
    let grid = TestCoordinator::start(chunks_of(9));
    let job = grid.submit(&json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 100}})).await.id;
    let first = grid.claimed("one", &json!({"max_tasks": 3})).await;
    assert_eq!(first.tasks[2].payload.get(), r#"{"a":21,"b":30}"#);
    grid.complete(&first, &json!(["17", "60", "52"])).await;
    let grid = grid.restart(chunks_of(10_000)).await;
    let rest = grid.claimed("one", &json!({"max_tasks": 99})).await;
    assert_eq!((indices(&rest), rest.tasks[0].payload.get()), ((3..10).collect(), r#"{"a":31,"b":40}"#));
    grid.complete(&rest, &json!(["68", "131", "112", "128", "223", "172", "97"])).await;
    assert_eq!(grid.result(job).await, json!({"a": 1, "b": 100, "sum": "1060"}));
}

#[actix_web::test]
async fn simulated_jobs_end_with_their_coordinator() {
    let grid = TestCoordinator::start(config());
    let simulation = json!({"tasks": 3, "seconds": 3_600, "workers": 2});
    let started: Value = read(grid.post("/v1/simulate", &simulation).await, 201).await;
    let id = model::JobId(started["jobs"][0]["id"].as_str().expect("an id").parse().expect("a UUID"));
    grid.job_when(id, |job| job.tasks.running == 2).await;
    let real = grid.submit(&sleeps(0.0, 1)).await.id;
    let grid = grid.restart(config()).await;
    grid.job_in(id, JobState::Canceled).await;
    assert_eq!(grid.job(real).await.state, JobState::Queued);
    let mut events = EventStream::open(&grid, &format!("/v1/jobs/{id}/events"), None).await;
    assert_eq!(events.rest().await.last(), Some(&model::EventKind::Canceled));
}
