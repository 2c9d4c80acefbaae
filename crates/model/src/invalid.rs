//! Fields of a job that fail validation.

use crate::InvalidRange;

/// An invalid field of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {message}")]
pub struct InvalidJob {
    /// The field.
    pub field: &'static str,
    /// The rule that the value breaks.
    pub message: String,
}

impl InvalidJob {
    /// An error of `field`, with the rule in `message`.
    #[must_use]
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

impl From<InvalidRange> for InvalidJob {
    fn from(error: InvalidRange) -> Self {
        Self::new("params", error.to_string())
    }
}
