//! Checks before the handlers: tokens, host names, media types, and the memory that bodies take.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use api::{Heartbeat, HeldLease, Job};
use coordinator::config::Config;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use service::{DoorSettings, TOKEN_COOKIE, access};

use crate::helpers::{PATIENCE, TestCoordinator, closed_port, config, heartbeat, pause, problem, read};

fn guarded(file: &Path) -> Config {
    let doors = DoorSettings { api_tokens_file: Some(file.to_owned()), ..DoorSettings::default() };
    Config { doors, ..config() }
}

fn add(file: &Path, name: &str, rights: &str) -> String {
    access::add(file, name, &rights.parse().expect("rights")).expect("added")
}

impl TestCoordinator {
    async fn ask_as(&self, token: &str, method: Method, path: &str) -> Response {
        let request = self.client.request(method, format!("http://{}{path}", self.public));
        request.bearer_auth(token).send().await.expect("an answer")
    }
}

#[actix_web::test]
async fn the_public_port_demands_tokens_and_the_internal_one_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let (reader, submitter) = (add(&file, "reader", "read"), add(&file, "submitter", "submit"));
    let grid = TestCoordinator::start(guarded(&file));
    let job = json!({"kind": "sleep", "params": {"seconds": 0}});
    problem(grid.get("/v1/jobs").await, 401).await;
    problem(grid.post("/v1/jobs", &job).await, 401).await;
    assert_eq!(grid.get("/livez").await.status(), 200);
    assert_eq!(grid.ask_as(&reader, Method::GET, "/v1/jobs").await.status(), 200);
    problem(grid.ask_as(&reader, Method::POST, "/v1/jobs").await, 403).await;
    problem(grid.ask_as(&submitter, Method::GET, "/v1/jobs").await, 403).await;
    let request = grid.client.post(format!("http://{}/v1/jobs", grid.public)).bearer_auth(&submitter);
    assert_eq!(request.json(&job).send().await.expect("an answer").status(), 201);
    assert_eq!(grid.get_internal("/metrics").await.status(), 200);
    assert!(grid.claim("one", &Value::Null).await.is_some(), "the job that was submitted");
}

#[actix_web::test]
async fn a_page_that_a_token_may_not_read_leads_to_another_token_and_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let submitter = add(&file, "submitter", "submit");
    let grid = TestCoordinator::start(guarded(&file));
    let ask = async |path: &str| {
        let request = grid.client.get(format!("http://{}{path}", grid.public));
        request.header("cookie", format!("{TOKEN_COOKIE}={submitter}")).send().await.expect("an answer")
    };
    let refused = ask("/jobs?state=failed").await;
    assert_eq!(refused.status(), 403);
    let html = refused.text().await.expect("text");
    let sign_in = "/sign-in?next=%2Fjobs%3Fstate%3Dfailed";
    assert!(html.contains(&format!("href=\"{sign_in}\">Sign in with another token")), "{html}");
    let form = ask(sign_in).await;
    assert_eq!(form.status(), 200);
    let html = form.text().await.expect("text");
    assert!(html.contains("value=\"/jobs?state=failed\""), "{html}");
}

#[actix_web::test]
async fn a_sum_is_told_to_a_reader_but_stored_for_a_submitter_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let (reader, both) = (add(&file, "reader", "read"), add(&file, "both", "read,submit"));
    let mut config = guarded(&file);
    config.doors.anonymous_read = true;
    let grid = TestCoordinator::start(config);
    let url = format!("http://{}/sum-of-primes?a=0&b=100", grid.public);
    let ask = async |token: &str, prefer: &str| {
        let request = grid.client.get(&url).header("Prefer", prefer);
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        request.send().await.expect("an answer")
    };
    for prefer in ["respond-async", "wait=0"] {
        let refused = problem(ask(&reader, prefer).await, 403).await;
        assert_eq!(refused.detail, "the token \"reader\" lacks the right \"submit\", which a job needs");
        problem(ask("", prefer).await, 401).await;
        let job: Job = read(ask(&both, prefer).await, 202).await;
        assert_eq!(job.submitted_by.as_deref(), Some("both"));
    }
    let _worker = grid.add_real_worker("one", 1, model::Labels::new()).await;
    for token in [reader.as_str(), ""] {
        assert_eq!(ask(token, "").await.status(), 200);
    }
}

