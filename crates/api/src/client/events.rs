//! The events of an answer that goes on.

use std::collections::VecDeque;

use model::JobEvent;
use reqwest::Response;

use super::sse::{Parser, TooLong};

/// One answer's events, in the order of their numbers.
#[derive(Debug)]
pub struct Events {
    response: Response,
    parser: Parser,
    events: VecDeque<JobEvent>,
}

/// An answer's events cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The connection broke: events after the last one come over a new connection.
    #[error("the connection broke")]
    Connection(#[source] reqwest::Error),
    /// A line or an event is longer than 1 MiB.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// An event's data is not the JSON of a [`JobEvent`].
    #[error("read an event")]
    Invalid(#[source] serde_json::Error),
}

impl Events {
    pub(super) fn new(response: Response) -> Self {
        Self { response, parser: Parser::default(), events: VecDeque::new() }
    }

    /// The next event, or none when the answer has ended. Loses nothing when it is dropped before it resolves.
    ///
    /// # Errors
    /// The connection broke, or the answer has something else than events.
    pub async fn next(&mut self) -> Result<Option<JobEvent>, EventsError> {
        while self.events.is_empty() {
            let Some(bytes) = self.response.chunk().await.map_err(EventsError::Connection)? else { return Ok(None) };
            for message in self.parser.push(&bytes)? {
                self.events.push_back(serde_json::from_str(&message.data).map_err(EventsError::Invalid)?);
            }
        }
        Ok(self.events.pop_front())
    }
}
