//! Passes requests to the process of the service that answers them; the client only sees a slower answer.

use std::fmt::{self, Debug};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes, Data};
use actix_web::{Error, FromRequest, HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;

use crate::ApiError;
use crate::compression::compress;
use crate::error::LeaderWanted;
use crate::routes::{Matched, Route};

/// The process of a service that answers a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnsweringProcess {
    /// Each process.
    #[default]
    Anywhere,
    /// The leader alone. The request waits while there is no leader.
    Leader,
    /// The leader, which has more data; each process if no leader is there.
    LeaderIfAny,
}

/// Passes requests on to the leader. A listener whose app data has a `Data<dyn Relay>` uses it.
pub trait Relay: Debug + Send + Sync {
    /// Whether this process is the leader now.
    fn leads(&self) -> bool;

    /// The answer to a request that another process has passed on to this one, which does not lead.
    fn refuse(&self, request: &HttpRequest) -> Option<HttpResponse>;

    /// Asks the leader, and the next leader if the first is gone and a repetition does no harm.
    fn pass<'a>(
        &'a self,
        request: &'a HttpRequest,
        body: web::Payload,
        route: &'static Route,
    ) -> LocalBoxFuture<'a, Result<Passed, ApiError>>;
}

/// The result of a request that was passed on.
pub enum Passed {
    /// The leader's answer.
    Answered(HttpResponse),
    /// This process is to answer itself: it leads now, or no leader is at hand. The body is given back.
    Here(Payload),
}

impl Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => f.debug_tuple("Answered").field(&answer.status()).finish(),
            Self::Here(_) => f.debug_tuple("Here").finish_non_exhaustive(),
        }
    }
}

/// The body of an answer: from this process, perhaps compressed, or from the leader, which has compressed it already.
type PassedBody<B> = EitherBody<EitherBody<B, Bytes>>;

/// Middleware: lets the leader answer what this process cannot. Compresses this process's own answers here, since a middleware
/// of its own would cost every request two allocations.
pub(crate) async fn pass_on<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<PassedBody<B>>, Error> {
    let relay = request.app_data::<Data<dyn Relay>>().cloned();
    let route = Matched::of(&request).route.filter(|route| route.place() != AnsweringProcess::Anywhere);
    let (Some(relay), Some(route)) = (relay, route) else {
        return Ok(compress(next.call(request).await?).map_into_left_body());
    };
    let request = match ask_leader(&**relay, request, route).await? {
        Asked::Answered(answer) => return Ok(answer.map_into_right_body()),
        Asked::Here(request) => request,
    };
    // The body is not kept here.
    let is_repeatable = request.method() == Method::GET || (route.is_repeatable() && is_empty(&request));
    let response = compress(next.call(request).await?);
    if !is_not_leading(&response) {
        return Ok(response.map_into_left_body());
    }
    if let Some(refusal) = relay.refuse(response.request()) {
        let (head, _) = response.into_parts();
        return Ok(ServiceResponse::new(head, refusal).map_into_right_body());
    }
    if !is_repeatable {
        return Ok(response.map_into_left_body());
    }
    let (head, _) = response.into_parts();
    match ask_leader(&**relay, ServiceRequest::from_parts(head, Payload::None), route).await? {
        Asked::Answered(answer) => Ok(answer.map_into_right_body()),
        // This process leads again: the client finds it with the next request.
        Asked::Here(request) => Ok(refused(request, route, ApiError::NotLeading).map_into_right_body()),
    }
}

/// Whether a request has no body.
fn is_empty(request: &ServiceRequest) -> bool {
    let headers = request.headers();
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    !headers.contains_key(TRANSFER_ENCODING) && length.is_none_or(|length| length == b"0")
}

enum Asked {
    Answered(ServiceResponse),
    Here(ServiceRequest),
}

async fn ask_leader(relay: &dyn Relay, request: ServiceRequest, route: &'static Route) -> Result<Asked, Error> {
    if relay.leads() {
        return Ok(Asked::Here(request));
    }
    let (head, mut payload) = request.into_parts();
    let body = web::Payload::from_request(&head, &mut payload).await?;
    Ok(match relay.pass(&head, body, route).await {
        Ok(Passed::Answered(answer)) => Asked::Answered(ServiceResponse::new(head, answer)),
        Ok(Passed::Here(body)) => Asked::Here(ServiceRequest::from_parts(head, body)),
        Err(error) => Asked::Answered(refused(ServiceRequest::from_parts(head, Payload::None), route, error)),
    })
}

/// The answer to an error, as a page if the route is one.
fn refused(request: ServiceRequest, route: &Route, error: ApiError) -> ServiceResponse {
    let Some(refusal) = route.refusal() else { return request.error_response(error) };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    request.into_response(refusal(error, &target))
}

fn is_not_leading<B>(response: &ServiceResponse<B>) -> bool {
    response.response().extensions().contains::<LeaderWanted>()
}

/// The body of a request from bytes in memory.
#[must_use]
pub fn payload_of(bytes: Bytes) -> Payload {
    let (_, mut payload) = actix_http::h1::Payload::create(true);
    payload.unread_data(bytes);
    payload.into()
}
