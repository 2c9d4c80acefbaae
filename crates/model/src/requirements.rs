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
    /// Key of shared data: tasks under the same key go to workers that had one before, such as to reuse loaded data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Conditions on the workers that get any of a job's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Labels, all of which a worker must have.
    #[serde(deserialize_with = "read_words", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Least number of cores of a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Least memory of a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Least memory of a worker for each of its slots: no client's condition, but one of the work itself.
    #[serde(skip)]
    pub slot_memory_bytes: Option<u64>,
}

/// The label of simulated workers, which their jobs require.
pub const SIMULATION_LABEL: &str = "divvy.simulation";

impl Requirements {
    /// Whether these are the requirements of a job for simulated workers, which leave when it ends.
    #[must_use]
    pub fn are_of_simulation(&self) -> bool {
        self.labels.contains_key(SIMULATION_LABEL)
    }
}

/// Resources of a worker, to compare with [`Requirements`] and [`Affinity`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Number of cores.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// The memory that each slot of a worker with these resources can take at the same time.
    #[must_use]
    pub fn slot_memory_bytes(&self, slots: u32) -> u64 {
        self.memory_bytes / u64::from(slots.max(1))
    }
}
