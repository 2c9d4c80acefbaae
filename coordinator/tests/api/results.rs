//! Results: waited for, kept, large ones as files.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use coordinator::config::Config;
use model::{JobState, Labels};
use serde_json::{Value, json};

use crate::helpers::{PATIENCE, TestCoordinator, config, numbered_tasks, pause, problem, read, sleeps};

#[actix_web::test]
async fn there_is_no_result_before_the_end_nor_after_a_bad_one() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    let path = format!("/v1/jobs/{}/result", job.id);
    assert_eq!(problem(grid.get(&path).await, 409).await.detail, "there is no result: the job is queued");
    let asked_at = Instant::now();
    problem(grid.get(&format!("{path}?wait=300ms")).await, 409).await;
    assert!(asked_at.elapsed() >= Duration::from_millis(300));
    for wait in ["61s", "-1", "x", "", "1m", "NaN", "inf"] {
        let problem = problem(grid.get(&format!("{path}?wait={wait}")).await, 400).await;
        assert_eq!(problem.field.as_deref(), Some("wait"), "{wait}");
    }
    assert_eq!(grid.act(job.id, "cancel").await.status(), 200);
    let detail = problem(grid.get(&format!("{path}?wait=60s")).await, 409).await.detail;
    assert_eq!(detail, "there is no result: the job is canceled");
    problem(grid.get("/v1/jobs/0198c5f0-0000-7000-8000-000000000001/result").await, 404).await;
}

#[actix_web::test]
async fn who_waits_gets_the_result_when_it_is_there() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    let job = grid.submit(&sleeps(0.2, 1)).await;
    let asked_at = Instant::now();
    assert_eq!(grid.result(job.id).await, json!({"tasks": 1}));
    assert!(asked_at.elapsed() < Duration::from_secs(30), "it waited to the end");
}

#[actix_web::test]
async fn a_large_result_is_a_file_that_outlives_its_coordinator() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(100)).await;
    let claimed = grid.claimed("one", &json!({"max_tasks": 100})).await;
    let answers: Vec<_> = (0..100).map(|n| format!("{n}{}", "ü".repeat(1_000))).collect();
    grid.complete(&claimed, &json!(answers)).await;
    assert_eq!(grid.result(job.id).await, json!({ "tasks": answers }));
    let grid = grid.restart(config()).await;
    let response = grid.get(&format!("/v1/jobs/{}/result", job.id)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(read::<Value>(response, 200).await, json!({ "tasks": answers }));
    let files: Vec<_> = std::fs::read_dir(grid.data_dir.path().join("results")).expect("a directory").collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let file = file.as_ref().expect("a file").path();
    assert!(file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&job.id.to_string())), "{file:?}");
    let stored: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    assert_eq!(stored, json!({ "tasks": answers }));
    std::fs::remove_file(&file).expect("removed");
    problem(grid.get(&format!("/v1/jobs/{}/result", job.id)).await, 500).await;
    assert_eq!(grid.job(job.id).await.state, JobState::Succeeded);
}

#[actix_web::test]
async fn a_result_is_found_by_the_name_that_its_job_gave_it_the_newest_first() {
    let grid = TestCoordinator::start(config());
    let _worker = grid.add_real_worker("one", 1, Labels::new()).await;
    problem(grid.get("/v1/results/daily").await, 404).await;
    let refused = problem(grid.get("/v1/results/daily?wait=1").await, 400).await;
    assert_eq!(refused.field.as_deref(), Some("wait"), "it is not waited for here");
    for (b, sum) in [(10, "17"), (100, "1060")] {
        let body = json!({"kind": "sum-of-primes", "params": {"a": 1, "b": b}, "output": "daily"});
        let job = grid.submit(&body).await;
        grid.result(job.id).await;
        let named: Value = read(grid.get("/v1/results/daily").await, 200).await;
        assert_eq!(named["sum"], sum);
    }
}

#[actix_web::test]
async fn results_that_clients_leave_unread_keep_further_ones_out_but_no_submissions() {
    let grid = TestCoordinator::start(Config { max_body_memory: 24 << 20, ..config() });
    let job = grid.submit(&numbered_tasks(1)).await;
    let claimed = grid.claimed("one", &json!({})).await;
    // Longer than what the system holds of a connection, and so long that the memory has no room for two.
    let result = "x".repeat(16 << 20);
    grid.complete(&claimed, &json!([result])).await;
    grid.job_when(job.id, |job| job.state == JobState::Succeeded).await;
    let path = format!("/v1/jobs/{}/tasks/0/result", job.id);
    let leave_unread = || {
        let mut client = TcpStream::connect(grid.public).expect("connect");
        write!(client, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send a request");
        client
    };
    let deadline = Instant::now() + PATIENCE;
    let (unread, refused) = loop {
        // The next request may come first, so that this one is refused.
        let unread = leave_unread();
        let answer = grid.get(&path).await;
        match answer.status().as_u16() {
            503 => break (unread, answer),
            200 => assert_eq!(read::<String>(answer, 200).await.len(), result.len()),
            // A thread that is late refuses a request unread.
            _ => (),
        }
        assert!(Instant::now() < deadline, "nothing is ever refused");
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    problem(refused, 503).await;
    let long = json!({"kind": "tasks", "params": {"list": ["x".repeat(100_000)]}});
    assert_eq!(grid.post("/v1/jobs", &long).await.status(), 201);
    drop(unread);
    while grid.get(&path).await.status() != 200 {
        assert!(Instant::now() < deadline, "the memory is not given back");
        pause().await;
    }
}
