//! Algorithms for the primes of a range.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidJob;

/// Algorithm for the sum or the count of the primes in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// The algorithm with the shorter expected time.
    #[default]
    Auto,
    /// A sieve over the range.
    Sieve,
    /// Two sums of all primes up to a number, in about x^(2/3) steps each.
    Combinatorial,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Sieve, Self::Combinatorial];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sieve => "sieve",
            Self::Combinatorial => "combinatorial",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or_else(|| InvalidJob::new("algorithm", "must be auto, sieve or combinatorial"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_text_and_in_json() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            let json = serde_json::to_string(&algorithm).expect("a name");
            assert_eq!(json, format!("\"{algorithm}\""));
        }
        assert!("Sieve".parse::<Algorithm>().is_err());
    }
}
