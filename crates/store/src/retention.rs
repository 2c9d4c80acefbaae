//! Limits of age and size for kept jobs, and the approximate size of rows and objects.

use std::time::Duration;

use model::{JobKind, JobOptions, OutputObject};
use serde_json::value::RawValue;

use crate::programs::TaskLog;
use crate::record::NewJob;

/// Limits of age and size for jobs that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest time since a job's end.
    pub max_age: Duration,
    /// Most bytes of all rows, indexes and results together.
    pub max_bytes: u64,
}

impl Retention {
    /// Keeps every job.
    pub const KEEP_ALL: Self = Self { max_age: Duration::MAX, max_bytes: u64::MAX };
}

/// A job's row with its entries in the indexes by id, time, state and end, without texts.
const JOB_BYTES: u64 = 320;
/// A tag with its entries in the indexes by name and by job, without texts.
const TAG_BYTES: u64 = 110;
/// The texts of a tag stand in the table and in both indexes.
const TAG_COPIES: u64 = 3;
/// A block of payloads has at least a row and an entry in an index.
const BLOCK_BYTES: u64 = 40;
/// An attempt's row with its entry in the index, without texts.
const ATTEMPT_BYTES: u64 = 80;
/// An event's row with its entry in the index and its figures, without its text.
pub(crate) const EVENT_BYTES: u64 = 160;
/// A run of tasks.
pub(crate) const SPAN_BYTES: u64 = 24;

/// Size of a new job in bytes. `options` and `work` are the lengths of the texts in its row.
#[must_use]
pub fn job_bytes(new: &NewJob, options: usize, work: usize) -> u64 {
    let texts = options + work + new.params.get().len();
    // Both texts stand in an index too, and the key of an output's index holds a time.
    let names = 2 * new.idempotency_key.as_ref().map_or(0, String::len)
        + new.options.output.as_ref().map_or(0, |output| 2 * output.len() + 16);
    let payloads = new.payloads.iter().map(|payload| payload.len() + 1).sum::<usize>();
    JOB_BYTES
        + EVENT_BYTES
        + (texts + names + payloads) as u64
        + tags_bytes(&new.options)
        + if new.payloads.is_empty() { 0 } else { BLOCK_BYTES * (1 + new.tasks / 512) }
}

fn tags_bytes(options: &JobOptions) -> u64 {
    options.tags.iter().map(|(name, value)| TAG_BYTES + TAG_COPIES * (name.len() + value.len()) as u64).sum()
}

/// Size of the row of a failed attempt in bytes.
#[must_use]
pub fn failure_bytes(worker: u64, error: u64) -> u64 {
    ATTEMPT_BYTES + worker + error
}

/// Size of the row of a log in bytes.
#[must_use]
pub fn log_bytes(log: &TaskLog) -> u64 {
    ATTEMPT_BYTES + (log.worker.len() + log.text.len()) as u64
}

/// Size of the row of an attempt at these tasks in bytes, with the objects that outputs of programs refer to.
pub(crate) fn outcome_bytes(kind: JobKind, worker: &str, results: &[Box<RawValue>]) -> u64 {
    let texts: usize = results.iter().map(|result| result.get().len() + 1).sum();
    let object_bytes = |result: &RawValue| OutputObject::of(result.get()).map_or(0, |object| object.bytes);
    let objects: u64 =
        if kind == JobKind::PROGRAM { results.iter().map(|result| object_bytes(result)).sum() } else { 0 };
    ATTEMPT_BYTES + (worker.len() + texts) as u64 + objects
}
