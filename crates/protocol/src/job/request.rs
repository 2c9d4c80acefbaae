//! Jobs as a client submits them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{InvalidRange, NumberRange};

/// Words about things that a client chose: tags of a job, labels of a worker.
pub type Labels = BTreeMap<String, String>;

/// What a job computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// The sum of all primes in a range.
    SumOfPrimes,
    /// How many primes a range holds.
    CountPrimes,
    /// Simulated work: tasks that take time and do nothing.
    Sleep,
    /// Individual tasks with a payload each, for workers that pull.
    Tasks,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::SumOfPrimes, Self::CountPrimes, Self::Sleep, Self::Tasks];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SumOfPrimes => "sum-of-primes",
            Self::CountPrimes => "count-primes",
            Self::Sleep => "sleep",
            Self::Tasks => "tasks",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for JobKind {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidJob::new("kind", "must be sum-of-primes, count-primes, sleep or tasks");
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(invalid)
    }
}

/// How soon a job's tasks run: 1 to 9, larger sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u8", into = "u8")]
#[schema(value_type = u8, minimum = 1, maximum = 9, default = 5)]
pub struct Priority(u8);

impl Priority {
    /// The last to run.
    pub const LEAST: Self = Self(1);
    /// The first to run.
    pub const HIGHEST: Self = Self(9);

    /// The number, 1 to 9.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u8> for Priority {
    type Error = InvalidJob;

    fn try_from(priority: u8) -> Result<Self, Self::Error> {
        if (1..=9).contains(&priority) {
            Ok(Self(priority))
        } else {
            Err(InvalidJob::new("priority", "must be from 1 to 9, larger sooner"))
        }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a job's tasks would rather run. A wish: no slot stays idle for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Affinity {
    /// Labels of the workers that suit best.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Tasks under the same key go to workers that have had one of it, such as to reuse what they loaded for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a worker must have to get any of a job's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Labels that it has, all of them.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Cores that it has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory that it has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// What a worker has for [`Requirements`] and [`Affinity`] to be compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Resources {
    /// Its cores.
    pub cpus: u32,
    /// Its memory.
    pub memory_bytes: u64,
}

/// How long things may take. None: as long as they need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeout {
    /// One attempt at a task; a longer one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub task_seconds: Option<NonZeroU32>,
    /// The job, from its submission to its end; a longer one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub job_seconds: Option<NonZeroU32>,
}

/// A job but for what it computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// How soon.
    pub priority: Priority,
    /// The client's own words about it.
    pub tags: Labels,
    /// Where it would rather run.
    pub affinity: Affinity,
    /// Where alone it can run.
    pub requires: Requirements,
    /// Attempts at a task before it has failed.
    pub max_attempts: NonZeroU32,
    /// How long it may take.
    pub timeout: Timeout,
    /// The name under which its result is stored, beside its id.
    pub output: Option<String>,
    /// Numbers from a task's first to its last, for kinds with a range: not the client's to say, and the same until the
    /// job's end.
    pub chunk_size: Option<NonZeroU64>,
}

/// Attempts at a task when a job does not say.
pub const DEFAULT_MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            priority: Priority::default(),
            tags: Labels::new(),
            affinity: Affinity::default(),
            requires: Requirements::default(),
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            timeout: Timeout::default(),
            output: None,
            chunk_size: None,
        }
    }
}

/// Body of `POST /v1/jobs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// What to compute.
    pub kind: JobKind,
    /// The kind's parameters.
    #[schema(value_type = JobParams)]
    pub params: Box<RawValue>,
    /// How soon: 1 to 9, larger sooner.
    #[serde(default)]
    pub priority: Priority,
    /// Words of your own to find the job by: at most 32, each key and value at most 256 bytes.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub tags: Labels,
    /// Where its tasks would rather run.
    #[serde(default)]
    pub affinity: Affinity,
    /// What a worker must have to get any of its tasks.
    #[serde(default)]
    pub requires: Requirements,
    /// Attempts at a task before it has failed.
    #[serde(default = "default_max_attempts")]
    #[schema(value_type = u32, minimum = 1, maximum = 100, default = 4)]
    pub max_attempts: NonZeroU32,
    /// How long it may take.
    #[serde(default)]
    pub timeout: Timeout,
    /// The name under which its result is stored, beside its id: 1 to 200 of A-Z, a-z, 0-9, '.', '-' and '_'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

