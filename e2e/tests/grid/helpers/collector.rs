//! A receiver of OTLP over HTTP that keeps the spans, read by the messages that OpenTelemetry publishes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::eventually;

/// The longest batch that is read.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// A receiver of spans.
#[derive(Debug)]
pub(crate) struct Collector {
    /// The address to which services send spans.
    pub(crate) endpoint: String,
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
}

/// A span as it came, its ids as `traceparent` writes them.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedSpan {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first span of a trace.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) kind: i32,
    /// Start and end in nanoseconds since 1970.
    pub(crate) times: (u64, u64),
    pub(crate) is_error: bool,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let spans: Arc<Mutex<Vec<ReceivedSpan>>> = Arc::default();
        let received = Arc::clone(&spans);
        // Ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let received = Arc::clone(&received);
                thread::spawn(move || while receive(&stream, &received).is_some() {});
            }
        });
        Self { endpoint: format!("http://{address}"), spans }
    }

    /// The variables of a service that sends here, each span at once.
    pub(crate) fn variables(&self) -> [(&str, &str); 2] {
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")]
    }

    /// The received spans of a trace, by their start.
    pub(crate) fn spans_of(&self, trace: &str) -> Vec<ReceivedSpan> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace == trace);
        spans.sort_by_key(|span| span.times);
        spans
    }

    /// All received spans.
    pub(crate) fn spans(&self) -> Vec<ReceivedSpan> {
        self.spans.lock().expect("no panic").clone()
    }

    /// Waits for a span of a trace by its name.
    pub(crate) fn wait_for(&self, trace: &str, name: &str) -> ReceivedSpan {
        let find = || self.spans_of(trace).into_iter().find(|span| span.name == name);
        eventually(&format!("the span {name:?} of {trace} comes"), find)
    }
}

/// Reads one request; none at the end of the connection.
fn receive(stream: &TcpStream, received: &Mutex<Vec<ReceivedSpan>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut target) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let text = line.trim_end().to_ascii_lowercase();
        if target.is_empty() {
            target.clone_from(&text);
        } else if text.is_empty() {
            break;
        } else if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    assert!(target.starts_with("post /v1/traces ") && length <= MAX_BATCH_BYTES, "{target} with {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let batch = ExportTraceServiceRequest::decode(body.as_slice()).expect("a batch of spans");
    let mut spans = received.lock().expect("no panic");
    for resource in batch.resource_spans {
        let attributes = attributes(&resource.resource.unwrap_or_default().attributes);
        let service = attributes.get("service.name").cloned().unwrap_or_default();
        let of_resource = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_resource.map(|span| ReceivedSpan::new(service.clone(), span)));
    }
    drop(spans);
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    (&mut &*stream).write_all(answer.as_bytes()).ok()
}

impl ReceivedSpan {
    fn new(service: String, span: Span) -> Self {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self {
            service,
            attributes: attributes(&span.attributes),
            name: span.name,
            trace: hexadecimal(&span.trace_id),
            id: hexadecimal(&span.span_id),
            parent: hexadecimal(&span.parent_span_id),
            state: span.trace_state,
            kind: span.kind,
            times: (span.start_time_unix_nano, span.end_time_unix_nano),
            // STATUS_CODE_ERROR
            is_error: span.status.is_some_and(|status| status.code == 2),
        }
    }

    /// An attribute, which must be there.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(&attribute.value))).collect()
}
