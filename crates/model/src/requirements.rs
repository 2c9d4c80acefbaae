//! Requirements and preferences of jobs, and resources of workers.

use serde::{Deserialize, Serialize};

use crate::{Labels, read_words};

/// Preferences of a job among the workers that can run it. No slot stays idle for them.
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

/// Conditions on the workers that get any of a job's tasks.
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

/// Resources of a worker, to compare with [`Requirements`] and [`Affinity`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Its cores.
    pub cpus: u32,
    /// Its memory.
    pub memory_bytes: u64,
}
