//! Names of kinds of job.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::InvalidJob;

/// The longest name, in bytes.
const MAX_LEN: usize = 31;

/// The name of a kind of job: 1 to 31 of a-z, 0-9 and '-'. A program need not know the kind of a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKind {
    // Unused bytes are zero, so that names compare as their texts do.
    name: [u8; MAX_LEN],
    len: u8,
}

impl JobKind {
    /// The sum of all primes in a range.
    pub const SUM_OF_PRIMES: Self = Self::new("sum-of-primes");
    /// Number of the primes in a range.
    pub const COUNT_PRIMES: Self = Self::new("count-primes");
    /// Simulated work.
    pub const SLEEP: Self = Self::new("sleep");
    /// Individual tasks with a payload each.
    pub const TASKS: Self = Self::new("tasks");
    /// The user's own program, once for each list of arguments.
    pub const PROGRAM: Self = Self::new("program");

    /// A name that is known at compile time.
    ///
    /// # Panics
    /// The text is no valid name.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        match Self::checked(text.as_bytes()) {
            Some(kind) => kind,
            None => panic!("not the name of a kind"),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.len)]).expect("a name is ASCII")
    }

    const fn checked(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_LEN {
            return None;
        }
        let mut name = [0; MAX_LEN];
        let mut at = 0;
        while at < text.len() {
            if !(text[at].is_ascii_lowercase() || text[at].is_ascii_digit() || text[at] == b'-') {
                return None;
            }
            name[at] = text[at];
            at += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_LEN")]
        Some(Self { name, len: text.len() as u8 })
    }
}

impl FromStr for JobKind {
    type Err = InvalidJob;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::checked(name.as_bytes())
            .ok_or_else(|| InvalidJob::new("kind", format!("must be 1 to {MAX_LEN} of a-z, 0-9 and '-'")))
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for JobKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for JobKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_text_and_sorts_by_it() {
        assert_eq!(JobKind::SUM_OF_PRIMES.as_str(), "sum-of-primes");
        assert_eq!("tasks".parse(), Ok(JobKind::TASKS));
        assert!(JobKind::COUNT_PRIMES < JobKind::SLEEP && JobKind::new("a") < JobKind::new("a-"));
        for wrong in ["", "Sleep", "a b", "ü", &"x".repeat(32)] {
            assert!(wrong.parse::<JobKind>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&JobKind::SLEEP).expect("a name"), r#""sleep""#);
    }
}
