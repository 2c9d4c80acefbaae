//! Jobs as a client submits them.

use std::num::{NonZeroU32, NonZeroU64};

use model::{
    Affinity, DEFAULT_MAX_ATTEMPTS, InvalidJob, JobKind, JobOptions, Labels, MAX_WORD_BYTES, Priority, Requirements,
    Share, Timeout, check_tags, check_words, read_whole, read_words,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use workloads::Parsed;

use crate::schema;

/// Header of a change of a job: milliseconds since the first of several equal requests was sent.
pub const ASKED_MS_AGO: &str = "divvy-asked-ms-ago";

/// Body of `POST /v1/jobs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The kind of the job.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// The kind's parameters.
    #[schema(value_type = schema::JobParams)]
    pub params: Box<RawValue>,
    /// The job's priority: 1 to 9, larger sooner.
    #[serde(default)]
    #[schema(value_type = schema::Priority)]
    pub priority: Priority,
    /// Words of your own to find the job by: at most 32, each key and value at most 256 bytes.
    #[serde(default, deserialize_with = "read_words", skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = schema::Labels)]
    pub tags: Labels,
    /// Workers on which the job's tasks should rather run.
    #[serde(default)]
    #[schema(value_type = schema::Affinity)]
    pub affinity: Affinity,
    /// Conditions that a worker must meet to get any of its tasks.
    #[serde(default)]
    #[schema(value_type = schema::Requirements)]
    pub requires: Requirements,
    /// Attempts at a task before the task has failed.
    #[serde(default = "default_max_attempts", deserialize_with = "read_max_attempts")]
    #[schema(value_type = u32, minimum = 1, maximum = 100, default = 4)]
    pub max_attempts: NonZeroU32,
    /// Time limits of an attempt at a task and of the job.
    #[serde(default)]
    #[schema(value_type = schema::Timeout)]
    pub timeout: Timeout,
    /// The name under which its result is stored, beside its id: 1 to 200 of A-Z, a-z, 0-9, '.', '-' and '_'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The share of its leases that another worker computes again and compares, above 0 and up to 1; for kinds whose
    /// tasks add up to a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.000001, maximum = 1)]
    pub verify: Option<Share>,
}

fn default_max_attempts() -> NonZeroU32 {
    DEFAULT_MAX_ATTEMPTS
}

fn read_max_attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let attempts = read_whole::<1, MAX_ATTEMPTS, _, D>(deserializer)?;
    Ok(NonZeroU32::new(attempts).unwrap_or(NonZeroU32::MIN))
}

/// A job that has been checked.
#[derive(Debug)]
pub struct ParsedJob {
    /// Its kind.
    pub kind: JobKind,
    /// Its work, its parameters as they are shown, and the payloads of its tasks.
    pub work: Parsed,
    /// Everything else.
    pub options: JobOptions,
}

/// Labels of this prefix are the grid's own.
const RESERVED_LABELS: &str = "divvy.";
const MAX_OUTPUT_BYTES: usize = 200;
/// Each failed attempt of a task is a row of the store.
const MAX_ATTEMPTS: u64 = 100;

impl ParsedJob {
    /// The bytes of memory that its work takes up. All else is bounded.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let Parsed { stored, identity, payloads, .. } = &self.work;
        stored.get().len() + identity.get().len() + payloads.memory_bytes()
    }
}

impl JobRequest {
    /// Parses the parameters by kind and checks every field. `chunk_size` is the coordinator's setting, for kinds that
    /// divide a range.
    ///
    /// # Errors
    /// The first field that is not as it must be.
    pub fn parse(self, chunk_size: NonZeroU64) -> Result<ParsedJob, InvalidJob> {
        let definition = workloads::kind(self.kind)?;
        let work = definition.parse(&self.params, chunk_size)?;
        check_tags(&self.tags)?;
        check_words("affinity", &self.affinity.labels)?;
        check_words("requires", &self.requires.labels)?;
        if self.requires.labels.keys().any(|key| key.starts_with(RESERVED_LABELS)) {
            return Err(InvalidJob::new("requires", format!("labels must not begin with {RESERVED_LABELS:?}")));
        }
        if self.affinity.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_WORD_BYTES) {
            return Err(InvalidJob::new("affinity", format!("key has 1 to {MAX_WORD_BYTES} bytes")));
        }
        if !self.output.as_deref().is_none_or(is_output_name) {
            let allowed = "has 1 to 200 of A-Z, a-z, 0-9, '.', '-' and '_', and does not begin with a dot";
            return Err(InvalidJob::new("output", allowed));
        }
        if self.verify.is_some() && work.workload.profile().is_individual {
            return Err(InvalidJob::new("verify", format!("is not for {}: its tasks add up to no number", self.kind)));
        }
        let Self { kind, priority, tags, affinity, requires, max_attempts, timeout, output, verify, .. } = self;
        let chunk_size = Some(chunk_size);
        let mut options = JobOptions {
            priority,
            tags,
            affinity,
            requires,
            max_attempts,
            timeout,
            output,
            verify,
            chunk_size,
            submitted_by: None,
            is_admitted: false,
            trace: None,
        };
        let work = definition.complete(work, &mut options)?;
        Ok(ParsedJob { kind, work, options })
    }
}

fn is_output_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    (1..=MAX_OUTPUT_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Body of `POST /v1/simulate`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Simulation {
    /// Tasks in all, 1 to 1000000.
    #[serde(deserialize_with = "read_whole::<1, 1_000_000, _, _>")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub tasks: u64,
    /// Time that each takes, 0 to 3600.
    #[schema(minimum = 0, maximum = 3600)]
    pub seconds: f64,
    /// Simulated workers of one slot each, 1 to 1000. They run nothing else and leave when the simulation is over.
    #[serde(deserialize_with = "read_whole::<1, 1000, _, _>")]
    #[schema(minimum = 1, maximum = 1000)]
    pub workers: u32,
    /// The priorities that the tasks are spread over, one job for each. Default: one job of priority 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Priority>)]
    pub priorities: Vec<Priority>,
}
