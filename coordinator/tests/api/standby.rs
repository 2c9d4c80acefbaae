//! Answers that a standby gives itself, with a leader and without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::{CoordinatorList, CoordinatorRole, Job, JobPage, TaskPage};
use coordinator::config::Config;
use futures_util::future::join_all;
use model::{Algorithm, JobState};
use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};
use store::Shared;
use store::memory::{Memory, MemoryShared, StoreClock};
use store::shared::Acquired;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::helpers::{
    PATIENCE, TestCoordinator, config, gunzip, heartbeat, numbered_tasks, pause, problem, read, with,
};
use crate::several::Grid;

/// A coordinator of a grid without a leader: a lease that never expires belongs to no coordinator.
fn without_leader() -> TestCoordinator {
    let clock: StoreClock = Arc::new(|| Duration::ZERO);
    let way = Memory::new().shared(clock);
    let acquired = way.leadership().acquire(Uuid::new_v4()).expect("a store");
    assert!(matches!(acquired, Acquired::Leads(_)), "{acquired:?}");
    TestCoordinator::start_shared(&way, config())
}

async fn html(response: Response, status: u16) -> String {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(response.status(), status);
    response.text().await.expect("text")
}

/// The version that a page shows.
fn version(html: &str) -> String {
    html.split_once("data-version=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a version").0.to_owned()
}

