//! Metrics in the Prometheus text format, and the common metrics of HTTP listeners.

use std::sync::Arc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{Error, HttpResponse, Responder};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::routes::Matched;
use crate::trace::span_of_request;
use crate::{ApiError, process_metrics, resource};

/// Value of `code` for a request whose client disconnected before the answer.
const CLIENT_GONE: &str = "client-gone";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

/// The metrics of one service: the shared HTTP ones and what the service registers beside them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram>,
}

impl Metrics {
    /// Adds the metrics of the process and of HTTP to `registry`, which holds the service's own ones.
    #[must_use]
    pub fn new(mut registry: Registry) -> Self {
        process_metrics::register(&mut registry);
        let requests = Family::default();
        // 100 µs to about 28 minutes, by factors of four.
        let durations: Family<RouteLabel, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(1e-4, 4.0, 12)));
        registry.register("divvy_http_requests", "Requests by route and status code", requests.clone());
        let help = "Time from a request's head to the head of its answer";
        registry.register("divvy_http_request_duration_seconds", help, durations.clone());
        Self { registry: Arc::new(registry), requests, durations }
    }

    /// Adds `/metrics`.
    pub fn configure(&self, config: &mut ServiceConfig) {
        config.app_data(Data::new(self.clone())).service(resource("/metrics", "GET").get(show));
    }

    /// Creates the histogram of a route at zero, so that the first request is visible as a change.
    pub(crate) fn expect_route(&self, route: &str) {
        drop(self.durations.get_or_create(&RouteLabel { route: route.to_owned() }));
    }

    fn count(&self, route: String, code: String, started_at: Instant) {
        self.durations.get_or_create(&RouteLabel { route: route.clone() }).observe(started_at.elapsed().as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, code }).inc();
    }
}

async fn show(metrics: Data<Metrics>) -> Result<impl Responder, ApiError> {
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text))
}

/// Counts a request, also when its handler is dropped because the client disconnected.
struct Observation<'a> {
    metrics: &'a Metrics,
    route: String,
    code: String,
    started_at: Instant,
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        self.metrics.count(std::mem::take(&mut self.route), std::mem::take(&mut self.code), self.started_at);
    }
}

/// Middleware that counts and times requests. Routes are patterns, never paths: their number is bounded.
pub(crate) async fn observe(
    metrics: Data<Metrics>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let matched = Matched::of(&request);
    let route = matched.pattern.as_deref().unwrap_or("unmatched").to_owned();
    let mut observation =
        Observation { metrics: &metrics, route, code: CLIENT_GONE.to_owned(), started_at: Instant::now() };
    let answered = match span_of_request(&request, &matched) {
        None => next.call(request).await,
        Some(span) => span.around(next.call(request)).await,
    };
    let status = match &answered {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    observation.code = status.as_str().to_owned();
    answered
}