#[actix_web::test]
async fn the_question_before_a_change_shows_jobs_to_readers_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let (submitter, both) = (add(&file, "submitter", "submit"), add(&file, "both", "read,submit"));
    let grid = TestCoordinator::start(guarded(&file));
    let request = grid.client.post(format!("http://{}/v1/jobs", grid.public)).bearer_auth(&submitter);
    let submitted = request.json(&json!({"kind": "sleep", "params": {"seconds": 0}})).send().await.expect("an answer");
    let job: Job = read(submitted, 201).await;
    for path in ["/jobs/all/cancel?state=queued".to_owned(), format!("/jobs/{}/cancel", job.id)] {
        assert_eq!(grid.ask_as(&submitter, Method::GET, &path).await.status(), 403, "{path}");
        assert_eq!(grid.ask_as(&both, Method::GET, &path).await.status(), 200, "{path}");
    }
}

#[actix_web::test]
async fn streams_end_when_their_token_is_removed_or_replaced_under_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, next) = (directory.path().join("tokens.toml"), directory.path().join("next.toml"));
    let (removed, replaced) = (add(&file, "removed", "read"), add(&file, "replaced", "read"));
    let grid = TestCoordinator::start(guarded(&file));
    let mut streams = [
        grid.ask_as(&removed, Method::GET, "/v1/events").await,
        grid.ask_as(&removed, Method::GET, "/live").await,
        grid.ask_as(&replaced, Method::GET, "/v1/events").await,
        grid.ask_as(&replaced, Method::GET, "/live").await,
    ];
    add(&next, "replaced", "read");
    std::fs::rename(&next, &file).expect("renamed");
    for stream in &mut streams {
        assert_eq!(stream.status(), 200);
        let ended = async { while stream.chunk().await.expect("an event, a comment or the end").is_some() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    }
}

#[actix_web::test]
async fn every_described_path_has_its_right_in_the_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = add(&file, "user", "read,submit,programs");
    let grid = TestCoordinator::start(guarded(&file));
    let description: Value = read(grid.ask_as(&token, Method::GET, "/openapi.json").await, 200).await;
    let paths = description["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, operations) in paths.iter().filter(|(path, _)| !path.starts_with("/v1/worker/")) {
        for method in operations.as_object().expect("operations").keys().filter(|key| *key != "parameters") {
            let method = method.to_uppercase().parse().expect("a method");
            let answer = grid.ask_as(&token, method, &path.replace(['{', '}'], "")).await;
            let is_for_admins = path == "/workers/{id}/drain";
            assert_eq!(answer.status() == 403, is_for_admins, "{path}: a path that is not in the table demands admin");
            asked += 1;
        }
    }
    assert!(asked >= 15, "{asked}");
}

#[actix_web::test]
async fn foreign_hosts_other_types_of_bodies_and_unknown_parameters_are_refused_on_both_ports() {
    let grid = TestCoordinator::start(config());
    for (port, path) in [(grid.public, "/v1/jobs"), (grid.internal, "/v1/worker/claim")] {
        let post = || grid.client.post(format!("http://{port}{path}"));
        problem(post().header("host", "evil.example").send().await.expect("an answer"), 421).await;
        problem(post().body("{}").send().await.expect("an answer"), 415).await;
        problem(post().header("sec-fetch-site", "cross-site").send().await.expect("an answer"), 403).await;
        let unknown = grid.client.post(format!("http://{port}{path}?dry_run=1")).send().await.expect("an answer");
        assert_eq!(problem(unknown, 400).await.field.as_deref(), Some("dry_run"));
    }
}