/// The versions of the next tick of `/live`.
async fn tick(grid: &TestCoordinator) -> String {
    let mut response = grid.get("/live").await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut text = String::new();
    let reading = async {
        while !text.contains("event: tick") || !text.ends_with("\n\n") {
            let part = response.chunk().await.expect("a stream").expect("it goes on");
            text.push_str(std::str::from_utf8(&part).expect("UTF-8"));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a tick in time");
    let data = text.lines().find_map(|line| line.strip_prefix("data:")).expect("data");
    data.trim().to_owned()
}

#[actix_web::test]
async fn without_a_leader_every_page_is_there_and_says_what_is_stored() {
    let grid = without_leader();
    assert_eq!(grid.register("one", &heartbeat(1)).await.status(), StatusCode::OK);
    let job = grid.submit(&numbered_tasks(3)).await;
    assert_eq!(grid.job(job.id).await.state, JobState::Queued);
    let of_job = format!("/jobs/{}", job.id);
    for (path, expected) in [
        ("/", "No coordinator leads now"),
        ("/jobs", job.id.to_string().as_str()),
        (of_job.as_str(), "queued"),
        ("/task-stream", "No slot had a lease"),
        ("/statistics?grain=minute", "Nothing happened"),
        ("/grid/workers", "worker-one"),
        ("/grid/coordinators", "No coordinator leads now"),
        ("/submit", "Submit job"),
        ("/jobs/all/cancel?kind=tasks", "Cancel 1 job"),
    ] {
        let page = html(grid.get(path).await, 200).await;
        assert!(page.contains(expected), "{path}: {page}");
    }
    assert_eq!(grid.get("/jobs/states").await.text().await.expect("text"), "[]");
    assert!(tick(&grid).await.contains(&version(&html(grid.get("/").await, 200).await)));
}

#[actix_web::test]
async fn without_a_leader_reads_of_its_own_give_up_sooner_than_changes_and_pages_stay_pages() {
    let grid = without_leader();
    let job = grid.submit(&numbered_tasks(1)).await.id;
    let asked_at = Instant::now();
    let (explain, action) = (format!("/v1/jobs/{job}/explain"), format!("/jobs/{job}/cancel"));
    let reads = async {
        for refused in join_all(["/v1/stats", &explain].map(|path| grid.get(path))).await {
            assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
            problem(refused, 503).await;
        }
        asked_at.elapsed()
    };
    let change = async {
        let page = html(grid.post(&action, &Value::Null).await, 503).await;
        assert!(page.contains("No coordinator leads at the moment"), "{page}");
        asked_at.elapsed()
    };
    let (read, changed) = tokio::join!(reads, change);
    assert!(read < changed, "two reads after {read:?}, a change after {changed:?}");
}

#[actix_web::test]
async fn a_leader_that_cannot_be_reached_is_told_from_none() {
    // No process listens on this port.
    let unreachable = Config { advertise_public_addr: Some("127.0.0.1:1".to_owned()), ..config() };
    let grid = Grid::start_with(2, unreachable).await;
    let refused = grid.coordinators[1].get("/v1/stats").await;
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let detail = problem(refused, 503).await.detail;
    assert!(detail.starts_with("the coordinator that leads cannot be reached"), "{detail}");
    let none = problem(without_leader().get("/v1/stats").await, 503).await.detail;
    assert!(none.starts_with("no coordinator leads"), "{none}");
}

#[actix_web::test]
async fn a_standby_shows_what_only_the_leader_knows() {
    let grid = Grid::start(2).await;
    let (leader, standby) = (&grid.coordinators[0], &grid.coordinators[1]);
    let job = standby.submit(&numbered_tasks(2)).await.id;
    let claimed = standby.claimed("puller", &json!({"wait_seconds": 30.0, "max_tasks": 1})).await;
    assert_eq!(claimed.job, job);
    assert_eq!(standby.job(job).await.tasks.running, 1);
    let page = html(standby.get(&format!("/jobs/{job}")).await, 200).await;
    assert!(page.contains("1 waiting"), "{page}");
    // Of the same coordinator as the leader's own, and of the ticks that the standby passes on.
    let instance = |html: &str| version(html).split('-').next().expect("an instance").to_owned();
    let (own, passed_on) = (html(leader.get("/").await, 200).await, html(standby.get("/").await, 200).await);
    assert_eq!(instance(&own), instance(&passed_on));
    let ticks = tick(standby).await;
    assert!(ticks.starts_with(&instance(&own)), "{ticks}");
    let list = html(standby.get("/jobs").await, 200).await;
    assert_eq!(instance(&own), instance(&list));
    let listed: JobPage = read(standby.get("/v1/jobs").await, 200).await;
    assert_eq!(listed.jobs[0].tasks.running, 1);
    let running: TaskPage = read(standby.get(&format!("/v1/jobs/{job}/tasks?state=running")).await, 200).await;
    assert_eq!(running.tasks.len(), 1);
    // The standby serves stored data itself, with versions that the same ticks announce.
    let stored = version(&html(standby.get("/statistics").await, 200).await);
    assert!(stored.starts_with('e'), "{stored}");
    let deadline = Instant::now() + PATIENCE;
    while !tick(standby).await.split(' ').any(|told| told == stored) {
        assert!(Instant::now() < deadline, "no tick tells of {stored}");
        pause().await;
    }
}

#[actix_web::test]
async fn a_page_that_a_standby_passes_on_is_compressed_once() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let request = standby.client.get(format!("http://{}/jobs", standby.public));
    let answer = request.header(header::ACCEPT_ENCODING, "gzip").send().await.expect("an answer");
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    let html = gunzip(&answer.bytes().await.expect("bytes"));
    assert!(String::from_utf8_lossy(&html).contains("<h1>Jobs</h1>"), "{html:?}");
}

#[actix_web::test]
async fn a_job_that_no_worker_can_run_is_told_so_at_a_standby_too() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let body = with(numbered_tasks(1), &json!({"requires": {"labels": {"gpu": "yes"}}}));
    let job = standby.submit(&body).await;
    assert!(job.notice.is_some(), "{job:?}");
    // Of many at once, which ask the leader together.
    for other in join_all((0..40).map(|_| standby.submit(&body))).await {
        assert_eq!(other.notice, job.notice);
    }
    let shown: Job = read(standby.get(&format!("/v1/jobs/{}", job.id)).await, 200).await;
    assert_eq!(shown.notice, job.notice);
}

/// A store whose clock jumps ahead by so many seconds.
fn jumping() -> (impl Fn() -> MemoryShared, Arc<AtomicU64>) {
    let (memory, origin, ahead) = (Memory::new(), Instant::now(), Arc::new(AtomicU64::new(0)));
    let time = Arc::clone(&ahead);
    let clock: StoreClock = Arc::new(move || origin.elapsed() + Duration::from_secs(time.load(Ordering::SeqCst)));
    (move || memory.shared(Arc::clone(&clock)), ahead)
}

/// Waits until so many coordinators are there and one of them leads. Returns them.
async fn until_led(grid: &TestCoordinator, count: usize) -> CoordinatorList {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list: CoordinatorList = read(grid.get("/v1/coordinators").await, 200).await;
        let is_led = list.coordinators.iter().any(|coordinator| coordinator.role == CoordinatorRole::Leader);
        if is_led && list.coordinators.len() == count {
            return list;
        }
        assert!(Instant::now() < deadline, "{list:?}");
        pause().await;
    }
}

