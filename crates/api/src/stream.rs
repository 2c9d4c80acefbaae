//! Items of event streams beside the events themselves.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The `event` of a Server-Sent Event whose `data` is a [`StreamReset`].
pub const RESET_EVENT: &str = "reset";

/// The stream cannot go on where the client left off: read the state of the jobs anew. The `data` of a Server-Sent Event
/// whose `event` is `reset` and whose `id` is `resumes_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamReset {
    /// The event that the client named as the last one that it has.
    pub asked_after: u64,
    /// The number of the oldest event that is kept; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest: Option<u64>,
    /// The number of the newest event; 0 before the first.
    pub newest: u64,
    /// The stream goes on with events whose numbers are larger.
    pub resumes_after: u64,
}

impl std::fmt::Display for StreamReset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { asked_after, oldest, newest, resumes_after } = self;
        match (asked_after > newest, oldest) {
            (true, _) => write!(f, "there is no event {asked_after}: the newest one is {newest}"),
            (false, Some(oldest)) => write!(
                f,
                "events {} to {resumes_after} are not kept any more: those from {oldest} to {newest} are there",
                asked_after + 1
            ),
            (false, None) => write!(f, "events {} to {newest} are not kept any more", asked_after + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_says_what_is_missing_and_what_is_there() {
        let reset = |asked_after, oldest, newest, resumes_after| {
            StreamReset { asked_after, oldest, newest, resumes_after }.to_string()
        };
        assert_eq!(reset(90, Some(1), 40, 40), "there is no event 90: the newest one is 40");
        assert_eq!(reset(3, Some(2), 40, 9), "events 4 to 9 are not kept any more: those from 2 to 40 are there");
        assert_eq!(reset(3, None, 40, 40), "events 4 to 40 are not kept any more");
    }
}
