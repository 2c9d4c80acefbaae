//! Errors of a client's requests.

use model::JobState;
use reqwest::StatusCode;
use url::Url;

use super::http::{AnswerError, StartError};

/// The reason why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be made.
    #[error(transparent)]
    Start(StartError),
    /// The connection could not be opened or broke before the answer was complete.
    #[error("cannot reach the grid at {url}")]
    Unreachable {
        /// The grid.
        url: Url,
        /// The fault of the connection.
        source: reqwest::Error,
    },
    /// The grid refused the request.
    #[error("{detail}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The problem's detail.
        detail: String,
    },
    /// The job has no result: it is not over yet, or it ended without one.
    #[error("{detail}")]
    NoResult {
        /// The job's state after the answer.
        state: JobState,
        /// The problem's detail.
        detail: String,
    },
    /// The answer is too long, cut off or not that of this version of the API.
    #[error("{url} does not answer as a coordinator of divvy does")]
    Answer {
        /// The grid.
        url: Url,
        /// The fault of the answer.
        source: AnswerError,
    },
}
