//! Simulated workers and their jobs, and the figures of the grid.

use std::time::Instant;

use api::{SimulationStarted, Stats, WorkerStats};
use model::{JobState, Labels};
use serde_json::{Value, json};

use crate::helpers::{PATIENCE, TestCoordinator, config, numbered_tasks, problem, read, with};

#[actix_web::test]
async fn simulated_tasks_run_on_no_more_workers_than_asked_for_most_urgent_first() {
    let grid = TestCoordinator::start(config());
    let simulation = json!({"tasks": 31, "seconds": 0.02, "workers": 3, "priorities": [2, 9, 5, 9]});
    let started: SimulationStarted = read(grid.post("/v1/simulate", &simulation).await, 201).await;
    let told: Vec<_> = started.jobs.iter().map(|job| (job.priority.get(), job.tasks.total)).collect();
    assert_eq!(told, [(9, 11), (5, 10), (2, 10)]);
    assert!(started.jobs.iter().all(|job| job.tags["simulation"] == "true"));
    let since = Instant::now();
    loop {
        let stats: Stats = read(grid.get("/v1/stats").await, 200).await;
        assert!(stats.tasks.running <= 3, "{stats:?}");
        assert_eq!((stats.workers.ready, stats.wanted_slots), (0, 0), "slots of other workers are of no use to it");
        if stats.jobs.is_empty() {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "they go on: {stats:?}");
        crate::helpers::pause().await;
    }
    let mut intervals = Vec::new();
    let mut last = None;
    for job in &started.jobs {
        let job = grid.job_in(job.id, JobState::Succeeded).await;
        assert_eq!(grid.result(job.id).await, json!({"tasks": job.tasks.total}));
        assert!(last <= job.started_at, "a less urgent job began before a more urgent one");
        last = job.started_at;
        intervals.extend(grid.tasks(job.id, "").await.into_iter().map(|task| (task.allocated_at, task.completed_at)));
    }
    let together = |at: Option<jiff::Timestamp>| intervals.iter().filter(|(from, to)| *from <= at && *to > at).count();
    assert_eq!(intervals.iter().map(|(from, _)| together(*from)).max(), Some(3));
    intervals.sort();
    assert_eq!(intervals.len(), 31);
}

#[actix_web::test]
async fn simulated_workers_take_nothing_else_and_nobody_takes_theirs() {
    let grid = TestCoordinator::start(config());
    let other = grid.submit(&json!({"kind": "sleep", "params": {"seconds": 0}})).await;
    let simulation = json!({"tasks": 2, "seconds": 0, "workers": 1});
    let started: SimulationStarted = read(grid.post("/v1/simulate", &simulation).await, 201).await;
    grid.job_in(started.jobs[0].id, JobState::Succeeded).await;
    assert_eq!(grid.job(other.id).await.state, JobState::Queued);
    let long = json!({"tasks": 2, "seconds": 3_600, "workers": 1});
    let started: SimulationStarted = read(grid.post("/v1/simulate", &long).await, 201).await;
    let id = started.jobs[0].id;
    grid.job_when(id, |job| job.tasks.running == 1).await;
    assert_eq!(grid.claimed("one", &Value::Null).await.job, other.id);
    assert!(grid.claim("one", &Value::Null).await.is_none());
    assert_eq!(grid.act(id, "cancel").await.status(), 200);
    let after = grid.job(id).await;
    assert_eq!((after.state, after.tasks.running), (JobState::Canceled, 0));
}

#[actix_web::test]
async fn a_simulation_has_its_workers_and_says_nothing_else() {
    let grid = TestCoordinator::start(config());
    let simulation = json!({"tasks": 4, "seconds": 3_600, "workers": 2, "priorities": [1, 9]});
    let mut workers = Vec::new();
    for has_real_worker in [false, true] {
        if has_real_worker {
            workers.push(grid.add_real_worker("one", 1, Labels::new()).await);
        }
        let started: SimulationStarted = read(grid.post("/v1/simulate", &simulation).await, 201).await;
        let notices: Vec<_> = started.jobs.iter().map(|job| job.notice.as_deref()).collect();
        assert_eq!(notices, [None, None], "with a real worker: {has_real_worker}");
    }
    let stats: Stats = read(grid.get("/v1/stats").await, 200).await;
    assert_eq!(stats.workers.simulated, 4);
}

#[actix_web::test]
async fn a_simulation_out_of_its_bounds_is_refused() {
    let grid = TestCoordinator::start(config());
    let valid = json!({"tasks": 1, "seconds": 0, "workers": 1});
    for (fields, field) in [
        (json!({"tasks": 0}), "tasks"),
        (json!({"tasks": 1_000_001}), "tasks"),
        (json!({"seconds": -0.5}), "seconds"),
        (json!({"seconds": 3_601}), "seconds"),
        (json!({"workers": 0}), "workers"),
        (json!({"workers": 1_001}), "workers"),
        (json!({"priorities": [5, 10]}), "priorities[1]"),
    ] {
        let refused = problem(grid.post("/v1/simulate", &with(valid.clone(), &fields)).await, 400).await;
        assert_eq!(refused.field.as_deref(), Some(field), "{}", refused.detail);
    }
}

#[actix_web::test]
async fn the_figures_add_up() {
    let grid = TestCoordinator::start(config());
    for (priority, tasks) in [(1, 3), (9, 4), (9, 5)] {
        grid.submit(&with(numbered_tasks(tasks), &json!({ "priority": priority }))).await;
    }
    let paused = grid.submit(&numbered_tasks(6)).await;
    assert_eq!(grid.act(paused.id, "pause").await.status(), 200);
    let claimed = grid.claimed("one", &json!({"max_tasks": 2})).await;
    let stats: Stats = read(grid.get("/v1/stats").await, 200).await;
    assert_eq!(stats.jobs, [("paused".to_owned(), 1), ("queued".to_owned(), 2), ("running".to_owned(), 1)].into());
    assert_eq!((stats.tasks.total, stats.tasks.pending, stats.tasks.running), (18, 16, 2));
    assert_eq!(stats.queue_depth_by_priority, [(1, 3), (9, 7)].into(), "paused tasks do not wait for a slot");
    let demand = stats.demand_of_all();
    assert_eq!((demand.runnable, demand.paused, demand.unservable, demand.running), (10, 6, 0, 2));
    assert_eq!(stats.workers, WorkerStats { pulling: 1, leases: 1, ..WorkerStats::default() });
    grid.complete(&claimed, &json!([])).await;
    let stats: Stats = read(grid.get("/v1/stats").await, 200).await;
    assert_eq!((stats.tasks.succeeded, stats.tasks.running, stats.workers.leases), (2, 0, 0));
}
