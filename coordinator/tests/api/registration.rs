//! Registration of workers: admitted clients, names and addresses.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use api::{Heartbeat, WorkerState, WorkerSummary};
use coordinator::config::Config;
use model::JobState;
use reqwest::Client;
use serde_json::json;
use tokio::time::timeout;

use crate::helpers::{PATIENCE, TestCoordinator, closed_port, compute, config, heartbeat, pause, problem};

#[actix_web::test]
async fn a_heartbeat_that_makes_no_sense_is_refused_with_the_reason() {
    let grid = TestCoordinator::start(config());
    let valid = heartbeat(closed_port());
    for (heartbeat, field, detail) in [
        (Heartbeat { port: 0, ..valid.clone() }, "port", "port must be from 1 to 65535"),
        (Heartbeat { slots: 0, ..valid.clone() }, "slots", "slots must be from 1 to 1024"),
        (Heartbeat { slots: 1025, ..valid.clone() }, "slots", "slots must be from 1 to 1024"),
        (Heartbeat { cpu_load: 1e9, ..valid.clone() }, "cpu_load", "cpu_load must be from 0 to 1"),
        (
            Heartbeat { kinds: vec![model::JobKind::TASKS], ..valid.clone() },
            "kinds",
            "kinds must be kinds that a worker is sent, not tasks",
        ),
        (Heartbeat { version: "x".repeat(65), ..valid.clone() }, "version", "version must be at most 64 bytes long"),
    ] {
        let problem = problem(grid.register("one", &heartbeat).await, 400).await;
        assert_eq!((problem.field.as_deref(), problem.detail.as_str()), (Some(field), detail));
    }
    let long = Heartbeat { version: "x".repeat(3 << 20), ..valid.clone() };
    let too_long = format!("the body is longer than {} bytes", api::MAX_HEARTBEAT_BYTES);
    assert_eq!(problem(grid.register("one", &long).await, 413).await.detail, too_long);
    let named = problem(grid.register("a%2Fb", &valid).await, 400).await;
    assert_eq!(named.field.as_deref(), Some("worker_id"));
    let workers: Vec<WorkerSummary> = grid.get("/workers").await.json().await.expect("a list");
    assert_eq!(workers, []);
}

#[actix_web::test]
async fn another_process_under_a_known_name_is_a_new_worker() {
    let grid = TestCoordinator::start(config());
    let old = heartbeat(closed_port());
    assert_eq!(grid.register("one", &old).await.status(), 200);
    let _worker = grid.add_worker("one", compute).await;
    assert_eq!(grid.get("/sum-of-primes?a=1&b=10").await.status(), 200, "no lease goes to the old process");
    let workers: Vec<WorkerSummary> = grid.get("/workers").await.json().await.expect("a list");
    assert_eq!(workers.len(), 1);
    assert_ne!(workers[0].boot_id, Some(old.boot_id));
    let metrics = grid.get_internal("/metrics").await.text().await.expect("text");
    assert!(metrics.contains("divvy_evictions_total{reason=\"replaced\"} 1"), "{metrics}");
}

#[actix_web::test]
async fn a_process_that_takes_a_name_whose_lease_fails_a_job_is_answered() {
    // Enough that several of them share a shard, and with it the lock, of the map of workers.
    const WORKERS: u64 = 60;
    let grid = TestCoordinator::start(config());
    // Leases come to it, and none is ever answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("bound").port();
    for number in 0..WORKERS {
        assert_eq!(grid.register(&format!("worker-{number}"), &heartbeat(port)).await.status(), 200);
    }
    let params = json!({"a": 1, "b": 1_000_000_000_000_u64, "algorithm": "sieve"});
    let job = grid.submit(&json!({"kind": "sum-of-primes", "params": params, "max_attempts": 1})).await;
    grid.job_when(job.id, |job| job.tasks.running >= WORKERS).await;
    // The lost lease fails the job, and the leases of all other workers are stopped.
    let next = heartbeat(port);
    let answer = timeout(PATIENCE, grid.register("worker-0", &next)).await.expect("it is answered");
    assert_eq!(answer.status(), 200);
    grid.job_in(job.id, JobState::Failed).await;
    assert_eq!(grid.workers().await.len() as u64, WORKERS);
}

