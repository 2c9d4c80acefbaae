//! The middleware's messages to the watch of a connection.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::http::{ConnectionType, Version};
use actix_web::middleware::Next;
use actix_web::web::Bytes;

use super::{Link, Phase};
use crate::ApiError;

/// Middleware that tells the connection's watch when a request is in a handler and when its answer is on its way.
pub(crate) async fn track(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(link) = request.request().conn_data::<Rc<Link>>().cloned() else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    let in_flight = InFlight::enter(Rc::clone(&link), &request);
    let (version, connection) = (request.version(), request.head().connection_type());
    let mut response = tokio::select! {
        answer = next.call(request) => answer?,
        () = link.until_cut() => {
            return Err(ApiError::TooManyRequests("this connection sends more than is read".to_owned()).into());
        }
    };
    link.phase.set(Phase::Answering);
    adapt(&mut response, version, connection);
    Ok(response.map_body(|_, body| BoxBody::new(TrackedBody { body: body.boxed(), in_flight })))
}

/// Announces the end of the connection where actix-web ends it without a word: HTTP/1.0 has no chunks, so that a body without a
/// length ends with its connection; and actix-web closes the connection of a client that offers to speak another protocol, unless
/// the handler accepts.
fn adapt<B: MessageBody>(response: &mut ServiceResponse<B>, version: Version, connection: ConnectionType) {
    let is_stream = response.response().body().size() == BodySize::Stream;
    let head = response.response_mut().head_mut();
    let is_without_end = version < Version::HTTP_11 && is_stream && head.chunked();
    if is_without_end {
        head.no_chunking(true);
    }
    let is_refused_offer = connection == ConnectionType::Upgrade && !head.upgrade();
    if is_without_end || is_refused_offer {
        head.set_connection_type(ConnectionType::Close);
    }
}

struct InFlight {
    link: Rc<Link>,
    timeout_after: Duration,
}

impl InFlight {
    fn enter(link: Rc<Link>, request: &ServiceRequest) -> Self {
        let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let has_body = is_chunked || request.headers().contains_key(CONTENT_LENGTH);
        link.phase.set(Phase::InHandler { has_body, can_be_asked: request.version() == Version::HTTP_11 });
        link.owes_answer.set(true);
        // A client that sends another request has received the answer.
        link.when_lost.set(None);
        link.mind_end();
        // actix-web bounds the rest of a body with a length, by the same time.
        let limits = link.limits;
        let timeout_after = if is_chunked { limits.disconnect_timeout } else { limits.between_requests() };
        Self { link, timeout_after }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.link.phase.set(Phase::Between { until: Instant::now() + self.timeout_after });
    }
}

/// An answer's body, which belongs to its request until it is sent.
struct TrackedBody {
    body: BoxBody,
    in_flight: InFlight,
}

impl MessageBody for TrackedBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.in_flight.link.is_cut.get() {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())));
        }
        let part = Pin::new(&mut this.body).poll_next(cx);
        if let Poll::Ready(Some(Err(error))) = &part {
            tracing::warn!(%error, "an answer has ended early");
        }
        if part.is_pending() {
            this.in_flight.link.answer.set(Some(cx.waker().clone()));
        }
        part
    }
}
