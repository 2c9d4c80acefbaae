//! The way to the collector: a bounded queue, a thread that empties it in batches, and the HTTP client of that thread. A
//! collector that cannot be reached only costs the spans; the log has a line at the beginning and at the end of such a time.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use api::client::{ClientTls, http_client_with, read_bounded};
use async_trait::async_trait;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use super::Pipeline;
use super::settings::Settings;

/// Bound on the time to connect to a collector.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest answer that is read: it may list the reasons why spans were refused.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The provider of the SDK, which reads sampler, limits and sizes of batches from the environment.
pub(super) fn pipeline(settings: Settings, version: &'static str) -> anyhow::Result<Pipeline> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_timeout(settings.timeout)
        .with_http_client(Client::new(&settings)?)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let mut processor = BatchSpanProcessor::builder(Reporting { exporter, is_away: AtomicBool::new(false) }).build();
    processor.set_resource(&settings.resource);
    let processor = Processor(Arc::new(processor));
    let provider =
        SdkTracerProvider::builder().with_resource(settings.resource).with_span_processor(processor.clone()).build();
    let scope = InstrumentationScope::builder("divvy").with_version(version).build();
    Ok(Pipeline::new(provider, processor, scope))
}

/// The queue before the collector, which takes the spans of the SDK and those that other processes have begun.
#[derive(Clone, Debug)]
pub(super) struct Processor(Arc<BatchSpanProcessor>);

impl SpanProcessor for Processor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
}

/// Logs when the collector goes away and when it is back.
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    is_away: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        match (&exported, self.is_away.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => warn!(%error, "the collector does not take spans: they are dropped until it does"),
            (Ok(()), true) => info!("the collector takes spans again"),
            _ => (),
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The HTTP client of the queue's thread, with a runtime of its own: that of the service is not to wait for a collector.
struct Client {
    http: reqwest::Client,
    /// Runtime that is made and dropped on the queue's thread.
    runtime: OnceLock<Runtime>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let own = ClientTls::from_env()?;
        // The certificate and the server's name of the environment are for the grid.
        let tls = ClientTls { ca_file: settings.ca_file.clone().or(own.ca_file), identity: None, server_name: None };
        let http = http_client_with(CONNECT_TIMEOUT, &tls, settings.endpoint.starts_with("https:"))?;
        Ok(Self { http, runtime: OnceLock::new(), timeout: settings.timeout })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = reqwest::Request::try_from(request)?;
        *request.timeout_mut() = Some(self.timeout);
        // A query may hold a key, which must not be logged.
        let response = self.http.execute(request).await.map_err(reqwest::Error::without_url)?;
        let status = response.status().as_u16();
        let body = read_bounded(response, MAX_ANSWER_BYTES).await?;
        Ok(Response::builder().status(status).body(Bytes::from(body))?)
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Called on the queue's thread, which runs nothing else.
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                self.runtime.get_or_init(|| runtime)
            }
        };
        runtime.block_on(self.send(request))
    }
}