#[actix_web::test]
async fn slots_that_do_not_fit_are_refused_however_often_they_come() {
    let grid = TestCoordinator::start(config());
    let of_slots = |slots| Heartbeat { slots, ..heartbeat(closed_port()) };
    // All that there may be, but for one.
    for number in 0..64 {
        let slots = if number == 0 { 1_023 } else { 1_024 };
        assert_eq!(grid.register(&format!("worker-{number}"), &of_slots(slots)).await.status(), 200);
    }
    assert_eq!(grid.register("last", &of_slots(1)).await.status(), 200);
    for _ in 0..3 {
        let refused = problem(grid.register("last", &of_slots(2)).await, 503).await;
        assert!(refused.detail.contains("65536 slots"), "{refused:?}");
    }
    assert_eq!(grid.register("last", &of_slots(1)).await.status(), 200);
}

#[actix_web::test]
async fn a_name_belongs_to_the_process_that_lives_under_it_until_its_connection_ends() {
    let grid = TestCoordinator::start(config());
    let url = format!("http://{}/worker/register/one", grid.internal);
    let beat = async |client: &Client, heartbeat: &Heartbeat| {
        client.put(&url).json(heartbeat).send().await.expect("an answer")
    };
    let connection = || api::client::http_client(Duration::from_secs(1)).expect("a client");
    let (living, other) = ((connection(), heartbeat(closed_port())), (connection(), heartbeat(closed_port())));
    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(beat(&living.0, &living.1).await.status(), 200);
        }
        let refused = problem(beat(&other.0, &other.1).await, 409).await;
        assert!(refused.detail.starts_with("the name one belongs to a living worker at 127.0.0.1:"), "{refused:?}");
        assert!(refused.detail.ends_with("give each worker a DIVVY_WORKER_ID of its own"), "{refused:?}");
    }
    let workers: Vec<WorkerSummary> = grid.get("/workers").await.json().await.expect("a list");
    assert_eq!(workers.iter().map(|worker| worker.boot_id).collect::<Vec<_>>(), [Some(living.1.boot_id)]);
    drop(living);
    let deadline = Instant::now() + PATIENCE;
    while beat(&other.0, &other.1).await.status() != 200 {
        assert!(Instant::now() < deadline, "the name is never free");
        pause().await;
    }
}

#[actix_web::test]
async fn a_worker_leaves_only_as_itself() {
    let grid = TestCoordinator::start(config());
    let worker = heartbeat(closed_port());
    grid.register("one", &worker).await;
    let url = format!("http://{}/worker/register/one", grid.internal);
    let leave = |boot_id: String| grid.client.delete(&url).query(&[("boot_id", boot_id)]).send();
    let stranger = leave("00000000-0000-0000-0000-000000000000".to_owned()).await.expect("an answer");
    problem(stranger, 404).await;
    problem(leave("nonsense".to_owned()).await.expect("an answer"), 400).await;
    assert_eq!(leave(worker.boot_id.to_string()).await.expect("an answer").status(), 204);
}

#[actix_web::test]
async fn the_token_is_demanded_where_it_is_set() {
    let with_token = Config { worker_token: "secret".to_owned().try_into().expect("a token"), ..config() };
    let grid = TestCoordinator::start(with_token);
    let worker = heartbeat(closed_port());
    let refused = grid.register("one", &worker).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    problem(refused, 401).await;
    let url = format!("http://{}/worker/register/one", grid.internal);
    for (token, status) in [("wrong", 401), ("secrets", 401), ("", 401), ("secret", 200)] {
        let request = grid.client.put(&url).bearer_auth(token).json(&worker);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{token:?}");
    }
    let lower = grid.client.put(&url).header("authorization", "bearer secret").json(&worker);
    assert_eq!(lower.send().await.expect("an answer").status(), 200, "a scheme has no case");
}

#[actix_web::test]
async fn a_worker_whose_heartbeat_connection_closes_gets_no_lease_until_it_shows_again() {
    let grid = TestCoordinator::start(config());
    let _good = grid.add_worker("good", compute).await;
    let own_connection = api::client::http_client(Duration::from_secs(1)).expect("a client");
    let url = format!("http://{}/worker/register/gone", grid.internal);
    let gone = heartbeat(closed_port());
    for _ in 0..2 {
        let answer = own_connection.put(&url).json(&gone).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    drop(own_connection);
    let deadline = Instant::now() + PATIENCE;
    let is_noticed = |worker: &WorkerSummary| worker.id.as_str() != "gone" || worker.state == WorkerState::Suspended;
    // Soon it is not even listed.
    while !grid.workers().await.iter().all(is_noticed) {
        assert!(Instant::now() < deadline, "nobody noticed");
        tokio::task::yield_now().await;
    }
    assert_eq!(grid.get("/sum-of-primes?a=1&b=10").await.status(), 200);
    let metrics = grid.get_internal("/metrics").await.text().await.expect("text");
    assert!(metrics.contains("divvy_leases_total{outcome=\"failed\"} 0"), "{metrics}");
}
