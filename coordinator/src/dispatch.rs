//! Brings free slots and waiting tasks together, and keeps each slot busy while there is work for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::NumberRange;
use scheduler::Outcome;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::grid::{Assignment, Grid, LeaseEnd, Revoked};
use crate::lease_client::LeaseClient;
use crate::metrics::{GridMetrics, LeaseOutcome};
use crate::registry::{Registry, Searched, Stub};

/// Leases on their way to one slot: one computes while the next one waits, so that no slot idles for a round trip.
const LEASES_PER_SLOT: usize = 2;

/// What the first of them has on the second: longer than a request takes to a worker nearby.
const HEAD_START: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) grid: Arc<Grid>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) client: LeaseClient,
    pub(crate) metrics: GridMetrics,
}

impl Dispatcher {
    /// Gives out work whenever there is some and a slot for it. Runs for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.grid.work_to_give_out().await;
            self.give_out();
        }
    }

    /// Shows each free slot the waiting work once: a slot may be no match for what waits now.
    fn give_out(self: &Arc<Self>) {
        for _ in 0..self.registry.free_stubs() {
            if !self.grid.has_work() {
                return;
            }
            let Some(stub) = self.registry.next_free() else { return };
            match self.grid.claim(stub.lane()) {
                Some(first) => drop(tokio::spawn(Arc::clone(self).drive(stub, first))),
                None => self.registry.release(stub),
            }
        }
    }

    /// Runs leases on one slot until there is none for it.
    async fn drive(self: Arc<Self>, stub: Stub, first: (Assignment, Revoked)) {
        let mut leases = FuturesUnordered::from_iter([self.run_lease(&stub, first)]);
        // A worker that may be broken is tried with one lease: two would cost two attempts.
        let mut may_fill = self.registry.is_proven(&stub);
        // Two requests that leave together arrive in any order, and the second goes on where the first one ends.
        let mut has_head_start = false;
        loop {
            if may_fill && leases.len() < LEASES_PER_SLOT && (has_head_start || leases.is_empty()) {
                match self.next_for(&stub) {
                    Some(next) => {
                        leases.push(self.run_lease(&stub, next));
                        has_head_start = false;
                    }
                    None if leases.is_empty() => break,
                    None => (),
                }
            }
            if may_fill && leases.len() < LEASES_PER_SLOT && !has_head_start {
                has_head_start = timeout(HEAD_START, leases.next()).await.is_err() || !leases.is_empty();
            } else {
                leases.next().await;
                (may_fill, has_head_start) = (true, true);
            }
        }
        drop(leases);
        self.registry.release(stub);
        self.grid.slots_changed();
    }

    fn next_for(&self, stub: &Stub) -> Option<(Assignment, Revoked)> {
        if self.registry.is_ready(stub) { self.grid.claim(stub.lane()) } else { None }
    }

    async fn run_lease(&self, stub: &Stub, (assignment, revoked): (Assignment, Revoked)) {
        let started_at = Instant::now();
        let outcome = tokio::select! {
            end = self.client.run(stub, &assignment) => self.settle(stub, &assignment, end),
            // Dropping the request closes its connection, which stops the worker.
            Ok(()) = revoked => self.note_revocation(stub, &assignment),
        };
        self.metrics.lease_ended(outcome, started_at.elapsed());
    }

    fn settle(&self, stub: &Stub, assignment: &Assignment, end: LeaseEnd) -> LeaseOutcome {
        let (job_id, attempt, worker_id) = (assignment.job, assignment.attempt, &stub.worker_id);
        let outcome = match &end {
            LeaseEnd::Completed(outcome) => return self.settle_completed(stub, assignment, *outcome),
            LeaseEnd::HandedBack => {
                debug!(%job_id, %attempt, %worker_id, "lease handed back");
                LeaseOutcome::Returned
            }
            LeaseEnd::Undeliverable => {
                warn!(%job_id, %attempt, %worker_id, "worker cannot be reached");
                LeaseOutcome::Returned
            }
            LeaseEnd::TaskFailed(cause) => {
                debug!(%job_id, %attempt, %worker_id, %cause, "task failed");
                // What has ended meanwhile changes nothing.
                let _ = self.grid.report(attempt, end, Vec::new());
                return LeaseOutcome::Failed;
            }
            LeaseEnd::Failed(cause) => {
                warn!(%job_id, %attempt, %worker_id, %cause, "attempt failed");
                LeaseOutcome::Failed
            }
        };
        // First of all, or the worker could be given the same tasks again.
        self.registry.note_failure(stub, Instant::now());
        // The failure of an attempt that holds no lease any more changes nothing.
        let _ = self.grid.report(attempt, end, Vec::new());
        outcome
    }

    fn settle_completed(&self, stub: &Stub, assignment: &Assignment, outcome: Outcome) -> LeaseOutcome {
        let attempt = assignment.attempt;
        if self.grid.report(attempt, LeaseEnd::Completed(outcome), Vec::new()).is_err() {
            warn!(job_id = %assignment.job, %attempt, worker_id = %stub.worker_id, "late outcome refused");
            return LeaseOutcome::Refused;
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let searched =
            |numbers: NumberRange| Searched { numbers: numbers.len() as f64, seconds: outcome.busy.as_secs_f64() };
        let tasks = assignment.tasks.end - assignment.tasks.start;
        self.registry.note_success(stub, tasks, assignment.numbers.map(searched));
        LeaseOutcome::Completed
    }

    /// A worker that let its lease expire would do so again with the next one; one whose job was canceled did no wrong.
    fn note_revocation(&self, stub: &Stub, assignment: &Assignment) -> LeaseOutcome {
        let (now, attempt, worker_id) = (Instant::now(), assignment.attempt, &stub.worker_id);
        if now < assignment.expires_at {
            debug!(%attempt, %worker_id, "lease revoked");
            return LeaseOutcome::Revoked;
        }
        warn!(job_id = %assignment.job, %attempt, %worker_id, "lease expired");
        self.registry.note_failure(stub, now);
        LeaseOutcome::Expired
    }
}
