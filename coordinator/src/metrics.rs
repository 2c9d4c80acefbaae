//! The coordinator's counters, and the gauges that are read when the metrics are collected.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry as Metrics, Unit};

use scheduler::{Demand, JobCounts};
use store::Store;

use crate::disk::Disk;
use crate::event_hub::EventHub;
use crate::role::Role;
use crate::term::Term;
use crate::workers::Workers;

/// The reason why a worker is no longer registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictionReason {
    Silent,
    Replaced,
    Left,
}

/// The result of a request that was passed on to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Answered,
    /// The leader went away, and the next one is asked.
    AskedAgain,
    /// No leader answered in time.
    Failed,
}

impl Forwarded {
    const ALL: [Self; 3] = [Self::Answered, Self::AskedAgain, Self::Failed];

    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Answered => "answered",
            Self::AskedAgain => "asked-again",
            Self::Failed => "failed",
        };
        OutcomeLabel { outcome }
    }
}

/// The result of asking the API server of Kubernetes about a worker's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reviewed {
    Accepted,
    Refused,
    /// The API server could not be asked.
    Failed,
}

impl Reviewed {
    const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Failed];

    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        };
        OutcomeLabel { outcome }
    }
}

/// The end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Completed,
    Failed,
    /// The worker gave the lease up.
    Returned,
    /// The job ended before the lease.
    Revoked,
    Expired,
    /// The outcome arrived after the attempt had lost the lease.
    Refused,
    /// The connection broke, and the worker goes on without it.
    Disconnected,
}

impl LeaseEnd {
    const ALL: [Self; 7] = [
        Self::Completed,
        Self::Failed,
        Self::Returned,
        Self::Revoked,
        Self::Expired,
        Self::Refused,
        Self::Disconnected,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Returned => "returned",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Disconnected => "disconnected",
        }
    }

    fn label(self) -> OutcomeLabel {
        OutcomeLabel { outcome: self.as_str() }
    }
}

impl EvictionReason {
    const ALL: [Self; 3] = [Self::Silent, Self::Replaced, Self::Left];

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
pub(crate) struct CoordinatorMetrics {
    leases: Family<OutcomeLabel, Counter>,
    lease_duration: Histogram,
    refused_outcomes: Counter,
    evictions: Family<ReasonLabel, Counter>,
    forwarded: Family<OutcomeLabel, Counter>,
    takeovers: Counter,
    output_bytes: Counter,
    reviews: Family<OutcomeLabel, Counter>,
}

impl CoordinatorMetrics {
    pub(crate) fn register(metrics: &mut Metrics, gauges: Gauges) -> Self {
        let (leases, refused_outcomes, evictions) = (Family::default(), Counter::default(), Family::default());
        // 100 µs to about 28 minutes, by factors of four.
        let lease_duration = Histogram::new(exponential_buckets(1e-4, 4.0, 12));
        metrics.register("divvy_leases", "Leases sent to workers, by how they ended", leases.clone());
        let help = "Time from sending a lease to its end";
        metrics.register_with_unit("divvy_lease_duration", help, Unit::Seconds, lease_duration.clone());
        let help = "Outcomes of attempts that held no lease any more";
        metrics.register("divvy_refused_outcomes", help, refused_outcomes.clone());
        metrics.register("divvy_evictions", "Workers removed, by reason", evictions.clone());
        let (forwarded, takeovers) = (Family::default(), Counter::default());
        let help = "Requests that were passed on to the leader, by outcome";
        metrics.register("divvy_forwarded_requests", help, forwarded.clone());
        metrics.register("divvy_takeovers", "Terms that this coordinator has begun", takeovers.clone());
        let (help, output_bytes) = ("Length of the outputs that workers have handed in as objects", Counter::default());
        metrics.register_with_unit("divvy_handed_in_outputs", help, Unit::Bytes, output_bytes.clone());
        let reviews = Family::default();
        let help = "Questions to the API server of Kubernetes about workers' tokens, by outcome";
        metrics.register("divvy_token_reviews", help, reviews.clone());
        metrics.register_collector(Box::new(gauges));
        // A label set that is known starts at zero, so that its first increase shows.
        LeaseEnd::ALL.iter().for_each(|end| drop(leases.get_or_create(&end.label())));
        EvictionReason::ALL.iter().for_each(|reason| drop(evictions.get_or_create(&reason.label())));
        Forwarded::ALL.iter().for_each(|outcome| drop(forwarded.get_or_create(&outcome.label())));
        Reviewed::ALL.iter().for_each(|outcome| drop(reviews.get_or_create(&outcome.label())));
        Self { leases, lease_duration, refused_outcomes, evictions, forwarded, takeovers, output_bytes, reviews }
    }

    pub(crate) fn lease_ended(&self, end: LeaseEnd, duration: Duration) {
        self.leases.get_or_create(&end.label()).inc();
        self.lease_duration.observe(duration.as_secs_f64());
        if end == LeaseEnd::Refused {
            self.refused_outcomes.inc();
        }
    }

    pub(crate) fn forwarded(&self, outcome: Forwarded) {
        self.forwarded.get_or_create(&outcome.label()).inc();
    }

    pub(crate) fn reviewed(&self, outcome: Reviewed) {
        self.reviews.get_or_create(&outcome.label()).inc();
    }

    pub(crate) fn took_over(&self) {
        self.takeovers.inc();
    }

    pub(crate) fn output_handed_in(&self, bytes: u64) {
        self.output_bytes.inc_by(bytes);
    }

