//! Programs: those that clients upload, those that workers bring, and what workers fetch and report of them.

use jiff::Timestamp;
use model::{AttemptId, ProgramHash, ProgramKind, ProgramName, WorkerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// The most names that a worker announces.
pub const MAX_PROGRAM_NAMES: usize = 128;

/// The longest description of a program that a worker brings, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 256;

/// The end of stderr that is kept of an attempt, in bytes.
pub const MAX_LOG_BYTES: usize = 64 << 10;

/// An uploaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Program {
    /// The SHA-256 of its bytes: its name in jobs.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub sha256: ProgramHash,
    /// Its length.
    pub bytes: u64,
    /// `wasm` for a WebAssembly module or component, `native` for an executable.
    #[schema(value_type = String)]
    pub kind: ProgramKind,
    /// Time of the first upload.
    #[schema(value_type = String, format = DateTime)]
    pub uploaded_at: Timestamp,
    /// The name of the access token that uploaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_by: Option<String>,
}

/// Answer to `GET /v1/programs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgramPage {
    /// In the order of their hashes.
    pub programs: Vec<Program>,
    /// For `?page_token=`, while there are more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// Answer to `GET /v1/programs/names`: the programs that the registered workers can run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramNames {
    /// The programs that workers bring, by name.
    pub names: Vec<BroughtProgram>,
    /// Workers that run uploaded WebAssembly programs.
    pub wasm_workers: u64,
    /// Workers that run uploaded native executables.
    pub native_workers: u64,
}

/// A program that workers bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BroughtProgram {
    /// Its name in jobs.
    #[schema(value_type = String)]
    pub name: ProgramName,
    /// Its description by the operator of a worker.
    pub description: String,
    /// The number of workers that bring it.
    pub workers: u64,
}

/// The part of a heartbeat that tells which programs a worker runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgramAbilities {
    /// Uploaded WebAssembly programs.
    pub wasm: bool,
    /// Uploaded native executables.
    pub native: bool,
    /// Named programs that the worker brings.
    pub names: Vec<NamedAbility>,
}

/// A program that a worker brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedAbility {
    /// Its name.
    pub name: ProgramName,
    /// Its description.
    #[serde(default)]
    pub description: String,
}

/// Body of `PUT /worker/logs/{job}/{task}/{attempt}`: the stderr of a program so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogReport {
    /// The worker.
    pub worker: WorkerId,
    /// Bytes of the stream before `text`.
    pub offset: u64,
    /// The end of the stream, with what is no UTF-8 replaced.
    pub text: String,
    /// Whether the program has ended: the report is kept with the attempt.
    pub is_final: bool,
}

/// The stderr of a program in one attempt at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskLog {
    /// The task's number in the job, from 0.
    pub task: u64,
    /// The attempt.
    #[schema(value_type = schema::AttemptId)]
    pub attempt: AttemptId,
    /// Its worker.
    pub worker: String,
    /// Bytes before `text` that are not kept.
    pub omitted_bytes: u64,
    /// The end of stderr, 64 KiB at most.
    pub text: String,
    /// End of the program; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

/// Answer to `GET /v1/jobs/{id}/logs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// By task, then in the order in which the attempts ended; those that run come last.
    pub logs: Vec<TaskLog>,
    /// For `?page_token=`, while there are more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
    /// The value of `?after=` for the text that is written later.
    pub cursor: String,
    /// Whether the job was over before these were read: only programs that its end has stopped may write more.
    pub is_over: bool,
}
