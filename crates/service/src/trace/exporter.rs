//! The way to the collector: a bounded queue, a thread that empties it in batches, and the HTTP client of that thread. A
//! collector that cannot be reached only costs the spans; the log has a line at the beginning and at the end of such a time.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use api::client::{ClientTls, http_client_with, read_bounded};
use async_trait::async_trait;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use prost::Message;
use reqwest::header::RETRY_AFTER;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use super::Pipeline;
use super::settings::Settings;

/// Bound on the time to connect to a collector.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest answer that is read: it may list the reasons why spans were refused.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Longest part of a collector's reason that is logged.
const MAX_REASON_CHARS: usize = 200;

/// The provider of the SDK, which reads sampler, limits and sizes of batches from the environment.
pub(super) fn pipeline(settings: Settings, version: &'static str) -> anyhow::Result<Pipeline> {
    let trouble = Trouble::default();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_timeout(settings.timeout)
        .with_http_client(Client::new(&settings, trouble.clone())?)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let room = Arc::new(Room::new(settings.queue_places));
    let reporting = Reporting {
        exporter,
        trouble,
        room: Arc::clone(&room),
        is_away: AtomicBool::new(false),
        has_overflowed: AtomicBool::new(false),
    };
    let batches = BatchConfigBuilder::default().with_max_queue_size(settings.queue_places).build();
    let mut queue = BatchSpanProcessor::builder(reporting).with_batch_config(batches).build();
    queue.set_resource(&settings.resource);
    let processor = Processor { queue: Arc::new(queue), room };
    let provider =
        SdkTracerProvider::builder().with_resource(settings.resource).with_span_processor(processor.clone()).build();
    let scope = InstrumentationScope::builder("divvy").with_version(version).build();
    Ok(Pipeline::new(provider, processor, scope))
}

/// The queue before the collector, which takes the spans of the SDK and those that other processes have begun.
#[derive(Clone, Debug)]
pub(super) struct Processor {
    queue: Arc<BatchSpanProcessor>,
    room: Arc<Room>,
}

impl SpanProcessor for Processor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.room.take() {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let dropped = self.room.dropped();
        if dropped > 0 {
            warn!(dropped, "spans were dropped because the queue was full");
        }
        self.queue.shutdown_with_timeout(timeout)
    }
}

/// Counts the places of the queue, since the SDK does not say which spans it drops when all are taken.
#[derive(Debug)]
struct Room {
    places: usize,
    taken: AtomicUsize,
    dropped: AtomicU64,
}

