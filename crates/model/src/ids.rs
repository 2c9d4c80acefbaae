//! Identifiers, each of a type of its own so that the compiler tells them apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A job, which a client submits and waits for. A UUIDv7, so that jobs sort by the time of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of a worker's process, made anew at each start: a restarted worker under an old name is a new worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub Uuid);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An execution of a lease. A UUID of version 8 that no coordinator gives twice, so that a late outcome names an attempt without
/// a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId(pub Uuid);

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name under which a worker registers: 1 to 128 letters, digits, dots, dashes and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkerId(String);

/// A name that no worker can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker id has 1 to 128 characters of A-Z, a-z, 0-9, '.', '-' and '_', and is not '.' or '..'")]
pub struct InvalidWorkerId;

impl WorkerId {
    const MAX_LEN: usize = 128;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WorkerId {
    type Error = InvalidWorkerId;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        // A URL's path gives these two names another meaning.
        let is_dots = matches!(name.as_str(), "." | "..");
        if !is_dots && (1..=Self::MAX_LEN).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(InvalidWorkerId)
        }
    }
}

impl FromStr for WorkerId {
    type Err = InvalidWorkerId;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_from(name.to_owned())
    }
}

impl From<WorkerId> for String {
    fn from(id: WorkerId) -> Self {
        id.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_id_takes_pod_names_and_refuses_what_could_leave_its_path_segment() {
        for good in ["10-0-0-7", "worker-1", "host.example_8082", &"x".repeat(128)] {
            assert_eq!(good.parse::<WorkerId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "..%2f", &"x".repeat(129)] {
            assert_eq!(bad.parse::<WorkerId>(), Err(InvalidWorkerId), "{bad}");
        }
    }
}
