//! A file on its way to the leader that is too long to be held whole: it is passed on as it arrives, as fast as the leader
//! takes it. Its beginning is kept, so that another leader can be asked while no more than the beginning has arrived.

use std::io;
use std::time::Duration;

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, dev};
use futures_util::{StreamExt, stream};
use reqwest::{Body, RequestBuilder, Response, header};
use service::{ApiError, BodyBudget, Reservation, body_error};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Bytes that are kept: more than the buffers between this process and a leader hold that reads nothing, so that a leader that
/// hangs or is gone from the start costs the client nothing. A shorter file is held whole.
const KEPT_BYTES: usize = 16 << 20;

/// Pieces that wait for the leader to take them.
const PIECES: usize = 2;

/// The body of a long upload, with its kept beginning.
pub(super) struct Upload {
    rest: Payload,
    /// The body's `Content-Length`, unless the request has none.
    length: Option<u64>,
    kept: Vec<Bytes>,
    read_bytes: usize,
    most: usize,
    time: Duration,
    until: Instant,
    is_read: bool,
    _reservation: Reservation,
}

/// A part of the body of the request to the leader.
enum Piece {
    Bytes(Bytes),
    /// The end of the file. A client that leaves before does not reach it.
    End,
}

fn length_of(request: &HttpRequest) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a body is longer than the kept beginning, as far as the head of the request tells.
pub(super) fn is_long(request: &HttpRequest) -> bool {
    length_of(request).is_none_or(|length| length > KEPT_BYTES as u64)
}

impl Upload {
    pub(super) fn new(
        request: &HttpRequest,
        rest: Payload,
        most: usize,
        time: Duration,
        budget: &BodyBudget,
    ) -> Result<Self, ApiError> {
        let length = length_of(request);
        if length.is_some_and(|length| length > most as u64) {
            return Err(ApiError::BodyTooLarge(most));
        }
        Ok(Self {
            rest,
            length,
            kept: Vec::new(),
            read_bytes: 0,
            most,
            time,
            until: Instant::now() + time,
            is_read: false,
            _reservation: budget.reserve(KEPT_BYTES)?,
        })
    }

    /// Whether all bytes that have arrived are kept.
    pub(super) fn is_there(&self) -> bool {
        self.read_bytes <= KEPT_BYTES
    }

    /// The body as a payload for a handler of this process; only while [`Self::is_there`].
    pub(super) fn into_payload(self) -> dev::Payload {
        let Self { kept, rest, is_read, .. } = self;
        let kept = stream::iter(kept.into_iter().map(Ok));
        let rest = rest.take(if is_read { 0 } else { usize::MAX });
        dev::Payload::Stream { payload: Box::pin(kept.chain(rest)) }
    }

    /// Sends the request with the file as its body; only while [`Self::is_there`].
    ///
    /// # Errors
    /// The client's body is too long, too slow or cut off.
    pub(super) async fn send(&mut self, mut request: RequestBuilder) -> Result<reqwest::Result<Response>, ApiError> {
        let (sender, receiver) = mpsc::channel(PIECES);
        if let Some(length) = self.length {
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let mut answered = std::pin::pin!(request.body(body(receiver)).send());
        tokio::select! {
            answer = &mut answered => return Ok(answer),
            pumped = self.pump(sender) => pumped?,
        }
        Ok(answered.await)
    }

    /// Passes the file to the leader's request. Ends when the file is complete, or when the request takes no more.
    async fn pump(&mut self, sender: mpsc::Sender<Piece>) -> Result<(), ApiError> {
        for piece in &self.kept {
            if sender.send(Piece::Bytes(piece.clone())).await.is_err() {
                return Ok(());
            }
        }
        while !self.is_read {
            // Reserved before the read: a piece without a place stays with the client.
            let Ok(place) = sender.reserve().await else { return Ok(()) };
            match timeout_at(self.until, self.rest.next()).await {
                Ok(Some(Ok(piece))) => {
                    self.keep(&piece)?;
                    place.send(Piece::Bytes(piece));
                }
                Ok(Some(Err(error))) => return Err(body_error(error)),
                Ok(None) => self.is_read = true,
                Err(_) => return Err(ApiError::BodyTimeout(self.time)),
            }
        }
        // The leader has answered a request that takes nothing any more.
        let _ = sender.send(Piece::End).await;
        Ok(())
    }

    fn keep(&mut self, piece: &Bytes) -> Result<(), ApiError> {
        self.read_bytes += piece.len();
        if self.read_bytes > self.most {
            return Err(ApiError::BodyTooLarge(self.most));
        }
        if self.is_there() {
            self.kept.push(piece.clone());
        } else {
            self.kept = Vec::new();
        }
        Ok(())
    }
}

/// The body of the leader's request. A cut-off file cuts the body off: it must not look complete.
fn body(pieces: mpsc::Receiver<Piece>) -> Body {
    Body::wrap_stream(stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(pieces))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::error::PayloadError;
    use actix_web::test::TestRequest;

    use super::*;

    #[actix_web::test]
    async fn a_file_that_is_cut_off_has_the_error_of_every_cut_off_body() {
        let request = TestRequest::default().to_http_request();
        let cut = stream::iter([Ok(Bytes::from_static(b"start")), Err(PayloadError::Incomplete(None))]);
        let mut payload: dev::Payload = dev::Payload::Stream { payload: Box::pin(cut) };
        let rest = Payload::from_request(&request, &mut payload).await.expect("a body");
        let budget = BodyBudget::new(KEPT_BYTES);
        let upload = Upload::new(&request, rest, KEPT_BYTES, Duration::from_secs(600), &budget);
        let (sender, _receiver) = mpsc::channel(PIECES);
        let error = upload.expect("room").pump(sender).await.expect_err("it is cut off").to_string();
        assert!(error.contains("the connection ended before all of it came"), "{error}");
    }
}
