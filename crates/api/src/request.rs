//! Jobs as a client submits them.

use std::num::NonZeroU32;

use model::{
    Affinity, DEFAULT_MAX_ATTEMPTS, InvalidJob, JobKind, JobOptions, JobWork, Labels, MAX_WORD_BYTES, Priority,
    Requirements, SleepParams, Timeout, check_words,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::schema;

/// Body of `POST /v1/jobs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// What to compute.
    #[schema(value_type = schema::JobKind)]
    pub kind: JobKind,
    /// The kind's parameters.
    #[schema(value_type = schema::JobParams)]
    pub params: Box<RawValue>,
    /// How soon: 1 to 9, larger sooner.
    #[serde(default)]
    #[schema(value_type = schema::Priority)]
    pub priority: Priority,
    /// Words of your own to find the job by: at most 32, each key and value at most 256 bytes.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub tags: Labels,
    /// Where its tasks would rather run.
    #[serde(default)]
    #[schema(value_type = schema::Affinity)]
    pub affinity: Affinity,
    /// What a worker must have to get any of its tasks.
    #[serde(default)]
    #[schema(value_type = schema::Requirements)]
    pub requires: Requirements,
    /// Attempts at a task before it has failed.
    #[serde(default = "default_max_attempts")]
    #[schema(value_type = u32, minimum = 1, maximum = 100, default = 4)]
    pub max_attempts: NonZeroU32,
    /// How long it may take.
    #[serde(default)]
    #[schema(value_type = schema::Timeout)]
    pub timeout: Timeout,
    /// The name under which its result is stored, beside its id: 1 to 200 of A-Z, a-z, 0-9, '.', '-' and '_'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

fn default_max_attempts() -> NonZeroU32 {
    DEFAULT_MAX_ATTEMPTS
}

/// Parameters of `tasks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksParams {
    /// A payload for each task: any JSON, which a worker gets as it is.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1)]
    pub list: Vec<Box<RawValue>>,
}

/// A job that has been checked.
#[derive(Clone, Debug)]
pub struct ParsedJob {
    /// What it computes.
    pub work: JobWork,
    /// The payloads of individual tasks; empty for other kinds.
    pub payloads: Vec<Box<RawValue>>,
    /// Everything else.
    pub options: JobOptions,
}

/// Labels of this prefix are the grid's own.
const RESERVED_LABELS: &str = "divvy.";
const MAX_OUTPUT_BYTES: usize = 200;
/// Individual tasks leave an attempt each in the store.
const MAX_SLEEPS: u64 = 10_000_000;
const MAX_SLEEP_SECONDS: f64 = 86_400.0;

impl JobRequest {
    /// Parses the parameters by kind and checks every field.
    ///
    /// # Errors
    /// The first field that is not as it must be.
    pub fn parse(self) -> Result<ParsedJob, InvalidJob> {
        let (work, payloads) = parse_work(self.kind, &self.params)?;
        check_words("tags", &self.tags)?;
        check_words("affinity", &self.affinity.labels)?;
        check_words("requires", &self.requires.labels)?;
        if self.requires.labels.keys().any(|key| key.starts_with(RESERVED_LABELS)) {
            return Err(InvalidJob::new("requires", format!("labels must not begin with {RESERVED_LABELS:?}")));
        }
        if self.affinity.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_WORD_BYTES) {
            return Err(InvalidJob::new("affinity", format!("key has 1 to {MAX_WORD_BYTES} bytes")));
        }
        if self.max_attempts.get() > 100 {
            return Err(InvalidJob::new("max_attempts", "must be from 1 to 100"));
        }
        if !self.output.as_deref().is_none_or(is_output_name) {
            let allowed = "has 1 to 200 of A-Z, a-z, 0-9, '.', '-' and '_', and does not begin with a dot";
            return Err(InvalidJob::new("output", allowed));
        }
        let Self { priority, tags, affinity, requires, max_attempts, timeout, output, .. } = self;
        let chunk_size = None;
        let options = JobOptions { priority, tags, affinity, requires, max_attempts, timeout, output, chunk_size };
        Ok(ParsedJob { work, payloads, options })
    }
}

fn parse_work(kind: JobKind, params: &RawValue) -> Result<(JobWork, Vec<Box<RawValue>>), InvalidJob> {
    let work = match kind {
        JobKind::SumOfPrimes => JobWork::SumOfPrimes(parse_params(params)?),
        JobKind::CountPrimes => JobWork::CountPrimes(parse_params(params)?),
        JobKind::Sleep => JobWork::Sleep(check_sleep(parse_params(params)?)?),
        JobKind::Tasks => {
            let TasksParams { list } = parse_params(params)?;
            if list.is_empty() {
                return Err(InvalidJob::new("params", "list must hold at least one payload"));
            }
            return Ok((JobWork::Tasks { count: list.len() as u64 }, list));
        }
    };
    Ok((work, Vec::new()))
}

fn parse_params<'a, T: Deserialize<'a>>(params: &'a RawValue) -> Result<T, InvalidJob> {
    serde_json::from_str(params.get()).map_err(|error| InvalidJob::new("params", format!("is wrong: {error}")))
}

fn check_sleep(params: SleepParams) -> Result<SleepParams, InvalidJob> {
    let wrong = |message: &str| Err(InvalidJob::new("params", message));
    if !(0.0..=MAX_SLEEP_SECONDS).contains(&params.seconds) {
        return wrong("seconds must be from 0 to 86400");
    }
    if !(0.0..=1.0).contains(&params.fail_rate) {
        return wrong("fail_rate must be from 0 to 1");
    }
    if !(1..=MAX_SLEEPS).contains(&params.tasks) {
        return wrong("tasks must be from 1 to 10000000");
    }
    Ok(params)
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
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub tasks: u64,
    /// Time that each takes, 0 to 3600.
    #[schema(minimum = 0, maximum = 3600)]
    pub seconds: f64,
    /// Simulated workers of one slot each, 1 to 1000. They run nothing else and leave when the simulation is over.
    #[schema(minimum = 1, maximum = 1000)]
    pub workers: u32,
    /// The priorities that the tasks are spread over, one job for each. Default: one job of priority 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Priority>)]
    pub priorities: Vec<Priority>,
}
