//! The events of a continuous answer.

use std::collections::VecDeque;

use model::JobEvent;
use reqwest::Response;

use super::sse::{Message, Parser, TooLong};
use crate::{RESET_EVENT, StreamReset};

/// An item of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamItem {
    /// An event.
    Event(JobEvent),
    /// The stream does not continue at the requested place.
    Reset(StreamReset),
}

/// Events of one answer, in the order of their numbers.
#[derive(Debug)]
pub struct Events {
    response: Response,
    parser: Parser,
    items: VecDeque<StreamItem>,
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
        Self { response, parser: Parser::default(), items: VecDeque::new() }
    }

    /// The next of the received events.
    pub fn take(&mut self) -> Option<StreamItem> {
        self.items.pop_front()
    }

    /// Waits for the next piece of the answer. The piece may have no event: while there is none, a coordinator sends a comment
    /// every 15 s. Returns false when the answer has ended. Loses nothing when it is dropped before it resolves.
    ///
    /// # Errors
    /// The connection broke, or the answer holds something else than events.
    pub async fn read(&mut self) -> Result<bool, EventsError> {
        let Some(bytes) = self.response.chunk().await.map_err(EventsError::Connection)? else { return Ok(false) };
        for message in self.parser.push(&bytes)? {
            self.items.push_back(parse(&message).map_err(EventsError::Invalid)?);
        }
        Ok(true)
    }
}

fn parse(message: &Message) -> Result<StreamItem, serde_json::Error> {
    if message.event == RESET_EVENT {
        serde_json::from_str(&message.data).map(StreamItem::Reset)
    } else {
        serde_json::from_str(&message.data).map(StreamItem::Event)
    }
}