/// Takes the lease for a member. Who had it learns of it only when it writes, or renews its lease.
fn take_lease(way: &MemoryShared, ahead: &AtomicU64, member: Uuid) {
    ahead.store(10, Ordering::SeqCst);
    let acquired = way.leadership().acquire(member).expect("a store");
    assert!(matches!(acquired, Acquired::Leads(_)), "{acquired:?}");
}

#[actix_web::test]
async fn a_job_that_comes_as_the_lead_is_lost_is_accepted_all_the_same() {
    let (way, ahead) = jumping();
    let grid = TestCoordinator::start_shared(&way(), config());
    until_led(&grid, 1).await;
    take_lease(&way(), &ahead, Uuid::new_v4());
    let job: Job = read(grid.post("/v1/jobs", &numbered_tasks(1)).await, 201).await;
    assert_eq!(grid.job(job.id).await.state, JobState::Queued);
}

#[actix_web::test]
async fn every_job_of_many_that_a_standby_accepts_at_once_is_worked_on() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let _worker = grid.worker("one", 2);
    let body = json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 1000}});
    // More than are read, or wait, at a time.
    let jobs = join_all((0..600).map(|_| standby.submit(&body))).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let done: JobPage = read(standby.get("/v1/jobs?state=succeeded&limit=1000").await, 200).await;
        if done.jobs.len() == jobs.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {} are done", done.jobs.len(), jobs.len());
        pause().await;
    }
}

#[actix_web::test]
async fn a_standby_accepts_a_job_in_the_way_that_the_workers_can_compute() {
    let grid = Grid::start(2).await;
    // A worker of the first release, which knows the sieve alone.
    for coordinator in &grid.coordinators {
        assert_eq!(coordinator.register("old", &heartbeat(1)).await.status(), StatusCode::OK);
    }
    let params = json!({"a": 1, "b": 10_000_000_000_u64});
    let job = grid.coordinators[1].submit(&json!({"kind": "sum-of-primes", "params": params})).await;
    assert_eq!((job.algorithm, job.notice), (Some(Algorithm::Sieve), None));
    let params = with(params, &json!({"algorithm": "combinatorial"}));
    let demanded = grid.coordinators[1].submit(&json!({"kind": "sum-of-primes", "params": params})).await;
    assert!(demanded.notice.is_some(), "no worker can run it");
}

#[actix_web::test]
async fn a_list_at_a_standby_says_which_jobs_wait_and_why() {
    let grid = Grid::start(2).await;
    let standby = &grid.coordinators[1];
    let job = standby.submit(&numbered_tasks(2)).await.id;
    // It has started, and its only worker gives a task back and is drained.
    let claimed = standby.claimed("puller", &json!({"wait_seconds": 30.0, "max_tasks": 1})).await;
    assert_eq!(claimed.job, job);
    assert_eq!(standby.post("/workers/puller/drain", &Value::Null).await.status(), StatusCode::NO_CONTENT);
    standby.complete(&claimed, &json!([1])).await;
    standby.job_when(job, |job| job.notice.is_some() && job.tasks.running == 0).await;
    let listed: JobPage = read(standby.get("/v1/jobs?state=running").await, 200).await;
    let notice = listed.jobs[0].notice.clone().expect("a reason");
    for path in ["/jobs", "/jobs?state=running", "/jobs/all/cancel?kind=tasks"] {
        let page = html(standby.get(path).await, 200).await;
        assert!(page.contains("</svg>waiting</span>"), "{path}: {page}");
    }
    let page = html(standby.get("/jobs").await, 200).await;
    assert!(page.contains(&notice), "{notice}: {page}");
}

#[actix_web::test]
async fn a_form_that_the_leader_takes_is_not_too_long_for_a_standby() {
    let grid = Grid::start_with(2, Config { max_result_bytes: 1_024, max_job_bytes: 512 * 1_024, ..config() }).await;
    let standby = &grid.coordinators[1];
    // Each of these characters takes two bytes in a job and six in a form.
    let list = format!("\"{}\"", "é".repeat(200 * 1_024));
    let fields = [("kind", "tasks"), ("p.list", list.as_str()), ("key", "1")];
    let post = async |fields: &[(&str, &str)]| {
        let url = format!("http://{}/submit", standby.public);
        let body = serde_urlencoded::to_string(fields).expect("a form");
        let request = standby.client.post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body(body).send().await.expect("an answer")
    };
    let accepted = post(&fields).await;
    assert_eq!(accepted.status(), StatusCode::SEE_OTHER, "{}", accepted.text().await.expect("text"));
    let location = accepted.headers()[header::LOCATION].to_str().expect("text").to_owned();
    assert!(location.starts_with("/jobs/"), "{location}");
    // The key makes it the same submission.
    assert_eq!(post(&fields).await.headers()[header::LOCATION].to_str().expect("text"), location);
    let too_long = "é".repeat(300 * 1_024);
    let page = html(post(&[("kind", "tasks"), ("p.list", &too_long)]).await, 413).await;
    assert!(page.contains("The body is longer than"), "{page}");
}

