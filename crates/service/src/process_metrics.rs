//! Metrics of the process, under the names that Prometheus' own libraries give them.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Place of the times in `/proc/self/stat`, counted from the field after the program's name, which may contain anything.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;

/// Adds the metrics of this process and of its build.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessMetrics));
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("divvy_build", "The program's version", version);
}

/// Reads `/proc/self` when metrics are requested. Values that cannot be read are left out.
#[derive(Debug)]
struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut add = |name: &str, help: &str, metric: &dyn EncodeBoxed| metric.encode_as(&mut encoder, name, help);
        if let Some(times) = Times::read() {
            add("process_cpu_seconds", "CPU time spent, user and system", &ConstCounter::new(times.cpu_seconds))?;
            let help = "When the process started, in seconds since 1970";
            add("process_start_time_seconds", help, &ConstGauge::new(times.started_at_seconds))?;
        }
        if let Some(bytes) = resident_bytes() {
            add("process_resident_memory_bytes", "Memory that is resident", &ConstGauge::new(bytes))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = i64::try_from(open.count()).unwrap_or(i64::MAX);
            add("process_open_fds", "Open file descriptors", &ConstGauge::new(open))?;
        }
        // There is no value without a limit.
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            add("process_max_fds", "The most file descriptors that may be open", &ConstGauge::new(most))?;
        }
        Ok(())
    }
}

trait EncodeBoxed {
    fn encode_as(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result;
}

impl<M: EncodeMetric> EncodeBoxed for M {
    fn encode_as(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}

struct Times {
    cpu_seconds: f64,
    started_at_seconds: f64,
}

impl Times {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let seconds = |field: usize| Some(fields.get(field)?.parse::<f64>().ok()? / clock_ticks_per_second() as f64);
        let system = fs::read_to_string("/proc/stat").ok()?;
        let booted_at = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        Some(Self {
            cpu_seconds: seconds(USER_TICKS)? + seconds(SYSTEM_TICKS)?,
            started_at_seconds: booted_at + seconds(START_TICKS)?,
        })
    }
}

fn resident_bytes() -> Option<i64> {
    let pages: usize = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    i64::try_from(pages.saturating_mul(page_size())).ok()
}
