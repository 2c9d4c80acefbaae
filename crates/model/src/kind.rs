//! Kinds of job.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::InvalidJob;

/// What a job computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// The sum of all primes in a range.
    SumOfPrimes,
    /// How many primes a range holds.
    CountPrimes,
    /// Simulated work: tasks that take time and do nothing.
    Sleep,
    /// Individual tasks with a payload each, for workers that pull.
    Tasks,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::SumOfPrimes, Self::CountPrimes, Self::Sleep, Self::Tasks];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SumOfPrimes => "sum-of-primes",
            Self::CountPrimes => "count-primes",
            Self::Sleep => "sleep",
            Self::Tasks => "tasks",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for JobKind {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidJob::new("kind", "must be sum-of-primes, count-primes, sleep or tasks");
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(invalid)
    }
}
