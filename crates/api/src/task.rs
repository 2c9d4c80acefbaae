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
    /// The task's number in the job, from 0.
    pub index: u64,
    /// The task's state.
    #[schema(value_type = schema::TaskState)]
    pub state: TaskState,
    /// Attempts at the task, including the present one.
    pub attempts: u32,
    /// The worker that holds the task, or held it last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub worker: Option<WorkerId>,
    /// Time at which the job was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub pending_at: Timestamp,
    /// Time at which the worker got the task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub allocated_at: Option<Timestamp>,
    /// Time at which the worker began the task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub running_at: Option<Timestamp>,
    /// Time at which the task was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// Time of the last failed attempt at the task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub error_at: Option<Timestamp>,
    /// Error of the last failed attempt at the task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// The result that its worker reported. A long output of a program is shown as
    /// `{"object": {"attempt", "bytes", "sha256", "text"}}`; its bytes are at `/v1/jobs/{id}/tasks/{task}/result`.
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
    /// The requested tasks that are skipped, by this request or an earlier one: they had not begun.
    pub skipped: Vec<u64>,
}

/// Answer to `GET /v1/jobs/{id}/tasks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// Tasks in the order of their numbers.
    pub tasks: Vec<Task>,
    /// The value of `?page_token=` for the next page, while there are more tasks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}
