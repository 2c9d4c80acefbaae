//! The lease that a report of a pulling worker names, compared with the lease that its attempt holds. The two differ where requests
//! come late, twice or to another coordinator: the worker handed tasks back before or after it wrote the report.

use std::ops::Range;
use std::time::Duration;

use model::{AttemptId, JobId, WorkerId};
use scheduler::ActiveLease;

use crate::engine::Engine;
use crate::time::Now;

/// The lease that a report names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLease {
    /// The worker.
    pub worker: WorkerId,
    /// The job.
    pub job: JobId,
    /// The tasks.
    pub tasks: Range<u64>,
}

/// The lease of the attempt that a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The attempt holds the lease, for this time.
    Held(Duration),
    /// The attempt holds another lease than the report names.
    Other,
    /// The attempt holds no lease, and may be adopted: [`Engine::adopt_reported`].
    Unknown,
    /// The attempt has ended: it takes no lease up again. A worker may send a renewal while it hands the lease back.
    Ended,
}

impl Engine {
    /// Takes note of a report, before what it says. A report without a name is about the lease that its attempt holds.
    pub fn hear(&mut self, attempt: AttemptId, named: Option<&NamedLease>, now: Now) -> Holding {
        let Some(ActiveLease { job, tasks, lane, claimed_at, .. }) = self.scheduler.lease(attempt) else {
            return if self.has_ended(attempt) { Holding::Ended } else { Holding::Unknown };
        };
        let holder = self.workers.get(&lane.worker).map(|worker| &worker.id);
        let is_named = |named: &NamedLease| {
            holder.is_none_or(|holder| *holder == named.worker) && (named.job, named.tasks.start) == (job, tasks.start)
        };
        if !named.is_none_or(is_named) {
            return Holding::Other;
        }
        self.scheduler.note_report(attempt);
        Holding::Held(now.instant.saturating_duration_since(claimed_at))
    }

    /// Takes back the last tasks of a lease that a report does not name, which ends at `beyond`: its worker has handed them back,
    /// and that request is late or went to an earlier coordinator. Returns whether there were any. A lease that cannot be divided
    /// there stays whole.
    pub fn end_at_named(&mut self, attempt: AttemptId, beyond: u64, now: Now) -> bool {
        let is_longer = self.scheduler.lease(attempt).is_some_and(|lease| lease.tasks.end > beyond);
        is_longer && self.release_rest(attempt, beyond, now).unwrap_or(false)
    }

    /// Whether a report names exactly the tasks that its attempt holds, or names none: a value says nothing of the tasks that it is
    /// the sum of. An attempt without a lease holds none: its outcome may count already.
    #[must_use]
    pub fn is_about(&self, attempt: AttemptId, named: Option<&NamedLease>) -> bool {
        let held = self.scheduler.lease(attempt);
        named.zip(held).is_none_or(|(named, held)| named.tasks == held.tasks)
    }
}
