//! Stored forms of values. Each form has a version of its own, so that an edit of the model or of the API does not
//! change what is stored, and what an earlier release has stored is still read.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use model::{
    Affinity, Counts, EventKind, Grain, JobKind, JobOptions, JobState, Priority, Requirements, Share, Timeout,
    TraceContext,
};
use serde::{Deserialize, Serialize};

pub use crate::verified::{verified_from_stored, verified_to_stored};

/// A damaged text in a row.
#[derive(Debug, thiserror::Error)]
#[error("{what} is damaged: {detail}")]
pub struct InvalidStored {
    what: &'static str,
    detail: String,
}

pub(crate) fn invalid(what: &'static str, detail: impl std::fmt::Display) -> InvalidStored {
    InvalidStored { what, detail: detail.to_string() }
}

/// The newest version of each form. Version 0, without `v`, is that of the first release and has the same fields.
pub(crate) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct StoredOptions {
    v: u32,
    priority: u8,
    tags: BTreeMap<String, String>,
    affinity: StoredAffinity,
    requires: StoredRequirements,
    max_attempts: NonZeroU32,
    timeout: StoredTimeout,
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<f64>,
    chunk_size: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submitted_by: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_admitted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredAffinity {
    labels: BTreeMap<String, String>,
    key: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredRequirements {
    labels: BTreeMap<String, String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredTimeout {
    task_seconds: Option<NonZeroU32>,
    job_seconds: Option<NonZeroU32>,
}

impl Default for StoredOptions {
    /// The meaning of absent fields, for ever.
    fn default() -> Self {
        Self {
            v: 0,
            priority: 5,
            tags: BTreeMap::new(),
            affinity: StoredAffinity::default(),
            requires: StoredRequirements::default(),
            max_attempts: NonZeroU32::new(4).expect("4 is not 0"),
            timeout: StoredTimeout::default(),
            output: None,
            verify: None,
            chunk_size: None,
            submitted_by: None,
            is_admitted: false,
            traceparent: None,
            tracestate: None,
        }
    }
}

/// The stored form of a job's value and the value that is compared with it: `value`, or `value/check`.
#[must_use]
pub fn values_to_stored(value: u128, check: u128) -> String {
    if check == 0 { value.to_string() } else { format!("{value}/{check}") }
}

/// Both values from their stored form.
///
/// # Errors
/// The text is damaged.
pub fn values_from_stored(text: &str) -> Result<(u128, u128), InvalidStored> {
    let number = |digits: &str| digits.parse().map_err(|error| invalid("a job's value", error));
    let (value, check) = text.split_once('/').unwrap_or((text, "0"));
    Ok((number(value)?, number(check)?))
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, texts and maps by text are JSON")
}

/// The stored form of a job's options.
#[must_use]
pub fn options_to_stored(options: &JobOptions) -> String {
    let JobOptions {
        priority,
        tags,
        affinity,
        requires,
        max_attempts,
        timeout,
        output,
        verify,
        chunk_size,
        submitted_by,
        is_admitted,
        trace,
    } = options.clone();
    to_json(&StoredOptions {
        v: VERSION,
        priority: priority.get(),
        tags: tags.into_iter().collect(),
        affinity: StoredAffinity { labels: affinity.labels.into_iter().collect(), key: affinity.key },
        requires: StoredRequirements {
            labels: requires.labels.into_iter().collect(),
            cpus: requires.cpus,
            memory_bytes: requires.memory_bytes,
        },
        max_attempts,
        timeout: StoredTimeout { task_seconds: timeout.task_seconds, job_seconds: timeout.job_seconds },
        output,
        verify: verify.map(Share::as_f64),
        chunk_size,
        submitted_by,
        is_admitted,
        traceparent: trace.as_ref().map(TraceContext::traceparent),
        tracestate: trace.map(|trace| trace.state).filter(|state| !state.is_empty()),
    })
}

/// A job's options from their stored form.
///
/// # Errors
/// The text is damaged, or of a later version.
pub fn options_from_stored(text: &str) -> Result<JobOptions, InvalidStored> {
    let what = "a job's options";
    let stored: StoredOptions = serde_json::from_str(text).map_err(|error| invalid(what, error))?;
    check_version(what, stored.v)?;
    Ok(JobOptions {
        priority: Priority::try_from(stored.priority).map_err(|error| invalid(what, error))?,
        tags: stored.tags.into_iter().collect(),
        affinity: Affinity { labels: stored.affinity.labels.into_iter().collect(), key: stored.affinity.key },
        requires: Requirements {
            labels: stored.requires.labels.into_iter().collect(),
            cpus: stored.requires.cpus,
            memory_bytes: stored.requires.memory_bytes,
            ..Requirements::default()
        },
        max_attempts: stored.max_attempts,
        timeout: Timeout { task_seconds: stored.timeout.task_seconds, job_seconds: stored.timeout.job_seconds },
        output: stored.output,
        verify: stored.verify.map(Share::try_from).transpose().map_err(|error| invalid(what, error))?,
        chunk_size: stored.chunk_size,
        submitted_by: stored.submitted_by,
        is_admitted: stored.is_admitted,
        // A job whose trace cannot be read stays valid.
        trace: stored
            .traceparent
            .and_then(|parent| TraceContext::parse(&parent, stored.tracestate.as_deref().unwrap_or_default())),
    })
}

pub(crate) fn check_version(what: &'static str, version: u32) -> Result<(), InvalidStored> {
    if version > VERSION { Err(invalid(what, format!("version {version} is not known"))) } else { Ok(()) }
}

/// Kinds that the first release computed with individual tasks. Its rows do not say it.
const INDIVIDUAL_KINDS: [&str; 2] = ["tasks", "sleep"];

#[derive(Deserialize)]
#[serde(untagged)]
enum StoredWork {
    Work {
        v: u32,
        is_individual: bool,
    },
    /// The parameters, as in the first release; they stand in their own column too.
    FirstRelease(serde::de::IgnoredAny),
}

/// The stored form of a job's work beside its kind and its parameters.
#[must_use]
pub fn work_to_stored(is_individual: bool) -> String {
    format!(r#"{{"v":{VERSION},"is_individual":{is_individual}}}"#)
}

/// Whether the tasks of a job of this kind are individual.
///
/// # Errors
/// The stored form is damaged, or of a later version.
pub fn is_individual(kind: JobKind, text: &str) -> Result<bool, InvalidStored> {
    let what = "a job's work";
    match serde_json::from_str(text).map_err(|error| invalid(what, error))? {
        StoredWork::Work { v, is_individual } => check_version(what, v).map(|()| is_individual),
        StoredWork::FirstRelease(_) => Ok(INDIVIDUAL_KINDS.contains(&kind.as_str())),
    }
}

/// The stored form of an event's figures; `None` if all are 0. The names of its fields are those of [`Counts`].
#[must_use]
pub fn counts_to_stored(counts: &Counts) -> Option<String> {
    (!counts.is_empty()).then(|| to_json(counts))
}

/// The figures of an event, from their stored form.
///
/// # Errors
/// The text is damaged.
pub fn counts_from_stored(text: Option<&str>) -> Result<Counts, InvalidStored> {
    let Some(text) = text else { return Ok(Counts::default()) };
    serde_json::from_str(text).map_err(|error| invalid("what an event counts", error))
}

/// A value that is stored in a column by its name.
pub trait StoredName: Copy + Sized + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// Name of the value, for an error.
    const WHAT: &'static str;

    /// The name.
    fn stored_name(self) -> &'static str;

    /// The value of a name.
    ///
    /// # Errors
    /// No value has this name.
    fn from_stored_name(name: &str) -> Result<Self, InvalidStored> {
        let found = Self::ALL.iter().copied().find(|value| value.stored_name() == name);
        found.ok_or_else(|| invalid(Self::WHAT, name))
    }
}

impl StoredName for JobState {
    const ALL: &'static [Self] =
        &[Self::Queued, Self::Running, Self::Paused, Self::Succeeded, Self::Failed, Self::Canceled];
    const WHAT: &'static str = "a job's state";

    fn stored_name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl StoredName for Grain {
    const ALL: &'static [Self] = &Self::STORED;
    const WHAT: &'static str = "a grain";

    fn stored_name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

impl StoredName for EventKind {
    const ALL: &'static [Self] = &[
        Self::Submitted,
        Self::Started,
        Self::Progress,
        Self::Paused,
        Self::Resumed,
        Self::Retried,
        Self::TaskFailed,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];
    const WHAT: &'static str = "an event's kind";

    fn stored_name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Retried => "retried",
            Self::TaskFailed => "task-failed",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

#[cfg(test)]
mod tests;
