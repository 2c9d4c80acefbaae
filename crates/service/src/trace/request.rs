//! The span of a request, and the headers that name it to another process.

use actix_web::Error;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use model::TraceContext;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::PIPELINE;
use crate::routes::{Matched, Route};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The headers that name a span, in lower case.
pub const HEADERS: [&str; 2] = [TRACEPARENT, TRACESTATE];

/// The span of a request; dropping it ends the span.
#[derive(Debug)]
pub(crate) struct RequestSpan {
    context: Context,
    is_answered: bool,
}

/// The headers that name a span to another process.
pub fn headers(context: &TraceContext) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let state = (!context.state.is_empty()).then(|| (TRACESTATE, context.state.clone()));
    std::iter::once((TRACEPARENT, context.traceparent())).chain(state)
}

/// The span that a request's headers name; `None` if they are absent or invalid.
fn parent_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT);
    let (parent, None) = (parents.next()?, parents.next()) else { return None };
    let states: Vec<_> = headers.get_all(TRACESTATE).filter_map(|state| state.to_str().ok()).collect();
    TraceContext::parse(parent.to_str().ok()?, &states.join(","))
}

/// The span of a request. `None` if traces are off, or if a request without a trace comes to a route that begins none.
pub(crate) fn span_of_request(request: &ServiceRequest, matched: &Matched) -> Option<RequestSpan> {
    let pipeline = PIPELINE.get()?;
    let parent = parent_of(request.headers());
    let (route, pattern) = (matched.route, matched.pattern.as_deref().unwrap_or_default());
    if parent.is_none() && !route.is_some_and(Route::begins_traces) {
        return None;
    }
    let method = method_of(request.method());
    let name = match (route, method) {
        (Some(_), method) => format!("{method} {pattern}"),
        // There are few names, whatever clients request.
        (None, "_OTHER") => "HTTP".to_owned(),
        (None, method) => method.to_owned(),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.path", request.path().to_owned()),
        KeyValue::new("url.scheme", request.connection_info().scheme().to_owned()),
    ];
    attributes.extend(route.map(|_| KeyValue::new("http.route", pattern.to_owned())));
    attributes.extend(request.peer_addr().map(|peer| KeyValue::new("client.address", peer.ip().to_string())));
    let span = pipeline.begin(name, attributes, parent.as_ref());
    Some(RequestSpan { context: Context::new().with_span(span), is_answered: false })
}

/// The name of a method; unknown methods have the name of the conventions.
fn method_of(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

impl RequestSpan {
    /// Runs the answering of the request within the span.
    pub(crate) async fn around<B>(
        mut self,
        answer: impl Future<Output = Result<ServiceResponse<B>, Error>>,
    ) -> Result<ServiceResponse<B>, Error> {
        let answered = answer.with_context(self.context.clone()).await;
        let status = match &answered {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        self.answered(status);
        answered
    }

    fn answered(&mut self, status: StatusCode) {
        self.is_answered = true;
        let span = self.context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let span = self.context.span();
        if !self.is_answered {
            // The client disconnected before the answer.
            span.set_attribute(KeyValue::new("error.type", "client-gone"));
        }
        span.end();
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_request_names_its_span_by_one_traceparent_and_any_number_of_tracestates() {
        let request = TestRequest::default()
            .insert_header(("traceparent", PARENT))
            .append_header(("tracestate", "a=1"))
            .append_header(("tracestate", "b=2"))
            .to_srv_request();
        let parent = parent_of(request.headers()).expect("named");
        assert_eq!(parent.state, "a=1,b=2");
        let headers: Vec<_> = headers(&parent).collect();
        assert_eq!(headers, [("traceparent", PARENT.to_owned()), ("tracestate", "a=1,b=2".to_owned())]);
        let twice = TestRequest::default().append_header(("traceparent", PARENT));
        let twice = twice.append_header(("traceparent", PARENT)).to_srv_request();
        assert_eq!(parent_of(twice.headers()), None);
        assert_eq!(parent_of(TestRequest::default().to_srv_request().headers()), None);
    }

    #[test]
    fn methods_that_are_not_known_have_one_name() {
        assert_eq!(method_of(&Method::GET), "GET");
        assert_eq!(method_of(&Method::from_bytes(b"BREW").expect("a method")), "_OTHER");
    }
}
