//! Jobs whose payloads carry code: rights to submit them, and the mark that workers see.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use api::{Claimed, Job};
use coordinator::config::Config;
use reqwest::Response;
use serde_json::{Value, json};
use service::{DoorSettings, access};

use crate::helpers::{TestCoordinator, claim, config, problem, read};

fn guarded(file: &Path) -> Config {
    let doors = DoorSettings { api_tokens_file: Some(file.to_owned()), ..DoorSettings::default() };
    Config { doors, ..config() }
}

fn add(file: &Path, name: &str, rights: &str) -> String {
    access::add(file, name, &rights.parse().expect("rights")).expect("added")
}

/// Jobs that carry code, each in a way of its own.
fn with_code() -> [Value; 3] {
    let call = json!({"divvy": 1, "python": "3.13", "cloudpickle": "3.1", "call": "gASV"});
    let chunk = json!({"divvy": 1, "function": "gASV", "chunk": "gASV"});
    [
        json!({"kind": "tasks", "params": {"list": [call]}}),
        json!({"kind": "tasks", "params": {"list": [1, chunk]}}),
        json!({"kind": "tasks", "params": {"list": [1]}, "requires": {"labels": {"python-calls": "single-1"}}}),
    ]
}

fn named_task() -> Value {
    json!({"kind": "tasks", "params": {"list": [{"divvy": 1, "task": "price", "args": [1]}]}})
}

impl TestCoordinator {
    async fn submit_as(&self, token: &str, body: &Value) -> Response {
        let request = self.client.post(format!("http://{}/v1/jobs", self.public)).bearer_auth(token);
        request.json(body).send().await.expect("an answer")
    }

    async fn claimed_with_labels(&self) -> Claimed {
        self.claimed("one", &json!({"labels": {"python-calls": "single-1"}, "max_tasks": 9})).await
    }
}

#[actix_web::test]
async fn code_in_payloads_needs_a_token_with_the_right_to_programs_and_the_claim_tells() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let (submitter, programmer) = (add(&file, "submitter", "submit"), add(&file, "programmer", "submit,programs"));
    let grid = TestCoordinator::start(guarded(&file));
    for job in with_code() {
        let refused = problem(grid.submit_as(&submitter, &job).await, 403).await;
        assert!(
            refused.detail.contains("carry code, and the token lacks the right \"programs\""),
            "{}",
            refused.detail
        );
    }
    let named: Job = read(grid.submit_as(&submitter, &named_task()).await, 201).await;
    let claimed = grid.claimed_with_labels().await;
    assert_eq!((claimed.job, claimed.is_admitted), (named.id, false));
    for job in with_code() {
        let admitted: Job = read(grid.submit_as(&programmer, &job).await, 201).await;
        let claimed = grid.claimed_with_labels().await;
        assert_eq!((claimed.job, claimed.is_admitted), (admitted.id, true), "{job}");
    }
}

#[actix_web::test]
async fn a_job_stays_admitted_over_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = add(&file, "programmer", "submit,programs");
    let grid = TestCoordinator::start(guarded(&file));
    let [job, ..] = with_code();
    let job: Job = read(grid.submit_as(&token, &job).await, 201).await;
    let grid = grid.restart(guarded(&file)).await;
    let claimed = grid.claimed_with_labels().await;
    assert_eq!((claimed.job, claimed.is_admitted), (job.id, true));
}

#[actix_web::test]
async fn without_tokens_code_runs_where_only_the_machine_itself_reaches_the_coordinator() {
    let grid = TestCoordinator::start(config());
    for job in with_code() {
        let admitted = grid.submit(&job).await;
        let claimed = grid.claimed_with_labels().await;
        assert_eq!((claimed.job, claimed.is_admitted), (admitted.id, true), "{job}");
    }
    let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
    let open = TestCoordinator::start(Config { public_addr: any, ..config() });
    for job in with_code() {
        let refused = problem(open.post("/v1/jobs", &job).await, 403).await;
        assert!(refused.detail.contains("DIVVY_API_TOKENS_FILE"), "{}", refused.detail);
    }
    let named = open.submit(&named_task()).await;
    let claim = claim("one", &json!({"max_tasks": 9}));
    let claimed: Claimed = read(open.post_internal("/v1/worker/claim", &claim).await, 200).await;
    assert_eq!((claimed.job, claimed.is_admitted), (named.id, false));
}

#[actix_web::test]
async fn a_client_cannot_admit_its_own_job() {
    let grid = TestCoordinator::start(config());
    let mut job = named_task();
    job["is_admitted"] = Value::Bool(true);
    problem(grid.post("/v1/jobs", &job).await, 400).await;
}

#[actix_web::test]
async fn the_form_demands_the_right_too() {
    let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
    let grid = TestCoordinator::start(Config { public_addr: any, ..config() });
    // The list has one entry: {"divvy":1,"call":"gASV"}.
    let form = "kind=tasks&p.list=%7B%22divvy%22%3A1%2C%22call%22%3A%22gASV%22%7D";
    let request = grid.client.post(format!("http://{}/submit", grid.public));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let refused = request.send().await.expect("an answer");
    let (status, page) = (refused.status(), refused.text().await.expect("a page"));
    assert_eq!(status, 403, "{page}");
    assert!(page.contains("carry code"), "{page}");
}
