//! What a worker gets of a `program` job.

use std::collections::BTreeMap;

use model::ProgramRef;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ProgramLimits, ProgramRange};

/// What a lease carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramWork {
    /// What to run.
    pub program: ProgramRef,
    /// What a task may take.
    pub limits: ProgramLimits,
    /// The time limit of a task.
    pub seconds: u32,
    /// Variables of the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether clocks stand still and random numbers repeat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reproducible: bool,
    /// The arguments, where they come of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ProgramRange>,
    /// Whether each task has a [`ProgramInput`] at the coordinator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_inputs: bool,
    /// Whether stdout must be a decimal integer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_integer: bool,
    /// Whether it is the last task, which reads the results of all others from stdin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_fold: bool,
    /// The longest stdout that is reported in the outcome; a longer one is handed in as an object. Without it all is
    /// reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_in_above: Option<u64>,
}

/// What is stored for one task, and what a worker that pulls gets as its payload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProgramInput {
    /// The arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// What it reads from stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
}
