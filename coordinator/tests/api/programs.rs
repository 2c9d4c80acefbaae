//! Programs of jobs that are over.

use api::Job;
use coordinator::config::Config;
use model::JobState;
use serde_json::{Value, json};
use service::{DoorSettings, access};
use sha2::{Digest, Sha256};

use crate::helpers::{TestCoordinator, config, problem, read};

/// The least that is taken for WebAssembly.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[actix_web::test]
async fn a_job_whose_program_was_deleted_is_not_retried_until_the_program_is_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = access::add(&file, "all", &"read,submit,programs".parse().expect("rights")).expect("added");
    let doors = DoorSettings { api_tokens_file: Some(file), ..DoorSettings::default() };
    let grid = TestCoordinator::start(Config { doors, ..config() });
    let url = |path: &str| format!("http://{}{path}", grid.public);
    let hash: String = Sha256::digest(MODULE).iter().map(|byte| format!("{byte:02x}")).collect();
    let program = url(&format!("/v1/programs/{hash}"));
    let upload = async || grid.client.put(&program).bearer_auth(&token).body(MODULE).send().await.expect("an answer");
    let post = async |path: &str, body: &Value| {
        grid.client.post(url(path)).bearer_auth(&token).json(body).send().await.expect("an answer")
    };
    assert_eq!(upload().await.status(), 201);
    let body = json!({"kind": "program", "params": {"program": hash, "args": [[]]}});
    let job: Job = read(post("/v1/jobs", &body).await, 201).await;
    let [cancel, retry] = ["cancel", "retry"].map(|action| format!("/v1/jobs/{}/{action}", job.id));
    assert_eq!(read::<Job>(post(&cancel, &Value::Null).await, 200).await.state, JobState::Canceled);
    let deleted = grid.client.delete(&program).bearer_auth(&token).send().await.expect("an answer");
    assert_eq!(deleted.status(), 204);
    let refused = problem(post(&retry, &Value::Null).await, 409).await;
    let detail = format!("the job cannot run again: its program {hash} has been deleted; upload it again first");
    assert_eq!(refused.detail, detail);
    let changed: Value = read(post("/v1/jobs/all/retry?kind=program", &Value::Null).await, 200).await;
    assert_eq!(changed, json!({"matched": 1, "changed": 0}));
    assert_eq!(upload().await.status(), 201);
    assert_eq!(read::<Job>(post(&retry, &Value::Null).await, 200).await.state, JobState::Queued);
}
