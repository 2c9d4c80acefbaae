//! Priorities of jobs.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{InvalidJob, read_whole};

/// Urgency of a job's tasks: 1 to 9, larger sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// The lowest priority.
    pub const LEAST: Self = Self(1);
    /// The highest priority.
    pub const HIGHEST: Self = Self(9);

    /// All priorities, the lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::LEAST.0..=Self::HIGHEST.0).map(Self)
    }

    /// The number, 1 to 9.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u8> for Priority {
    type Error = InvalidJob;

    fn try_from(priority: u8) -> Result<Self, Self::Error> {
        if (1..=9).contains(&priority) {
            Ok(Self(priority))
        } else {
            Err(InvalidJob::new("priority", "must be from 1 to 9, larger sooner"))
        }
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_whole::<1, 9, _, D>(deserializer).map(Self)
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
