//! Uploaded programs, and the stderr of programs. The bytes of a program are an object; its row makes it visible. A program
//! stays while a job that is not over needs it ([`model::uploaded_programs`]): the transaction that deletes a program looks for
//! such jobs, and the transaction that accepts a job looks for its programs.

use jiff::Timestamp;
use model::{AttemptId, JobId, ProgramHash, ProgramKind};

/// An uploaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRecord {
    /// The SHA-256 of its bytes, which is its name.
    pub hash: ProgramHash,
    /// Length of the program in bytes.
    pub bytes: u64,
    /// Kind of the program.
    pub kind: ProgramKind,
    /// Time of the first upload.
    pub uploaded_at: Timestamp,
    /// The name of the token that uploaded the program.
    pub uploaded_by: Option<String>,
}

/// A change to the programs.
#[derive(Clone, Debug)]
pub enum ProgramChange {
    /// Adds a program. Without effect if it exists.
    Put(ProgramRecord),
    /// Removes a program. Answered with [`crate::Answer::Deleted`], or [`crate::Answer::Refused`] if a job that is not over needs
    /// it.
    Delete(ProgramHash),
}

/// The last part of the stderr of one attempt at a task. Deleted with its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLog {
    /// The job.
    pub job: JobId,
    /// The task.
    pub task: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker.
    pub worker: String,
    /// Time at which the program ended.
    pub ended_at: Timestamp,
    /// Bytes before `text` that are not kept.
    pub omitted_bytes: u64,
    /// The kept text.
    pub text: String,
}

/// The message that refuses to delete a program.
#[must_use]
pub fn in_use(job: JobId) -> String {
    format!("job {job} needs the program and is not over")
}

/// The message that refuses a job whose program does not exist.
#[must_use]
pub fn missing(program: ProgramHash) -> String {
    format!("there is no program {program}")
}
