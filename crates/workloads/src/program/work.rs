//! What a worker gets of a `program` job.

use std::collections::BTreeMap;

use model::{ProgramOutput, ProgramRef};
use serde::{Deserialize, Deserializer, Serialize};
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub payload: Option<Box<RawValue>>,
}

/// A payload whose `base64` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no base64 of the standard alphabet with padding")]
pub struct InvalidBase64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    base64: String,
}

/// The payload `null` is one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// What a task with this payload reads from stdin: a string's text, what base64 stands for, else the JSON itself.
///
/// # Errors
/// What should be base64 is none.
pub fn stdin_of(payload: &RawValue) -> Result<Vec<u8>, InvalidBase64> {
    let json = payload.get();
    if let Ok(text) = serde_json::from_str::<String>(json) {
        return Ok(text.into_bytes());
    }
    // A list would be read as the fields in their order.
    match json.starts_with('{').then(|| serde_json::from_str::<Bytes>(json)) {
        Some(Ok(Bytes { base64 })) => ProgramOutput::Binary { base64 }.into_bytes().ok_or(InvalidBase64),
        Some(Err(_)) | None => Ok(json.as_bytes().to_vec()),
    }
}
