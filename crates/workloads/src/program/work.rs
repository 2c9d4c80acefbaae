//! The work of a `program` job, as a worker gets it.

use std::collections::BTreeMap;

use model::{ProgramOutput, ProgramRef};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{ProgramLimits, ProgramRange};

/// The content of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramWork {
    /// The program to run.
    pub program: ProgramRef,
    /// The limits of a task.
    pub limits: ProgramLimits,
    /// The time limit of a task.
    pub seconds: u32,
    /// Variables of the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether clocks go on by a microsecond a reading and random numbers repeat.
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
    /// Whether the task is the last one, which reads the results of all others from stdin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_fold: bool,
    /// The longest stdout that is reported in the outcome; a longer one is handed in as an object. Without it all is
    /// reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_in_above: Option<u64>,
}

/// The stored input of a task, which is also the payload for a worker that pulls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProgramInput {
    /// The arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The value for stdin.
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

/// The stdin of a task with this payload: a string's text, the bytes of base64, else the JSON itself.
///
/// # Errors
/// The value of `base64` is no base64.
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