#[actix_web::test]
async fn a_standby_answers_reads_as_the_leader_does() {
    let grid = Grid::start(2).await;
    let (leader, standby) = (&grid.coordinators[0], &grid.coordinators[1]);
    let body = with(numbered_tasks(2), &json!({"output": "numbers", "tags": {"user": "ann"}}));
    let job = standby.submit(&body).await.id;
    for _ in 0..2 {
        let claimed = standby.claimed("puller", &json!({"wait_seconds": 30.0, "max_tasks": 1})).await;
        standby.complete(&claimed, &json!(["done"])).await;
    }
    standby.job_in(job, JobState::Succeeded).await;
    let of_job = |rest: &str| format!("/v1/jobs/{job}{rest}");
    for (path, status) in [
        ("/v1/jobs".to_owned(), 200),
        ("/v1/jobs?state=succeeded&tag=user:ann".to_owned(), 200),
        ("/v1/jobs?limit=0".to_owned(), 400),
        (of_job(""), 200),
        (of_job("/tasks"), 200),
        (of_job("/tasks?state=failed"), 200),
        (of_job("/tasks/1/result"), 200),
        (of_job("/tasks/2/result"), 404),
        (of_job("/result"), 200),
        (of_job("/result?wait=1"), 200),
        (of_job("/events?follow=false"), 200),
        (of_job("/events?after=1&follow=false"), 200),
        (of_job("/explain"), 200),
        (of_job("/logs"), 200),
        (of_job("/logs?task=2"), 404),
        ("/v1/events?after=0&follow=false".to_owned(), 200),
        ("/v1/events?after=999&follow=false".to_owned(), 200),
        ("/v1/results/numbers".to_owned(), 200),
        ("/v1/results/none".to_owned(), 404),
        ("/v1/programs".to_owned(), 200),
        ("/v1/programs/names".to_owned(), 200),
        ("/v1/statistics".to_owned(), 200),
        ("/v1/statistics/tasks".to_owned(), 200),
        (format!("/v1/jobs/{}", Uuid::nil()), 404),
        (format!("/v1/jobs/{}/events", Uuid::nil()), 404),
    ] {
        let answer = async |grid: &TestCoordinator| {
            let response = grid.get(&path).await;
            let (found, kind) = (response.status(), response.headers()[header::CONTENT_TYPE].clone());
            (found, kind, response.text().await.expect("text"))
        };
        let (own, passed_on) = (answer(leader).await, answer(standby).await);
        assert_eq!(own.0, status, "{path}: {}", own.2);
        assert_eq!(passed_on, own, "{path}");
    }
}

/// The status of the answer to a target that is sent as it is, with a job as the body of a `POST`.
async fn status_at(grid: &TestCoordinator, method: &str, target: &str) -> u16 {
    let job = json!({"kind": "sleep", "params": {"seconds": 0, "tasks": 1}}).to_string();
    let body = if method == "POST" { job } else { String::new() };
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close");
    let request = format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(grid.public).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&answer)))
}

#[actix_web::test]
async fn a_standby_asks_the_leader_for_no_other_resource_than_its_client_did() {
    let grid = Grid::start(2).await;
    for (method, target) in [
        ("POST", "/v1/jobs/%2e%2e/jobs"),
        ("POST", "/v1/jobs/../jobs"),
        ("POST", "/v1/jobs/.%2E/jobs"),
        ("GET", "/jobs/%2e%2e"),
        ("GET", "/jobs/.."),
        ("GET", r"/jobs/..\.."),
        ("GET", "/v1/jobs/%2e%2e"),
    ] {
        for (number, coordinator) in grid.coordinators.iter().enumerate() {
            assert_eq!(status_at(coordinator, method, target).await, 404, "{method} {target} at {number}");
        }
    }
    let list: JobPage = read(grid.coordinators[0].get("/v1/jobs").await, 200).await;
    assert!(list.jobs.is_empty(), "{:?}", list.jobs);
}