impl Room {
    fn new(places: usize) -> Self {
        Self { places, taken: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    }

    /// Takes a place for a span. Where none is free, counts the span as dropped.
    fn take(&self) -> bool {
        let has_place = self.taken.fetch_add(1, Ordering::Relaxed) < self.places;
        if !has_place {
            self.give_back(1);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        has_place
    }

    fn give_back(&self, places: usize) {
        self.taken.fetch_sub(places, Ordering::Relaxed);
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The cause why the last request failed, which the exporter's own error leaves out; none after a request that succeeded.
#[derive(Clone, Debug, Default)]
struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    fn set(&self, trouble: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Logs when the collector goes away and when it is back, and the first time that spans found the queue full.
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    trouble: Trouble,
    room: Arc<Room>,
    is_away: AtomicBool,
    has_overflowed: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.room.give_back(batch.len());
        let exported = self.exporter.export(batch).await;
        let dropped = self.room.dropped();
        if dropped > 0 && !self.has_overflowed.swap(true, Ordering::Relaxed) {
            warn!(dropped, "the queue of spans is full: further spans are dropped until the collector has taken some");
        }
        let error = self.trouble.take().or_else(|| exported.as_ref().err().map(ToString::to_string));
        let was_away = self.is_away.swap(error.is_some(), Ordering::Relaxed);
        match (&exported, error, was_away) {
            (Err(_), Some(error), false) => {
                warn!(error, "the collector does not take spans: they are dropped until it does");
            }
            (Ok(()), Some(error), false) => warn!(error, "the collector does not take every span"),
            (_, None, true) => info!("the collector takes spans again"),
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
    trouble: Trouble,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    fn new(settings: &Settings, trouble: Trouble) -> anyhow::Result<Self> {
        let own = ClientTls::from_env()?;
        // The certificate and the server's name of the environment are for the grid.
        let tls = ClientTls { ca_file: settings.ca_file.clone().or(own.ca_file), identity: None, server_name: None };
        let http = http_client_with(CONNECT_TIMEOUT, &tls, settings.endpoint.starts_with("https:"))?;
        Ok(Self { http, runtime: OnceLock::new(), timeout: settings.timeout, trouble })
    }

    async fn send(&self, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let mut request = reqwest::Request::try_from(request)?;
        *request.timeout_mut() = Some(self.timeout);
        // A query may hold a key, which must not be logged.
        let response = self.http.execute(request).await.map_err(reqwest::Error::without_url)?;
        let mut answer = Response::builder().status(response.status());
        // The exporter waits as long as an overloaded collector asks for.
        if let Some(wait) = response.headers().get(RETRY_AFTER) {
            answer = answer.header(RETRY_AFTER, wait.clone());
        }
        let is_taken = response.status().is_success();
        let body = read_bounded(response, MAX_ANSWER_BYTES).await?;
        self.trouble.set(if is_taken { refusal(&body) } else { None });
        Ok(answer.body(Bytes::from(body))?)
    }
}

/// The number of spans that the collector has refused and its reason, from its answer; none where it took all.
fn refusal(answer: &[u8]) -> Option<String> {
    let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
    let reason: String = partial.error_message.chars().take(MAX_REASON_CHARS).collect();
    (partial.rejected_spans > 0).then(|| format!("{} spans of a batch are refused: {reason}", partial.rejected_spans))
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
        runtime.block_on(self.send(request)).map_err(|error| {
            self.trouble.set(Some(format!("{error:#}")));
            error.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use futures_util::FutureExt;

    use super::*;

    const BATCH: &[u8] = b"spans";

    /// A client, and the answer that it gets to one request from a collector that writes `answer` and hangs up.
    fn ask(answer: &'static [u8]) -> (Client, Result<Response<Bytes>, HttpError>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}/v1/traces?key=hush", listener.local_addr().expect("bound"));
        let collector = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut request, mut part) = (Vec::new(), [0; 1024]);
            while !request.ends_with(BATCH) {
                let length = stream.read(&mut part).expect("a request");
                assert_ne!(length, 0, "the request is cut off");
                request.extend_from_slice(&part[..length]);
            }
            stream.write_all(answer).expect("the client listens");
        });
        let settings = Settings {
            endpoint,
            resource: Resource::builder_empty().build(),
            timeout: Duration::from_mins(1),
            queue_places: 1,
            ca_file: None,
        };
        let client = Client::new(&settings, Trouble::default()).expect("a client");
        let request = Request::post(&settings.endpoint).body(Bytes::from_static(BATCH)).expect("valid");
        let answer = client.send_bytes(request).now_or_never().expect("it waits for the answer");
        collector.join().expect("the collector was asked");
        (client, answer)
    }

    #[test]
    fn spans_that_find_no_place_are_counted_and_a_batch_makes_room() {
        let room = Room::new(2);
        assert_eq!([room.take(), room.take(), room.take(), room.take()], [true, true, false, false]);
        room.give_back(1);
        assert_eq!([room.take(), room.take()], [true, false]);
        assert_eq!(room.dropped(), 3);
    }

    #[test]
    fn exporter_learns_how_long_the_collector_wants_to_be_left_alone() {
        let (_, answer) = ask(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n");
        let answer = answer.expect("an answer");
        assert_eq!(answer.status().as_u16(), 503);
        assert_eq!(answer.headers()[RETRY_AFTER], "7");
    }

    #[test]
    fn refused_spans_of_a_batch_that_is_taken_are_told_with_the_reason() {
        // partial_success { rejected_spans: 3, error_message: "oops" }
        let (client, answer) = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n\x0a\x08\x08\x03\x12\x04oops");
        assert_eq!(answer.expect("an answer").status().as_u16(), 200);
        assert_eq!(client.trouble.take().as_deref(), Some("3 spans of a batch are refused: oops"));
        for whole in [&b""[..], b"\x0a\x00", b"not protobuf"] {
            assert_eq!(refusal(whole), None);
        }
    }

    #[test]
    fn cause_of_a_failed_request_is_kept_without_its_url() {
        let (client, answer) = ask(b"garbage");
        assert!(answer.is_err(), "{answer:?}");
        let cause = client.trouble.take().expect("a cause");
        assert!(cause.starts_with("error sending request: ") && !cause.contains("hush"), "{cause}");
    }
}
