//! What a worker that pulls says and gets.

use jiff::Timestamp;
use model::{AttemptId, JobId, JobKind, Labels, Resources, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::schema;

/// Body of `POST /v1/worker/claim`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The worker's name.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// The kinds of job that it runs.
    #[schema(value_type = Vec<schema::JobKind>)]
    pub kinds: Vec<JobKind>,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// What it has.
    #[serde(default)]
    #[schema(value_type = schema::Resources)]
    pub resources: Resources,
    /// The most tasks that it takes at once, 1 to 10000.
    #[serde(default = "one_claimed")]
    #[schema(minimum = 1, maximum = 10000)]
    pub max_tasks: u32,
    /// How long to wait for a task, 0 to 60.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 60)]
    pub wait_seconds: f64,
}

fn one_claimed() -> u32 {
    1
}

/// Answer to `POST /v1/worker/claim` when there is a task: consecutive tasks of one job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Claimed {
    /// To be named in the report.
    #[schema(value_type = schema::AttemptId)]
    pub attempt: AttemptId,
    /// Whose tasks they are.
    #[schema(value_type = schema::JobId)]
    pub job: JobId,
    /// What they compute.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// The tasks.
    pub tasks: Vec<ClaimedTask>,
    /// When the lease ends unless it is renewed.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// One task of a claim.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimedTask {
    /// Its number in the job, from 0.
    pub index: u64,
    /// What to do: as submitted for `tasks`; `{"a", "b"}` for ranges; `{"seconds"}` for `sleep`.
    #[schema(value_type = serde_json::Value)]
    pub payload: Box<RawValue>,
}

/// Body of `POST /v1/worker/tasks/{attempt}/complete`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// A result for each task, in the order of the claim: any JSON for `tasks`, a decimal string for ranges. May be
    /// left out where there is nothing to say.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    pub results: Vec<Box<RawValue>>,
    /// Fetch the next tasks in the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimRequest>,
}

/// Body of `POST /v1/worker/tasks/{attempt}/fail`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFailure {
    /// Why.
    pub error: String,
}

/// Answer to `POST /v1/worker/tasks/{attempt}/renew`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Renewed {
    /// When the lease ends unless it is renewed again.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}
