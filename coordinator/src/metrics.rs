//! What the coordinator counts, and the gauges that are read when they are asked for.

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

use crate::event_hub::EventHub;
use crate::role::Role;
use crate::workers::Workers;

/// Why a worker is not registered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictionReason {
    Silent,
    Replaced,
    Left,
}

/// What became of a request that was passed on to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Answered,
    /// The leader went away, and the next one is asked.
    AskedAgain,
    /// No leader has answered in time.
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

/// What the API server of Kubernetes said of a worker's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reviewed {
    Accepted,
    Refused,
    /// It could not be asked.
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

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Completed,
    Failed,
    /// Its worker gave it up.
    Returned,
    /// Its job ended before it.
    Revoked,
    Expired,
    /// It was completed after its attempt had lost it.
    Refused,
    /// Its connection broke, and the worker goes on without it.
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

/// Figures that are read when they are asked for.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) role: Arc<Role>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) events: Arc<EventHub>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let term = self.role.term();
        let kinds = || workloads::KINDS.iter().map(|kind| kind.name());
        // Figures of the grid are the leader's: those of all coordinators add up.
        let (demands, jobs, wanted_slots) = match &term {
            Some(term) => term.driver.view(|engine| {
                let demands: Vec<_> = kinds().map(|kind| (kind, engine.demand(kind))).collect();
                (demands, engine.job_counts(), engine.wanted_slots())
            }),
            None => (kinds().map(|kind| (kind, Demand::default())).collect(), JobCounts::default(), 0),
        };
        let runnable = demands.iter().map(|(_, demand)| demand.runnable).sum();
        gauge(
            &mut encoder,
            "divvy_queue_depth_tasks",
            "Tasks that a worker could run and that wait for a slot",
            runnable,
        )?;
        let help = "Slots that pending and running work could use now";
        gauge(&mut encoder, "divvy_wanted_slots", help, wanted_slots)?;
        // Only workers that pull run the kind `tasks`: an autoscaler of other workers leaves it out.
        let (help, zero) = ("Slots that pending and running work could use now, by kind", ConstGauge::new(0_u64));
        let mut slots = encoder.encode_descriptor("divvy_wanted_slots_by_kind", help, None, zero.metric_type())?;
        for (kind, demand) in &demands {
            ConstGauge::new(demand.wanted_slots).encode(slots.encode_family(&[("kind", kind.as_str())])?)?;
        }
        let help = "Tasks that wait, by kind and by what they wait for";
        let mut tasks = encoder.encode_descriptor("divvy_waiting_tasks", help, None, zero.metric_type())?;
        for (kind, demand) in &demands {
            for (reason, count) in
                [("slot", demand.runnable), ("resumption", demand.paused), ("worker", demand.unservable)]
            {
                let labels = [("kind", kind.as_str()), ("waits_for", reason)];
                ConstGauge::new(count).encode(tasks.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor("divvy_jobs", "Jobs that are not over", None, zero.metric_type())?;
        for (state, count) in [("queued", jobs.queued), ("running", jobs.running), ("paused", jobs.paused)] {
            ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
        }
        let help = "Changes that wait to be committed";
        gauge(&mut encoder, "divvy_store_backlog_changes", help, term.as_ref().map_or(0, |term| term.store.backlog()))?;
        let help = "Length of the store's write-ahead log, which a reader that does not end keeps from shrinking";
        gauge(&mut encoder, "divvy_store_log_bytes", help, term.as_ref().map_or(0, |term| term.store.log_bytes()))?;
        let is_failing = term.as_ref().is_some_and(|term| {
            term.store.is_failing().is_some() || term.driver.view(|engine| engine.composing_error().is_some())
        });
        gauge(&mut encoder, "divvy_store_failing", "Whether something cannot be stored", u64::from(is_failing))?;
        let help = "Stored jobs that this version cannot read and that wait for one that can";
        gauge(
            &mut encoder,
            "divvy_unreadable_jobs",
            help,
            term.as_ref().map_or(0, |term| term.store.unreadable().jobs()),
        )?;
        let help = "Event streams and clients that wait for a job";
        gauge(&mut encoder, "divvy_event_subscriptions", help, self.events.len() as u64)?;
        let states = term.as_ref().map(|_| self.workers.states()).unwrap_or_default();
        let mut family = encoder.encode_descriptor("divvy_workers", "Workers by state", None, zero.metric_type())?;
        for (state, count) in [
            ("ready", states.ready),
            ("suspended", states.suspended),
            ("draining", states.draining + term.as_ref().map_or(0, |term| term.pull_workers.draining())),
            ("pulling", term.as_ref().map_or(0, |term| term.pull_workers.asking())),
        ] {
            ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
        }
        let help = "Whether this coordinator leads";
        gauge(&mut encoder, "divvy_leader", help, u64::from(term.is_some()))?;
        let help = "The epoch of the term that this coordinator leads; 0 while it does not";
        gauge(&mut encoder, "divvy_epoch", help, term.as_ref().map_or(0, |term| term.epoch))?;
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
