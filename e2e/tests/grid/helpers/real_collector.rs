//! Where `DIVVY_TEST_COLLECTOR` names an OpenTelemetry Collector, services send their spans to that one, and it passes on those
//! that it has understood.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::ops::Deref;
use std::process::Command;

use tempfile::TempDir;

use super::{Process, collector, eventually, own_address};

/// Variable that names an OpenTelemetry Collector with an OTLP receiver and the exporter `otlp_http`.
const REAL_COLLECTOR: &str = "DIVVY_TEST_COLLECTOR";

/// A receiver of spans, which a real collector may stand before.
#[derive(Debug)]
pub(crate) struct Collector {
    receiver: collector::Collector,
    _real: Option<(Process, TempDir)>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let mut receiver = collector::Collector::start();
        let Some(program) = env::var_os(REAL_COLLECTOR) else { return Self { receiver, _real: None } };
        let directory = TempDir::new().expect("a directory");
        let own = own_address().replace(":0", ":4318");
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{own}'}}}}}}}}\n\
             exporters: {{otlp_http: {{endpoint: '{}', compression: none, sending_queue: {{enabled: false}}}}}}\n\
             service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}}}\n",
            receiver.endpoint
        );
        let path = directory.path().join("collector.yaml");
        fs::write(&path, config).expect("room");
        let process = Process::spawn(Command::new(program).arg("--config").arg(&path));
        eventually("the collector listens", || TcpStream::connect(&own).ok());
        receiver.endpoint = format!("http://{own}");
        Self { receiver, _real: Some((process, directory)) }
    }
}

impl Deref for Collector {
    type Target = collector::Collector;

    fn deref(&self) -> &Self::Target {
        &self.receiver
    }
}
