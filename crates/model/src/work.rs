//! Kinds of job with their parameters.

use serde::{Deserialize, Serialize};

use crate::{JobKind, NumberRange};

/// The most tasks of a job, 2^53: what a JSON number can say exactly.
pub const MAX_TASKS: u64 = 1 << 53;

/// Parameters of `sleep`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SleepParams {
    /// Time that each task takes, 0 to 86400.
    pub seconds: f64,
    /// Share of the attempts that fail, 0 to 1.
    #[serde(default)]
    pub fail_rate: f64,
    /// How many tasks, 1 to 10000000.
    #[serde(default = "one_task")]
    pub tasks: u64,
}

fn one_task() -> u64 {
    1
}

/// What a job computes, with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JobWork {
    /// See [`JobKind::SumOfPrimes`].
    SumOfPrimes(NumberRange),
    /// See [`JobKind::CountPrimes`].
    CountPrimes(NumberRange),
    /// See [`JobKind::Sleep`].
    Sleep(SleepParams),
    /// See [`JobKind::Tasks`]; the payloads are kept apart.
    Tasks {
        /// How many.
        count: u64,
    },
}

impl JobWork {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match self {
            Self::SumOfPrimes(_) => JobKind::SumOfPrimes,
            Self::CountPrimes(_) => JobKind::CountPrimes,
            Self::Sleep(_) => JobKind::Sleep,
            Self::Tasks { .. } => JobKind::Tasks,
        }
    }
}