fn default_max_attempts() -> NonZeroU32 {
    DEFAULT_MAX_ATTEMPTS
}

/// Parameters of each kind, in the order of the kinds.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum JobParams {
    /// `sum-of-primes`, `count-primes`.
    #[schema(title = "Range")]
    Range(NumberRange),
    /// `sleep`.
    #[schema(title = "Sleep")]
    Sleep(SleepParams),
    /// `tasks`.
    #[schema(title = "Tasks")]
    Tasks(TasksParams),
}

/// Parameters of `sleep`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SleepParams {
    /// Time that each task takes, 0 to 86400.
    #[schema(minimum = 0, maximum = 86400)]
    pub seconds: f64,
    /// Share of the attempts that fail, 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub fail_rate: f64,
    /// How many tasks, 1 to 10000000.
    #[serde(default = "one_task")]
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub tasks: u64,
}

fn one_task() -> u64 {
    1
}

/// Parameters of `tasks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksParams {
    /// A payload for each task: any JSON, which a worker gets as it is.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1)]
    pub list: Vec<Box<RawValue>>,
}

/// What a job computes, with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JobWork {
    /// See [`JobKind::SumOfPrimes`].
    SumOfPrimes(NumberRange),
    /// See [`JobKind::CountPrimes`].
    CountPrimes(NumberRange),
    /// See [`JobKind::Sleep`].
    Sleep(SleepParams),
    /// See [`JobKind::Tasks`]; the payloads are kept apart.
    Tasks {
        /// How many.
        count: u64,
    },
}

impl JobWork {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match self {
            Self::SumOfPrimes(_) => JobKind::SumOfPrimes,
            Self::CountPrimes(_) => JobKind::CountPrimes,
            Self::Sleep(_) => JobKind::Sleep,
            Self::Tasks { .. } => JobKind::Tasks,
        }
    }
}

/// A field of a job that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {message}")]
pub struct InvalidJob {
    /// The field.
    pub field: &'static str,
    /// What must be so.
    pub message: String,
}

impl InvalidJob {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

impl From<InvalidRange> for InvalidJob {
    fn from(error: InvalidRange) -> Self {
        Self::new("params", error.to_string())
    }
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
const MAX_TAGS: usize = 32;
const MAX_WORD_BYTES: usize = 256;
const MAX_OUTPUT_BYTES: usize = 200;
/// Individual tasks leave an attempt each in the store.
const MAX_SLEEPS: u64 = 10_000_000;
const MAX_SLEEP_SECONDS: f64 = 86_400.0;

/// The most tasks of a job, 2^53: what a JSON number can say exactly.
pub const MAX_TASKS: u64 = 1 << 53;

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

/// Checks words that a client or a worker chose.
///
/// # Errors
/// There are more than 32, or one is longer than 256 bytes or holds a control character.
pub fn check_words(field: &'static str, words: &Labels) -> Result<(), InvalidJob> {
    let is_word = |word: &String| word.len() <= MAX_WORD_BYTES && !word.contains(char::is_control);
    let is_fine = |(key, value): (&String, &String)| !key.is_empty() && is_word(key) && is_word(value);
    if words.len() <= MAX_TAGS && words.iter().all(is_fine) {
        return Ok(());
    }
    let allowed = format!(
        "holds at most {MAX_TAGS} keys and values of at most {MAX_WORD_BYTES} bytes each, without control characters"
    );
    Err(InvalidJob::new(field, allowed))
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
    pub priorities: Vec<Priority>,
}
