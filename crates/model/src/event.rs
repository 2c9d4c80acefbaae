//! Events of jobs, with numbers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Counts, JobId, JobKind};

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The job was accepted.
    Submitted,
    /// The first task was leased.
    Started,
    /// Attempts ended; at most one a second.
    Progress,
    /// No task runs until the job is resumed.
    Paused,
    /// The job goes on.
    Resumed,
    /// The failed tasks run again.
    Retried,
    /// A task ran out of attempts.
    TaskFailed,
    /// The job's result is stored.
    Succeeded,
    /// The job is over without a result.
    Failed,
    /// The job was canceled.
    Canceled,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
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

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
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

    /// Whether the event ends a job's life.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// A record of a topic of Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventSource {
    /// The topic.
    pub topic: String,
    /// The partition of the topic.
    pub partition: i32,
    /// The record's place in the partition.
    pub offset: u64,
}

/// An event, as the `data` of a Server-Sent Event whose `id` is `seq` and whose `event` is `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// The event's number, which grows over all jobs.
    pub seq: u64,
    /// The job that the event is about.
    pub job: JobId,
    /// Kind of the event.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Time of the event.
    pub at: Timestamp,
    /// Kind of the job.
    #[serde(rename = "kind", skip_serializing_if = "Option::is_none", default)]
    pub job_kind: Option<JobKind>,
    /// The name of the job's tasks, if they have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<String>,
    /// Tasks done up to the event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tasks_done: Option<u64>,
    /// Tasks in all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tasks_total: Option<u64>,
    /// The reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The record that submitted the job, in its first event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<EventSource>,
    /// Figures that the event adds to the statistics.
    #[serde(skip_serializing_if = "counts_nothing", default)]
    pub counts: Box<Counts>,
}

#[expect(clippy::borrowed_box, reason = "serde passes the field as it is")]
fn counts_nothing(counts: &Box<Counts>) -> bool {
    counts.is_empty()
}