    pub(crate) fn evicted(&self, reason: EvictionReason) {
        self.evictions.get_or_create(&reason.label()).inc();
    }
}

/// The figures that are read when the metrics are collected.
#[derive(Debug)]
pub(crate) struct Gauges {
    role: Arc<Role>,
    workers: Arc<Workers>,
    events: Arc<EventHub>,
    disk: Arc<Disk>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let term = self.role.term();
        let term = term.as_deref();
        encode_demand(&mut encoder, term)?;
        encode_store(&mut encoder, term)?;
        self.encode_disk(&mut encoder)?;
        self.encode_workers(&mut encoder, term)?;
        let help = "Event streams and clients that wait for a job";
        gauge(&mut encoder, "divvy_event_subscriptions", help, self.events.len() as u64)?;
        let help = "Whether this coordinator leads";
        gauge(&mut encoder, "divvy_leader", help, u64::from(term.is_some()))?;
        let help = "The epoch of the term that this coordinator leads; 0 while it does not";
        gauge(&mut encoder, "divvy_epoch", help, term.map_or(0, |term| term.epoch))
    }
}

impl Gauges {
    pub(crate) fn new(role: &Arc<Role>, workers: &Arc<Workers>, events: &Arc<EventHub>, disk: &Arc<Disk>) -> Self {
        Self {
            role: Arc::clone(role),
            workers: Arc::clone(workers),
            events: Arc::clone(events),
            disk: Arc::clone(disk),
        }
    }

    /// Left out where nothing is known: 0 would look like a full disk.
    fn encode_disk(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(space) = self.disk.space() else { return Ok(()) };
        let help = "Free space of the file system of the data directory";
        gauge(encoder, "divvy_disk_free_bytes", help, space.free_bytes)?;
        gauge(encoder, "divvy_disk_size_bytes", "Size of the file system of the data directory", space.total_bytes)
    }

    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>, term: Option<&Term>) -> Result<(), fmt::Error> {
        let states = term.map(|_| self.workers.states()).unwrap_or_default();
        let states = [
            ("ready", states.ready),
            ("suspended", states.suspended),
            ("draining", states.draining + term.map_or(0, |term| term.pull_workers.draining())),
            ("pulling", term.map_or(0, |term| term.pull_workers.asking())),
        ];
        gauges(encoder, "divvy_workers", "Workers by state", states.map(|(state, count)| ([("state", state)], count)))
    }
}

/// Jobs, tasks and slots. Only the leader has them, so that the sum over all coordinators counts each once.
fn encode_demand(encoder: &mut DescriptorEncoder<'_>, term: Option<&Term>) -> Result<(), fmt::Error> {
    let kinds = || workloads::KINDS.iter().map(|kind| kind.name());
    let (demands, jobs, wanted_slots) = match term {
        Some(term) => term.driver.view(|engine| {
            let demands: Vec<_> = kinds().map(|kind| (kind, engine.demand(kind))).collect();
            (demands, engine.job_counts(), engine.wanted_slots())
        }),
        None => (kinds().map(|kind| (kind, Demand::default())).collect(), JobCounts::default(), 0),
    };
    let help = "Tasks that a worker could run and that wait for a slot";
    gauge(encoder, "divvy_queue_depth_tasks", help, demands.iter().map(|(_, demand)| demand.runnable).sum())?;
    let help = "Slots that pending and running work could use now";
    gauge(encoder, "divvy_wanted_slots", help, wanted_slots)?;
    // Only workers that pull run the kind `tasks`: an autoscaler of other workers leaves it out.
    let help = "Slots that pending and running work could use now, by kind";
    let slots = demands.iter().map(|(kind, demand)| ([("kind", kind.as_str())], demand.wanted_slots));
    gauges(encoder, "divvy_wanted_slots_by_kind", help, slots)?;
    let tasks = demands.iter().flat_map(|(kind, demand)| {
        let reasons = [("slot", demand.runnable), ("resumption", demand.paused), ("worker", demand.unservable)];
        reasons.map(|(reason, count)| ([("kind", kind.as_str()), ("waits_for", reason)], count))
    });
    gauges(encoder, "divvy_waiting_tasks", "Tasks that wait, by kind and by what they wait for", tasks)?;
    let states = [("queued", jobs.queued), ("running", jobs.running), ("paused", jobs.paused)];
    gauges(encoder, "divvy_jobs", "Jobs that are not over", states.map(|(state, count)| ([("state", state)], count)))
}

fn encode_store(encoder: &mut DescriptorEncoder<'_>, term: Option<&Term>) -> Result<(), fmt::Error> {
    let of_store = |figure: fn(&Store) -> u64| term.map_or(0, |term| figure(&term.store));
    let help = "Changes that wait to be committed";
    gauge(encoder, "divvy_store_backlog_changes", help, of_store(Store::backlog))?;
    let help = "Length of the store's write-ahead log, which a reader that does not end keeps from shrinking";
    gauge(encoder, "divvy_store_log_bytes", help, of_store(Store::log_bytes))?;
    let is_failing = term.is_some_and(|term| {
        term.store.is_failing().is_some() || term.driver.view(|engine| engine.composing_error().is_some())
    });
    gauge(encoder, "divvy_store_failing", "Whether something cannot be stored", u64::from(is_failing))?;
    let help = "Stored jobs that this version cannot read and that wait for one that can";
    gauge(encoder, "divvy_unreadable_jobs", help, of_store(|store| store.unreadable().jobs()))
}

/// A gauge for each set of labels.
fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'static str, &'a str); N], u64)>,
) -> Result<(), fmt::Error> {
    let kind = ConstGauge::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
