//! Event streams as a client reads them.

use model::{EventKind, JobEvent};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::{PATIENCE, TestCoordinator};

/// A stream of Server-Sent Events as a client reads it.
pub(crate) struct EventStream {
    response: Response,
    buffer: String,
}

impl EventStream {
    pub(crate) async fn open(grid: &TestCoordinator, path: &str, last_seen: Option<u64>) -> Self {
        let mut request = grid.client.get(format!("http://{}{path}", grid.public));
        if let Some(seen) = last_seen {
            request = request.header("Last-Event-ID", seen);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: String::new() }
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<JobEvent> {
        self.next_message().await.map(|message| parse_event(&message))
    }

    /// The id and the data of the next event, which must be a `reset`.
    pub(crate) async fn reset(&mut self) -> (String, Value) {
        let message = self.next_message().await.expect("an event");
        assert_eq!(field(&message, "event:"), "reset");
        (field(&message, "id:").to_owned(), serde_json::from_str(field(&message, "data:")).expect("JSON"))
    }

    async fn next_message(&mut self) -> Option<String> {
        loop {
            if let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.buffer = rest;
                if message.lines().any(|line| line.starts_with("data:")) {
                    return Some(message);
                }
                continue;
            }
            let part = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something in time");
            self.buffer.push_str(std::str::from_utf8(&part.expect("a stream")?).expect("UTF-8"));
        }
    }

    /// The kinds of all events until the end of the stream, but for progress, whose number depends on time.
    pub(crate) async fn rest(&mut self) -> Vec<EventKind> {
        let mut kinds = Vec::new();
        while let Some(event) = self.next().await {
            kinds.push(event.kind);
        }
        kinds.retain(|kind| *kind != EventKind::Progress);
        kinds
    }
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    message.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim()
}

/// An event whose `id` and `event` say the same as its `data`.
fn parse_event(message: &str) -> JobEvent {
    let event: JobEvent = serde_json::from_str(field(message, "data:")).expect("an event");
    assert_eq!(
        (field(message, "id:"), field(message, "event:")),
        (event.seq.to_string().as_str(), event.kind.as_str())
    );
    event
}
