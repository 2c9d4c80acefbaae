//! The worker's metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::executor::Executor;
use crate::held::{HeldLeases, Sizes};
use crate::presence::Presence;

/// The end of a lease as this worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Completed,
    Failed,
    /// The coordinator closed the connection, or settled or revoked the lease.
    Canceled,
    /// Refused or given up because the worker drains, has no room, or is another run than was meant.
    Returned,
}

impl LeaseEnd {
    const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Canceled, Self::Returned];

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
    orphaned: Counter,
    refused_epochs: Counter,
}

impl WorkerMetrics {
    pub(crate) fn register(registry: &mut Registry, slots: u32, executor: Arc<Executor>) -> Self {
        let leases = Family::<OutcomeLabel, Counter>::default();
        // A label set that is known starts at zero, so that its first increase shows.
        LeaseEnd::ALL.iter().for_each(|end| drop(leases.get_or_create(&end.label())));
        registry.register("divvy_worker_leases", "Leases by how they ended", leases.clone());
        // 100 µs to about 28 minutes, by factors of four.
        let compute = Histogram::new(exponential_buckets(1e-4, 4.0, 12));
        let help = "Computing time of completed leases";
        registry.register_with_unit("divvy_worker_compute", help, Unit::Seconds, compute.clone());
        let orphaned = Counter::default();
        let help = "Leases of stored jobs given up because no coordinator took heartbeats";
        registry.register("divvy_worker_orphaned_leases", help, orphaned.clone());
        let refused_epochs = Counter::default();
        let help = "Requests refused because their coordinator's epoch was not the highest";
        registry.register("divvy_worker_refused_epochs", help, refused_epochs.clone());
        registry.register("divvy_worker_slots", "Leases computed at the same time", ConstGauge::new(i64::from(slots)));
        registry.register_collector(Box::new(Running(executor)));
        Self { leases, compute, orphaned, refused_epochs }
    }

    pub(crate) fn orphaned(&self, leases: usize) {
        self.orphaned.inc_by(leases as u64);
    }

    pub(crate) fn epoch_refused(&self) {
        self.refused_epochs.inc();
    }

    /// Observes a lease, which counts as canceled unless another end is noted.
    pub(crate) fn lease(&self) -> LeaseObservation {
        LeaseObservation { metrics: self.clone(), end: LeaseEnd::Canceled }
    }

    pub(crate) fn computed(&self, busy: Duration) {
        self.compute.observe(busy.as_secs_f64());
    }
}

#[derive(Debug)]
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

/// Registers the gauges of the held leases and of the coordinators that accept heartbeats.
pub(crate) fn register_held(registry: &mut Registry, held: Arc<HeldLeases>, presence: Arc<Presence>) {
    registry.register_collector(Box::new(HeldCollector { held, presence }));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug)]
struct HeldCollector {
    held: Arc<HeldLeases>,
    presence: Arc<Presence>,
}

impl Collector for HeldCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Sizes { running, finished, bytes } = self.held.sizes();
        let leases = Family::<StateLabel, Gauge>::default();
        leases.get_or_create(&StateLabel { state: "running" }).set(gauge_value(running));
        leases.get_or_create(&StateLabel { state: "finished" }).set(gauge_value(finished));
        let help = "Leases of stored jobs: computing or waiting for a slot, and those whose outcome is kept";
        leases.encode(encoder.encode_descriptor("divvy_worker_held_leases", help, None, leases.metric_type())?)?;
        let bytes = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        let help = "Memory that kept outcomes take";
        bytes.encode(encoder.encode_descriptor("divvy_worker_held_bytes", help, None, bytes.metric_type())?)?;
        let takers = ConstGauge::new(gauge_value(self.presence.takers()));
        let help = "Coordinators that take heartbeats";
        takers.encode(encoder.encode_descriptor("divvy_worker_coordinators", help, None, takers.metric_type())?)
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