#[actix_web::test]
async fn a_coordinator_is_asked_by_the_others_under_its_own_name_whatever_hosts_are_listed() {
    let mut config = Config { advertise_public_addr: Some("coordinator-0.divvy:80".to_owned()), ..config() };
    config.doors.allowed_hosts = "grid.example".to_owned().try_into().expect("a name");
    let grid = TestCoordinator::start(config);
    for (host, status) in [("coordinator-0.divvy:80", 200), ("grid.example", 200), ("coordinator-1.divvy:80", 421)] {
        let asked = grid.client.get(format!("http://{}/v1/stats", grid.public)).header("host", host);
        assert_eq!(asked.send().await.expect("an answer").status(), status, "{host}");
    }
}

#[actix_web::test]
async fn bodies_that_take_up_the_memory_set_aside_keep_longer_ones_out_but_no_short_ones() {
    let grid = TestCoordinator::start(Config { max_body_memory: 200_000, ..config() });
    let head = "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 150000";
    let begin = || {
        let mut slow = TcpStream::connect(grid.public).expect("connect");
        slow.write_all(format!("{head}\r\n\r\n{{").as_bytes()).expect("send the start of a body");
        slow
    };
    let mut slow = begin();
    let long = json!({"kind": "tasks", "params": {"list": ["x".repeat(100_000)]}});
    let refused = loop {
        let answer = grid.post("/v1/jobs", &long).await;
        if answer.status() != 201 {
            break answer;
        }
        pause().await;
        // The long body may have come first, so that the slow one was refused.
        slow = begin();
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    problem(refused, 503).await;
    grid.submit(&json!({"kind": "sleep", "params": {"seconds": 0}})).await;
    let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
    let lease = json!({"attempt": id, "job": id, "first": 0, "beyond": 1, "epoch": 1, "slot": 0, "elapsed_ms": 0,
        "state": "running"});
    let lease: HeldLease = serde_json::from_value(lease).expect("a lease");
    let long_heartbeat = Heartbeat { held: vec![lease; 1_000], ..heartbeat(closed_port()) };
    assert_eq!(grid.register("one", &long_heartbeat).await.status(), 200, "heartbeats have memory of their own");
    drop(slow);
    while grid.post("/v1/jobs", &long).await.status() != 201 {
        pause().await;
    }
}

#[actix_web::test]
async fn a_job_tells_by_whose_token_it_was_submitted_and_repeating_it_under_another_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let (ann, bob) = (add(&file, "ann@example", "submit,read"), add(&file, "bob", "submit,read"));
    let grid = TestCoordinator::start(guarded(&file));
    let path = "/v1/jobs/0198f0a2-7d3c-7c1e-8a55-0123456789ab";
    let submit = async |token: &str, body: &Value| {
        let request = grid.client.put(format!("http://{}{path}", grid.public)).bearer_auth(token);
        request.json(body).send().await.expect("an answer")
    };
    let job = json!({"kind": "sleep", "params": {"seconds": 0}});
    let accepted: Job = read(submit(&ann, &job).await, 201).await;
    assert_eq!(accepted.submitted_by.as_deref(), Some("ann@example"));
    let again: Job = read(submit(&bob, &job).await, 200).await;
    assert_eq!(again.submitted_by.as_deref(), Some("ann@example"));
    // It is not the client's to say.
    let claims = json!({"kind": "sleep", "params": {"seconds": 0}, "submitted_by": "root"});
    problem(submit(&bob, &claims).await, 400).await;
    let grid = TestCoordinator::start_on(grid.stop().await, guarded(&file)).await;
    let shown: Job = read(grid.ask_as(&bob, Method::GET, path).await, 200).await;
    assert_eq!(shown.submitted_by.as_deref(), Some("ann@example"));
}
