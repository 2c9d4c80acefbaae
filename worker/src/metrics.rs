//! What the worker counts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::executor::Executor;

/// How a lease ended, as far as this worker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Completed,
    Failed,
    /// The coordinator closed the connection.
    Canceled,
    /// Refused or given up because the worker drains, has no room, or is another run than was meant.
    Returned,
}

impl LeaseEnd {
    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Returned => "returned",
        };
        OutcomeLabel { outcome }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct WorkerMetrics {
    leases: Family<OutcomeLabel, Counter>,
    compute: Histogram,
}

impl WorkerMetrics {
    pub(crate) fn register(registry: &mut Registry, slots: u32, executor: Arc<Executor>) -> Self {
        let leases = Family::default();
        registry.register("divvy_worker_leases", "Leases by how they ended", leases.clone());
        // 100 µs to about 28 minutes, by factors of four.
        let compute = Histogram::new(exponential_buckets(1e-4, 4.0, 12));
        let help = "Computing time of completed leases";
        registry.register_with_unit("divvy_worker_compute", help, Unit::Seconds, compute.clone());
        registry.register("divvy_worker_slots", "Leases computed at the same time", ConstGauge::new(i64::from(slots)));
        registry.register_collector(Box::new(Running(executor)));
        Self { leases, compute }
    }

    /// Counts a lease as canceled unless its end is told.
    pub(crate) fn lease(&self) -> LeaseObservation {
        LeaseObservation { metrics: self.clone(), end: LeaseEnd::Canceled }
    }

    pub(crate) fn computed(&self, busy: Duration) {
        self.compute.observe(busy.as_secs_f64());
    }
}

pub(crate) struct LeaseObservation {
    metrics: WorkerMetrics,
    end: LeaseEnd,
}

impl LeaseObservation {
    pub(crate) fn end(mut self, end: LeaseEnd) {
        self.end = end;
    }
}

impl Drop for LeaseObservation {
    fn drop(&mut self) {
        self.metrics.leases.get_or_create(&self.end.label()).inc();
    }
}

#[derive(Debug)]
struct Running(Arc<Executor>);

impl Collector for Running {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let running = ConstGauge::new(i64::from(self.0.running()));
        let help = "Slots that compute now";
        running.encode(encoder.encode_descriptor("divvy_worker_running_slots", help, None, running.metric_type())?)
    }
}
