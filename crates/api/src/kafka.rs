//! Records that are published to Kafka, and the state of the publishing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::WorkerId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::WorkerState;

/// A worker as the topic `divvy.workers` has it each second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The worker's name.
    pub id: WorkerId,
    /// Time of the state.
    pub at: Timestamp,
    /// The state of the worker.
    pub state: WorkerState,
    /// Share of all its cores in use, 0 to 1; 0 of a worker that pulls.
    pub load: f32,
    /// Leases it computes at the same time.
    pub slots: u32,
    /// Leases it holds now.
    pub busy: u32,
    /// Tasks it has completed since it registered.
    pub tasks_done: u64,
}

/// Kafka, as `GET /v1/stats` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KafkaStats {
    /// The number of the last event that is published with all before it.
    pub published_event: u64,
    /// Events that wait to be published.
    pub unpublished_events: u64,
    /// Events that retention deleted before they were published.
    pub lost_events: u64,
    /// Records that became jobs, or repeated jobs, since the coordinator's start.
    pub records_taken: u64,
    /// Records that were no jobs, since then.
    pub records_dead: u64,
    /// Those of them that the topic of dead letters did not take, however short they were made, since then.
    #[serde(default)]
    pub dead_letters_refused: u64,
    /// Records that were deleted before they were read, since then.
    pub records_missed: u64,
    /// Partitions that were made anew, since then.
    pub partitions_made_anew: u64,
    /// Partitions that had lost records which were read, since then.
    #[serde(default)]
    pub partitions_truncated: u64,
    /// The errors that stop a part, by its name: `events`, `workers` or `intake`.
    pub errors: BTreeMap<String, String>,
}
