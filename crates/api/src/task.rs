//! Individual tasks as a client sees them.

use jiff::Timestamp;
use model::{TaskState, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::schema;

/// One individual task.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its number in the job, from 0.
    pub index: u64,
    /// Where it is in its life.
    #[schema(value_type = schema::TaskState)]
    pub state: TaskState,
    /// Attempts made, the present one included.
    pub attempts: u32,
    /// Who has it, or had it last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub worker: Option<WorkerId>,
    /// When its job was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub pending_at: Timestamp,
    /// When it was given to the worker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub allocated_at: Option<Timestamp>,
    /// When the worker began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub running_at: Option<Timestamp>,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// When it failed last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub error_at: Option<Timestamp>,
    /// Why it failed last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// What its worker answered. A long output of a program is shown as `{"object": {"attempt", "bytes", "sha256", "text"}}`; its
    /// bytes are at `/v1/jobs/{id}/tasks/{task}/result`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Box<RawValue>>,
}

/// The most tasks of one [`SkipRequest`].
pub const MAX_SKIPPED: usize = 1_000;

/// Body of `POST /v1/jobs/{id}/tasks/skip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipRequest {
    /// The numbers of the tasks.
    #[schema(min_items = 1, max_items = 1000)]
    pub tasks: Vec<u64>,
}

/// Answer to `POST /v1/jobs/{id}/tasks/skip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Skipped {
    /// The tasks that this request has ended: they had not begun.
    pub skipped: Vec<u64>,
}

/// Answer to `GET /v1/jobs/{id}/tasks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// In the order of their numbers.
    pub tasks: Vec<Task>,
    /// For `?page_token=`, while there are more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}
