//! What jobs require of workers or prefer, and what workers have.

use serde::{Deserialize, Serialize};

use crate::{Labels, read_words};

/// Where a job's tasks would rather run. A wish: no slot stays idle for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Affinity {
    /// Labels of the workers that suit best.
    #[serde(deserialize_with = "read_words", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Tasks under the same key go to workers that have had one of it, such as to reuse what they loaded for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a worker must have to get any of a job's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Labels that it has, all of them.
    #[serde(deserialize_with = "read_words", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Cores that it has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory that it has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// The label that simulated workers have and that the jobs which they come and go with require.
pub const SIMULATION_LABEL: &str = "divvy.simulation";

impl Requirements {
    /// Whether they are those of a job for simulated workers, which leave when it ends.
    #[must_use]
    pub fn are_of_simulation(&self) -> bool {
        self.labels.contains_key(SIMULATION_LABEL)
    }
}

/// What a worker has for [`Requirements`] and [`Affinity`] to be compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Its cores.
    pub cpus: u32,
    /// Its memory.
    pub memory_bytes: u64,
}
