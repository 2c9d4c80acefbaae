//! Programs of jobs that are over.

use std::path::Path;

use api::Job;
use coordinator::config::Config;
use futures_util::future::join;
use model::JobState;
use reqwest::{Body, Method, Response};
use serde_json::{Value, json};
use service::{DoorSettings, access};
use sha2::{Digest, Sha256};

use crate::helpers::{TestCoordinator, config, problem, read};

/// The least that is taken for WebAssembly.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A coordinator with a client that may store programs.
struct Grid {
    coordinator: TestCoordinator,
    token: String,
    hash: String,
}

impl Grid {
    fn start(directory: &Path) -> Self {
        let file = directory.join("tokens.toml");
        let token = access::add(&file, "all", &"read,submit,programs".parse().expect("rights")).expect("added");
        let doors = DoorSettings { api_tokens_file: Some(file), ..DoorSettings::default() };
        let coordinator = TestCoordinator::start(Config { doors, ..config() });
        let hash = Sha256::digest(MODULE).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { coordinator, token, hash }
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Body>) -> Response {
        let request = self.coordinator.client.request(method, format!("http://{}{path}", self.coordinator.public));
        let request = request.header("content-type", "application/json").bearer_auth(&self.token);
        request.body(body).send().await.expect("an answer")
    }

    async fn upload(&self) -> Response {
        self.ask(Method::PUT, &format!("/v1/programs/{}", self.hash), MODULE).await
    }

    async fn delete(&self) -> Response {
        self.ask(Method::DELETE, &format!("/v1/programs/{}", self.hash), "").await
    }

    async fn submit(&self) -> Job {
        let body = json!({"kind": "program", "params": {"program": self.hash, "args": [[]]}});
        read(self.ask(Method::POST, "/v1/jobs", body.to_string()).await, 201).await
    }

    async fn act(&self, job: &Job, action: &str) -> Response {
        self.ask(Method::POST, &format!("/v1/jobs/{}/{action}", job.id), "null").await
    }
}

#[actix_web::test]
async fn a_job_whose_program_was_deleted_is_not_retried_until_the_program_is_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let grid = Grid::start(directory.path());
    assert_eq!(grid.upload().await.status(), 201);
    let job = grid.submit().await;
    assert_eq!(read::<Job>(grid.act(&job, "cancel").await, 200).await.state, JobState::Canceled);
    assert_eq!(grid.delete().await.status(), 204);
    let refused = problem(grid.act(&job, "retry").await, 409).await;
    let hash = &grid.hash;
    let detail = format!("the job cannot run again: its program {hash} has been deleted; upload it again first");
    assert_eq!(refused.detail, detail);
    let changed = grid.ask(Method::POST, "/v1/jobs/all/retry?state=canceled", "null").await;
    assert_eq!(read::<Value>(changed, 200).await, json!({"matched": 1, "changed": 0}));
    assert_eq!(grid.upload().await.status(), 201);
    assert_eq!(read::<Job>(grid.act(&job, "retry").await, 200).await.state, JobState::Queued);
}

#[actix_web::test]
async fn a_submission_that_comes_again_answers_its_job_also_when_the_program_was_deleted_since() {
    let directory = tempfile::tempdir().expect("a directory");
    let grid = Grid::start(directory.path());
    assert_eq!(grid.upload().await.status(), 201);
    let body = json!({"kind": "program", "params": {"program": grid.hash, "args": [[]]}}).to_string();
    let path = |id: u128| format!("/v1/jobs/{}", uuid::Uuid::from_u128(id));
    let put = async |id: u128| grid.ask(Method::PUT, &path(id), body.clone()).await;
    let job: Job = read(put(7).await, 201).await;
    assert_eq!(grid.act(&job, "cancel").await.status(), 200);
    assert_eq!(grid.delete().await.status(), 204);
    assert_eq!(read::<Job>(put(7).await, 200).await.id, job.id);
    let refused = problem(put(8).await, 400).await;
    assert!(refused.detail.starts_with("params name a program: "), "{}", refused.detail);
    assert_eq!(grid.ask(Method::GET, &path(8), "").await.status(), 404);
}

#[actix_web::test]
async fn a_program_is_not_deleted_between_the_look_at_it_and_the_retry_of_its_job() {
    let directory = tempfile::tempdir().expect("a directory");
    let grid = Grid::start(directory.path());
    assert_eq!(grid.upload().await.status(), 201);
    let job = grid.submit().await;
    for round in 0..100 {
        assert_eq!(grid.act(&job, "cancel").await.status(), 200);
        let (retried, deleted) = join(grid.act(&job, "retry"), grid.delete()).await;
        match (retried.status().as_u16(), deleted.status().as_u16()) {
            (200, 409) => (),
            (409, 204) => assert_eq!(grid.upload().await.status(), 201),
            both => panic!("round {round}: {both:?}"),
        }
    }
}
