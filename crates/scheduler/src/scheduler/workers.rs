//! Workers that join, pause and leave.

use std::time::Instant;

use model::JobKind;

use super::Scheduler;
use crate::lease::{AttemptFailure, Lane, Revocation, WorkerKey};
use crate::queue::ClassId;
use crate::spec::WorkerSpec;
use crate::workers::Availability;

impl Scheduler {
    /// Adds a worker.
    pub fn worker_joined(&mut self, worker: WorkerKey, spec: WorkerSpec) {
        let newly_served = self.workers.join(worker, spec, self.queue.classes());
        self.note_served(&newly_served, true);
    }

    /// Stops giving leases to a worker until it is resumed. It keeps its leases, and its idle slots are idle again when it
    /// is resumed.
    pub fn worker_suspended(&mut self, worker: WorkerKey, now: Instant) {
        let unserved = self.workers.deactivate(worker, Availability::Suspended, now);
        self.note_served(&unserved, false);
        self.end_walks(worker);
    }

    /// Gives leases to a suspended worker again.
    pub fn worker_resumed(&mut self, worker: WorkerKey) {
        let newly_served = self.workers.resume(worker);
        self.note_served(&newly_served, true);
    }

    /// Gives a worker no more jobs of a kind, which it named but does not run. It keeps its leases.
    pub fn worker_lacks(&mut self, worker: WorkerKey, kind: JobKind, now: Instant) {
        let unserved = self.workers.drop_kind(worker, kind, self.queue.classes(), now);
        self.note_served(&unserved, false);
        self.end_walks(worker);
    }

    /// Stops giving leases to a worker for good. It keeps its leases.
    pub fn worker_retired(&mut self, worker: WorkerKey, now: Instant) {
        let unserved = self.workers.deactivate(worker, Availability::Retired, now);
        self.note_served(&unserved, false);
        self.end_walks(worker);
        self.drop_if_drained(worker);
    }

    /// Stops giving leases to a worker for good and revokes its leases: its outcomes are not trusted.
    pub fn worker_set_aside(&mut self, worker: WorkerKey, now: Instant) {
        let unserved = self.workers.deactivate(worker, Availability::Retired, now);
        self.note_served(&unserved, false);
        self.end_walks(worker);
        let held: Vec<_> = self.workers.get(worker).into_iter().flat_map(|worker| &worker.held).copied().collect();
        for attempt in held {
            if let Some(record) = self.revoke(attempt, Revocation::SetAside) {
                self.return_unharmed(record);
            }
        }
        self.drop_if_drained(worker);
    }

    /// Removes a worker and ends its leases; their tasks are the next to be given out.
    pub fn worker_lost(&mut self, worker: WorkerKey, now: Instant) {
        let unserved = self.workers.deactivate(worker, Availability::Retired, now);
        self.note_served(&unserved, false);
        let Some(lost) = self.workers.remove(worker) else { return };
        self.end_walks(worker);
        for attempt in lost.held {
            // The failure of the first lease may have failed a job and so revoked the others.
            if let Some(record) = self.take_lease(attempt) {
                self.return_failed(attempt, record, AttemptFailure::WorkerLost, now);
            }
        }
    }

    /// Removes a retired worker without leases.
    pub(super) fn drop_if_drained(&mut self, worker: WorkerKey) {
        if self.workers.is_drained(worker) {
            self.workers.remove(worker);
        }
    }

    /// Lets other lanes continue where the lane's last lease ended.
    pub fn end_walk(&mut self, lane: Lane) {
        if let Some(id) = self.walks.remove(&lane)
            && let Some(job) = self.jobs.get_mut(&id)
            && job.tasks.leave(lane)
        {
            let class = job.class;
            self.workers.note_change(class);
        }
    }

    fn end_walks(&mut self, worker: WorkerKey) {
        let lanes = Lane { worker, slot: 0 }..=Lane { worker, slot: u32::MAX };
        let walking: Vec<_> = self.walks.range(lanes).map(|(lane, _)| *lane).collect();
        walking.into_iter().for_each(|lane| self.end_walk(lane));
    }

    /// Notes that classes got their first worker or lost their last.
    fn note_served(&mut self, classes: &[ClassId], is_served: bool) {
        for class in classes {
            self.queue.set_served(*class, is_served);
            self.figures.serve(self.queue.kind(*class), &self.queue.open_by_priority(*class), is_served);
            self.patience.rearm(*class, self.workers.unserved_since(*class));
        }
    }
}
