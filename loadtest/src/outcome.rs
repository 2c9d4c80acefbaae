//! Outcomes of planned requests.

use std::fmt;
use std::time::Duration;

/// A planned request after the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Intended time of the send, from the start of the run.
    pub(crate) intended: Duration,
    /// Delay of the send against the intended time.
    pub(crate) late: Duration,
    /// Time from the intended send to the outcome.
    pub(crate) latency: Duration,
    pub(crate) outcome: RequestOutcome,
}

/// The end of a planned request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RequestOutcome {
    Correct,
    /// Not sent: too many requests were still without an answer.
    Missed,
    Failed(Failure),
}

/// The reason why a sent request did not get the right answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No connection to the target.
    Connect,
    /// No whole answer within the scenario's timeout.
    Timeout,
    /// The connection broke before the answer was whole.
    Broken,
    /// An answer with a status other than 200.
    HttpStatus(u16),
    /// A 200 that is not the promised JSON object, or far too long.
    Malformed,
    /// A well-formed answer with another sum or range.
    WrongAnswer,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Timeout => f.write_str("timeout"),
            Self::Broken => f.write_str("broken"),
            Self::HttpStatus(status) => write!(f, "http_{status}"),
            Self::Malformed => f.write_str("malformed"),
            Self::WrongAnswer => f.write_str(WRONG_ANSWER),
        }
    }
}

/// Name of the failure that no limit forgives.
pub(crate) const WRONG_ANSWER: &str = "wrong_answer";
