//! `GET /leases`: a WebSocket over which a coordinator gives leases and gets the answers, each message a JSON text
//! ([`StreamedOrder`], [`StreamedAnswer`]). A lease means what it means in `POST /lease`; without a request of its own it costs
//! both services a third less. A lease that does not outlive its connection ends with the stream or by its revocation.

use std::collections::HashMap;
use std::future::ready;

use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{LeaseRequest, MAX_STREAMED_BYTES, StreamedAnswer, StreamedOrder};
use futures_util::future::{AbortHandle, LocalBoxFuture, abortable};
use futures_util::stream::{FuturesUnordered, LocalBoxStream, unfold};
use futures_util::{FutureExt, StreamExt};
use model::AttemptId;
use service::ApiError;
use service::web_socket::{self, ReceiveError};
use tracing::warn;

use super::{State, lease};
use crate::outcome::Outcome;

/// The most leases that one stream waits for: above what a worker of 1024 slots admits. A coordinator that sends attempts over
/// and over is not read meanwhile.
const MAX_UNANSWERED: usize = 8 * 1024;

pub(super) async fn open(state: Data<State>, request: HttpRequest, body: Payload) -> Result<HttpResponse, ApiError> {
    state.token.demand(&request)?;
    // A coordinator ends its streams, also idle ones, with their connections.
    let texts = web_socket::received(body, MAX_STREAMED_BYTES)
        .take_while(|text| ready(!matches!(text, Err(ReceiveError::Ended(_)))));
    let orders = texts.map(|text| read(&text.map_err(anyhow::Error::new)?));
    let stream = LeaseStream {
        state,
        orders: orders.boxed_local(),
        unanswered: FuturesUnordered::new(),
        revocable: HashMap::new(),
    };
    let messages = unfold(stream, |mut stream| async move {
        let message = stream.next_message().await?;
        Some((message, stream))
    });
    web_socket::accept(&request, messages)
}

fn read(text: &Bytes) -> anyhow::Result<StreamedOrder> {
    Ok(serde_json::from_slice(text)?)
}

/// The leases of one stream. Dropped with the connection, it ends those that do not outlive it.
struct LeaseStream {
    state: Data<State>,
    orders: LocalBoxStream<'static, anyhow::Result<StreamedOrder>>,
    /// The answer of each lease; none if it was revoked.
    unanswered: FuturesUnordered<LocalBoxFuture<'static, (AttemptId, Option<String>)>>,
    revocable: HashMap<AttemptId, AbortHandle>,
}

impl LeaseStream {
    /// Takes orders until there is a message for the coordinator; `None` ends the stream.
    async fn next_message(&mut self) -> Option<String> {
        loop {
            tokio::select! {
                // Answers make room for further leases, and a lease that has come before the end of the drain is answered.
                biased;
                Some((attempt, answer)) = self.unanswered.next() => {
                    self.revocable.remove(&attempt);
                    if answer.is_some() {
                        return answer;
                    }
                }
                order = self.orders.next(), if self.unanswered.len() < MAX_UNANSWERED => match order? {
                    Ok(StreamedOrder::Lease(lease)) => self.begin(lease),
                    Ok(StreamedOrder::Revoke(attempt)) => self.revoke(attempt),
                    Err(error) => {
                        warn!(error = format!("{error:#}"), "a coordinator's message cannot be read: the stream of leases ends");
                        return None;
                    }
                },
                () = self.state.intake.until_drained(), if self.unanswered.is_empty() => return None,
            }
        }
    }

    fn begin(&mut self, lease: LeaseRequest) {
        let (state, attempt) = (self.state.clone(), lease.attempt);
        let outlives_connection = lease.outlives_connection;
        let (answer, handle) = abortable(async move { answer(attempt, lease::outcome(&state, lease).await) });
        if !outlives_connection {
            self.revocable.insert(attempt, handle);
        }
        self.unanswered.push(async move { (attempt, answer.await.ok()) }.boxed_local());
    }

    fn revoke(&mut self, attempt: AttemptId) {
        // The lease may have been answered meanwhile.
        if let Some(handle) = self.revocable.remove(&attempt) {
            handle.abort();
        }
    }
}

/// The message that answers a lease.
fn answer(attempt: AttemptId, outcome: Result<Outcome, ApiError>) -> String {
    let answer = match outcome.and_then(|outcome| outcome.report().cloned()) {
        Ok(outcome) => StreamedAnswer::Outcome(outcome),
        Err(error) => StreamedAnswer::Refusal { attempt, problem: error.problem() },
    };
    serde_json::to_string(&answer).expect("numbers and texts are JSON")
}
