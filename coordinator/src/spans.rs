//! The spans of leases and of stored jobs, written when they end. The ids of spans are derived from those of the attempt and of
//! the job, so that a coordinator which has taken over ends the spans that another one began.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use engine::{LeaseOrder, TracedLease};
use jiff::Timestamp;
use model::{AttemptId, EventKind, JobEvent, JobId, JobState, TraceContext};
use service::trace::{Ended, Kind, Value, calendar, is_on};
use store::{JobRecord, Store};
use tracing::debug;

use crate::driver::Driver;
use crate::event_hub::EventHub;
use crate::metrics::LeaseEnd;

/// The span of a lease, as the request to the worker names it.
pub(crate) fn lease_span(parent: &TraceContext, attempt: AttemptId) -> TraceContext {
    parent.at(TraceContext::span_of(attempt.0))
}

/// The lease of an attempt that is about to end, if its span is to be written.
pub(crate) fn traced_lease(driver: &Driver, attempt: AttemptId) -> Option<TracedLease> {
    if !is_on() {
        return None;
    }
    driver.view(|engine| engine.traced_lease(attempt))
}

/// Writes the span of a lease that was sent.
pub(crate) fn order_ended(order: &LeaseOrder, started_at: Instant, end: LeaseEnd) {
    let Some(parent) = order.trace.as_ref().filter(|_| is_on()) else { return };
    let lease = TracedLease {
        parent: parent.clone(),
        job: order.job,
        kind: order.kind,
        tasks: order.tasks.clone(),
        worker_id: order.worker_id.to_string(),
        claimed_at: started_at,
    };
    write_lease(&lease, order.attempt, Some(order.slot), end);
}

/// Writes the span of a lease that a worker claimed, or whose outcome a worker delivered.
pub(crate) fn lease_ended(lease: Option<TracedLease>, attempt: AttemptId, end: LeaseEnd) {
    if let Some(lease) = lease {
        write_lease(&lease, attempt, None, end);
    }
}

fn write_lease(lease: &TracedLease, attempt: AttemptId, slot: Option<u32>, end: LeaseEnd) {
    let TracedLease { parent, job, kind, tasks, worker_id, claimed_at } = lease;
    let mut attributes = vec![
        ("divvy.job.id", Value::from(job.to_string())),
        ("divvy.job.kind", Value::from(kind.to_string())),
        ("divvy.attempt.id", Value::from(attempt.to_string())),
        ("divvy.worker.id", Value::from(worker_id.clone())),
        ("divvy.tasks.first", Value::from(tasks.start)),
        ("divvy.tasks.beyond", Value::from(tasks.end)),
        ("divvy.lease.outcome", Value::from(end.as_str())),
    ];
    attributes.extend(slot.map(|slot| ("divvy.worker.slot", Value::from(u64::from(slot)))));
    let error = match end {
        LeaseEnd::Failed | LeaseEnd::Expired => Some(format!("the lease {}", end.as_str())),
        LeaseEnd::Completed | LeaseEnd::Returned | LeaseEnd::Revoked | LeaseEnd::Refused | LeaseEnd::Disconnected => {
            None
        }
    };
    let ended = Ended {
        name: format!("lease {kind}"),
        kind: Kind::Client,
        parent,
        span_id: Some(TraceContext::span_of(attempt.0)),
        started_at: calendar(*claimed_at),
        ended_at: SystemTime::now(),
        attributes,
        error,
    };
    ended.send();
}

/// Writes the span of each stored job that ends. Runs for ever; does nothing where traces are off.
pub(crate) async fn follow_jobs(store: Arc<Store>, events: Arc<EventHub>) {
    if !is_on() {
        return std::future::pending().await;
    }
    loop {
        let mut live = events.subscribe(None);
        // `None` means that events were missed: their jobs get no span.
        while let Some(event) = live.next().await {
            let Some(id) = ended_job(&event) else { continue };
            match store.job(id).await {
                Ok(Some(record)) => write_job(&record),
                Ok(None) => (),
                Err(error) => debug!(job_id = %id, %error, "a job that has ended cannot be read for its span"),
            }
        }
    }
}

fn ended_job(event: &JobEvent) -> Option<JobId> {
    let is_end = matches!(event.kind, EventKind::Succeeded | EventKind::Failed | EventKind::Canceled);
    is_end.then_some(event.job)
}

fn write_job(record: &JobRecord) {
    let Some(parent) = &record.options.trace else { return };
    let mut attributes = vec![
        ("divvy.job.id", Value::from(record.id.to_string())),
        ("divvy.job.kind", Value::from(record.kind.to_string())),
        ("divvy.job.state", Value::from(record.state.to_string())),
        ("divvy.job.tasks", Value::from(record.tasks)),
        ("divvy.job.tasks_failed", Value::from(record.tasks_failed)),
        ("divvy.job.attempts", Value::from(record.attempts)),
    ];
    attributes.extend(record.options.submitted_by.clone().map(|name| ("divvy.job.submitted_by", Value::from(name))));
    let failed = record.error.clone().filter(|_| record.state == JobState::Failed);
    let ended = Ended {
        name: format!("job {}", record.kind),
        kind: Kind::Internal,
        parent,
        // Leases name the job's first span as their parent; a retried job has a span for each end.
        span_id: record.retried_at.is_none().then(|| TraceContext::span_of(record.id.0)),
        started_at: system_time(record.retried_at.unwrap_or(record.submitted_at)),
        ended_at: record.finished_at.map_or_else(SystemTime::now, system_time),
        attributes,
        error: failed,
    };
    ended.send();
}

fn system_time(at: Timestamp) -> SystemTime {
    let since = Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    SystemTime::UNIX_EPOCH + since
}
