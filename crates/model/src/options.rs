//! The settings that jobs of every kind have.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use crate::{Affinity, Labels, Priority, Requirements, Share, TraceContext};

/// Time limits. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeout {
    /// Limit of one attempt at a task, in seconds; a longer attempt fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_seconds: Option<NonZeroU32>,
    /// The job, from its submission, or its last retry, to its end; a longer one has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_seconds: Option<NonZeroU32>,
}

/// A job but for what it computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// Urgency of the tasks.
    pub priority: Priority,
    /// The client's own words about it.
    pub tags: Labels,
    /// Preferences among the workers that can run the job.
    pub affinity: Affinity,
    /// Requirements on the workers.
    pub requires: Requirements,
    /// Attempts at a task before it has failed.
    pub max_attempts: NonZeroU32,
    /// Time limits of the job and its attempts.
    pub timeout: Timeout,
    /// The name under which its result is stored, beside its id.
    pub output: Option<String>,
    /// The share of its leases that another worker computes again, to be compared.
    pub verify: Option<Share>,
    /// Numbers from a task's first to its last, for kinds with a range: not the client's to say, and the same until the
    /// job's end.
    pub chunk_size: Option<NonZeroU64>,
    /// The name of the access token with which it was submitted: not the client's to say either.
    pub submitted_by: Option<String>,
    /// Whether code that the job carries or names may run: decided where the job comes in.
    pub is_admitted: bool,
    /// The span that its submission is part of, where the coordinator traces: of its headers, not of the job that the client
    /// describes.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
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
            verify: None,
            chunk_size: None,
            submitted_by: None,
            is_admitted: false,
            trace: None,
        }
    }
}
