//! What the coordinator counts, and the gauges that are read when they are asked for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::WorkerState;
use model::JobState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry as Metrics, Unit};

use crate::grid::Grid;
use crate::registry::Registry;

/// Why a worker is not registered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictionReason {
    Silent,
    Replaced,
    Left,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseOutcome {
    Completed,
    Failed,
    /// Its worker gave it up.
    Returned,
    /// Its job ended before it.
    Revoked,
    Expired,
    /// It was completed after its attempt had lost it.
    Refused,
}

impl LeaseOutcome {
    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Returned => "returned",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Refused => "refused",
        };
        OutcomeLabel { outcome }
    }
}

impl EvictionReason {
    fn label(self) -> ReasonLabel {
        let reason = match self {
            Self::Silent => "silent",
            Self::Replaced => "replaced",
            Self::Left => "left",
        };
        ReasonLabel { reason }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters of the grid.
#[derive(Clone, Debug)]
pub(crate) struct GridMetrics {
    leases: Family<OutcomeLabel, Counter>,
    lease_duration: Histogram,
    refused_outcomes: Counter,
    evictions: Family<ReasonLabel, Counter>,
}

impl GridMetrics {
    pub(crate) fn register(metrics: &mut Metrics, grid: Arc<Grid>, registry: Arc<Registry>) -> Self {
        let (leases, refused_outcomes, evictions) = (Family::default(), Counter::default(), Family::default());
        // 100 µs to about 28 minutes, by factors of four.
        let lease_duration = Histogram::new(exponential_buckets(1e-4, 4.0, 12));
        metrics.register("divvy_leases", "Leases by how they ended", leases.clone());
        let help = "Time from giving a lease out to its end";
        metrics.register_with_unit("divvy_lease_duration", help, Unit::Seconds, lease_duration.clone());
        let help = "Outcomes of attempts that held no lease any more";
        metrics.register("divvy_refused_outcomes", help, refused_outcomes.clone());
        metrics.register("divvy_evictions", "Workers removed, by reason", evictions.clone());
        metrics.register_collector(Box::new(Gauges { grid, registry }));
        Self { leases, lease_duration, refused_outcomes, evictions }
    }

    pub(crate) fn lease_ended(&self, outcome: LeaseOutcome, duration: Duration) {
        self.leases.get_or_create(&outcome.label()).inc();
        self.lease_duration.observe(duration.as_secs_f64());
        if outcome == LeaseOutcome::Refused {
            self.refused_outcomes.inc();
        }
    }

    pub(crate) fn evicted(&self, reason: EvictionReason) {
        self.evictions.get_or_create(&reason.label()).inc();
    }
}

#[derive(Debug)]
struct Gauges {
    grid: Arc<Grid>,
    registry: Arc<Registry>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let depth = ConstGauge::new(self.grid.counts().pending);
        let help = "Tasks that wait for a worker";
        depth.encode(encoder.encode_descriptor("divvy_queue_depth_tasks", help, None, depth.metric_type())?)?;
        let (jobs, _) = self.grid.jobs_and_leases();
        let gauge = ConstGauge::new(0i64);
        let mut family =
            encoder.encode_descriptor("divvy_jobs", "Jobs that are not over", None, gauge.metric_type())?;
        for state in JobState::ALL.into_iter().filter(|state| !state.is_over()) {
            let count = ConstGauge::new(jobs.get(state.as_str()).copied().unwrap_or_default());
            count.encode(family.encode_family(&[("state", state.as_str())])?)?;
        }
        let (backlog, failing) = self.grid.store_backlog();
        let (backlog, failing) = (ConstGauge::new(backlog), ConstGauge::new(i64::from(failing.is_some())));
        let help = "Changes that wait to be committed";
        backlog.encode(encoder.encode_descriptor(
            "divvy_store_backlog_changes",
            help,
            None,
            backlog.metric_type(),
        )?)?;
        let help = "Whether nothing can be stored at the moment";
        failing.encode(encoder.encode_descriptor("divvy_store_failing", help, None, failing.metric_type())?)?;
        let mut workers: HashMap<WorkerState, i64> = HashMap::new();
        for (_, registration) in self.registry.snapshot() {
            *workers.entry(registration.state()).or_default() += 1;
        }
        let gauge = ConstGauge::new(0i64);
        let mut family = encoder.encode_descriptor("divvy_workers", "Workers by state", None, gauge.metric_type())?;
        for (state, name) in
            [(WorkerState::Ready, "ready"), (WorkerState::Suspended, "suspended"), (WorkerState::Draining, "draining")]
        {
            let count = ConstGauge::new(workers.get(&state).copied().unwrap_or_default());
            count.encode(family.encode_family(&[("state", name)])?)?;
        }
        Ok(())
    }
}
