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
    /// Limit of the job from its submission or its last retry to its end, in seconds; a longer job fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_seconds: Option<NonZeroU32>,
}

/// The options of a job, without its kind and parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// Urgency of the tasks.
    pub priority: Priority,
    /// Tags that the client gave the job.
    pub tags: Labels,
    /// Preferences among the workers that can run the job.
    pub affinity: Affinity,
    /// Requirements on the workers.
    pub requires: Requirements,
    /// Failed attempts after which a task has failed.
    pub max_attempts: NonZeroU32,
    /// Time limits of the job and its attempts.
    pub timeout: Timeout,
    /// Name under which the result is stored, beside the job's id.
    pub output: Option<String>,
    /// Share of the job's leases that another worker computes again for comparison.
    pub verify: Option<Share>,
    /// Numbers from a task's first to its last, for kinds with a range: set by the coordinator, and constant until the job's end.
    pub chunk_size: Option<NonZeroU64>,
    /// Name of the access token of the submission: set by the coordinator.
    pub submitted_by: Option<String>,
    /// Whether code that the job carries or names may run: decided at the submission.
    pub is_admitted: bool,
    /// The span of the submission, if the coordinator traces: from the headers of the request, not from the client's description
    /// of the job.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
}

/// Default number of attempts at a task.
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
