//! Spans for a collector of OpenTelemetry. Off, and free but for one look at a flag, unless `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set.
//!
//! Two sorts of span: that of a request is made when its head is here and is active while its handler runs; those of jobs,
//! leases and computations are written when they end, by whichever process sees the end, under ids that
//! [`TraceContext::span_of`] finds from the job's or the attempt's own id. So a span outlives the process that began it, and
//! nothing is kept for spans that are open.
//!
//! The spans of the crate `tracing` are not used: they are made also if only logs are wanted, and a span that began in a process
//! that is gone cannot be ended.

mod exporter;
mod log;
mod request;
mod settings;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::Either;
use model::TraceContext;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use tracing::{info, warn};

use exporter::Processor;

pub(crate) use log::WithTrace;
pub(crate) use request::span_of_request;
pub use request::{HEADERS, headers};

/// Bound on the time to send the last spans of a process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The pipeline of spans, if there is a collector.
#[derive(Debug)]
struct Pipeline {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    processor: Processor,
    scope: InstrumentationScope,
}

static PIPELINE: OnceLock<Pipeline> = OnceLock::new();

/// Starts to send spans, if the environment names a collector. `service` is the default of the service's name. Errors of the
/// environment are logged and leave traces off: the variables may be meant for another program.
pub fn start(service: &'static str, version: &'static str) {
    if is_on() {
        return;
    }
    let settings = match settings::Settings::from_env(service, version) {
        Ok(Some(settings)) => settings,
        Ok(None) => return,
        Err(error) => return warn!(error = format!("{error:#}"), "no traces are sent"),
    };
    // A query may hold a key.
    let endpoint = settings.endpoint.split('?').next().unwrap_or_default().to_owned();
    match exporter::pipeline(settings, version) {
        Ok(pipeline) => {
            // The first pipeline of the process stays.
            if PIPELINE.set(pipeline).is_ok() {
                info!(%endpoint, "sending traces");
            }
        }
        Err(error) => warn!(error = format!("{error:#}"), "no traces are sent"),
    }
}

/// Sends the spans that wait, for a bounded time. Spans that end later are dropped.
pub async fn stop() {
    let Some(pipeline) = PIPELINE.get() else { return };
    let shutdown = tokio::task::spawn_blocking(|| pipeline.provider.shutdown_with_timeout(FLUSH_TIMEOUT));
    match tokio::time::timeout(FLUSH_TIMEOUT * 2, shutdown).await {
        Ok(Ok(Ok(()))) => (),
        Ok(Ok(Err(error))) => warn!(%error, "the last spans may not have been sent"),
        Ok(Err(_)) | Err(_) => warn!("the last spans may not have been sent"),
    }
}

/// Whether spans are sent.
#[must_use]
pub fn is_on() -> bool {
    PIPELINE.get().is_some()
}

/// The active span. None outside of a request that has one, and where traces are off.
#[must_use]
pub fn current() -> Option<TraceContext> {
    if !is_on() {
        return None;
    }
    Context::map_current(|context| {
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| TraceContext {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            is_sampled: context.is_sampled(),
            state: context.trace_state().header(),
        })
    })
}

/// The future with the span that is active now, for a task of its own.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    if is_on() { Either::Left(future.with_current_context()) } else { Either::Right(future) }
}

/// Role of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request to another process that waits for its answer.
    Client,
    /// An action within a process.
    Internal,
    /// The handling of a broker's message.
    Consumer,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number; a number above the range of `i64` is sent as its largest value.
    Number(u64),
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    /// Name of the span; there are few different names.
    pub name: String,
    /// Role of the span.
    pub kind: Kind,
    /// The parent span, which also decides whether this span is recorded.
    pub parent: &'a TraceContext,
    /// Id of the span, if other processes may have named it already; otherwise a new id is made.
    pub span_id: Option<u64>,
    /// Start of the span.
    pub started_at: SystemTime,
    /// End of the span.
    pub ended_at: SystemTime,
    /// Further attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Error of a span that failed.
    pub error: Option<String>,
}

impl Ended<'_> {
    /// Sends the span, if its trace is recorded and traces are on. Never waits.
    pub fn send(self) {
        let Some(pipeline) = PIPELINE.get().filter(|_| self.parent.is_sampled) else { return };
        let span_id = self.span_id.map_or_else(|| RandomIdGenerator::default().new_span_id(), SpanId::from);
        let parent = span_context(self.parent);
        let (flags, state) = (parent.trace_flags(), parent.trace_state().clone());
        pipeline.processor.on_end(SpanData {
            span_context: SpanContext::new(parent.trace_id(), span_id, flags, false, state),
            parent_span_id: parent.span_id(),
            parent_span_is_remote: true,
            span_kind: match self.kind {
                Kind::Client => SpanKind::Client,
                Kind::Internal => SpanKind::Internal,
                Kind::Consumer => SpanKind::Consumer,
            },
            name: self.name.into(),
            start_time: self.started_at.min(self.ended_at),
            end_time: self.ended_at,
            attributes: self.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: pipeline.scope.clone(),
        });
    }
}

impl From<Value> for opentelemetry::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::String(text.into()),
            Value::Number(number) => Self::I64(i64::try_from(number).unwrap_or(i64::MAX)),
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// An instant by the calendar.
#[must_use]
pub fn calendar(instant: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(instant.elapsed()).unwrap_or(now)
}

/// The span of another process. An invalid `tracestate` is dropped.
fn span_context(context: &TraceContext) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(context.is_sampled);
    let state: TraceState = context.state.parse().unwrap_or_default();
    SpanContext::new(TraceId::from(context.trace_id), SpanId::from(context.span_id), flags, true, state)
}

impl Pipeline {
    fn new(provider: SdkTracerProvider, processor: Processor, scope: InstrumentationScope) -> Self {
        let tracer = provider.tracer_with_scope(scope.clone());
        Self { provider, tracer, processor, scope }
    }

    /// A span of a request that is answered here, below `parent`.
    fn begin(
        &self,
        name: String,
        attributes: Vec<KeyValue>,
        parent: Option<&TraceContext>,
    ) -> opentelemetry_sdk::trace::Span {
        let context =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(span_context(parent)));
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        self.tracer.build_with_context(builder, &context)
    }
}
