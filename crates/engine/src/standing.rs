//! Decides whether workers get leases: a worker that fails is suspended, and gets leases again after a pause and a heartbeat.

use std::time::{Duration, Instant};

use model::JobId;
use scheduler::WorkerKey;

use crate::effect::{Effect, SuspensionReason};
use crate::engine::Engine;
use crate::time::Now;
use crate::workers::{Standing, Suspension, Worker};

/// Pause after a failure; it doubles up to [`LONGEST_PAUSE`] while a worker fails several jobs.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The party that a failed lease is blamed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The worker cannot be reached.
    Connection,
    /// The worker or the job's tasks. While a worker fails one job only, its pauses stay short: the tasks may be to blame.
    /// A worker that fails several jobs is set aside for pauses that grow.
    WorkerOrJob(JobId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WorkerStanding {
    Ready {
        failures: u32,
    },
    Suspended {
        failures: u32,
        since: Instant,
        until: Instant,
        is_alive: bool,
        reason: SuspensionReason,
    },
    Draining,
    /// The worker's outcomes are not trusted: it gets nothing until its process is started again.
    SetAside,
}

impl Default for WorkerStanding {
    fn default() -> Self {
        Self::Ready { failures: 0 }
    }
}

impl Worker {
    pub(crate) fn standing(&self) -> Standing {
        match self.standing {
            WorkerStanding::Ready { .. } => Standing::Ready,
            WorkerStanding::Suspended { .. } | WorkerStanding::SetAside => Standing::Suspended,
            WorkerStanding::Draining => Standing::Draining,
        }
    }

    pub(crate) fn is_set_aside(&self) -> bool {
        self.standing == WorkerStanding::SetAside
    }

    /// Whether the worker has completed leases and failed none since.
    pub(crate) fn is_proven(&self) -> bool {
        self.completed_tasks > 0 && self.standing == WorkerStanding::Ready { failures: 0 }
    }

    /// Whether the worker has failed a lease and completed none since.
    pub(crate) fn is_on_trial(&self) -> bool {
        !self.failed_jobs.is_empty() || matches!(self.standing, WorkerStanding::Ready { failures: 1.. })
    }

    /// Notes a completed lease, which ends a row of failures.
    pub(crate) fn succeeded(&mut self) {
        self.failed_jobs.clear();
        if let WorkerStanding::Ready { failures } = &mut self.standing {
            *failures = 0;
        }
    }
}

impl Engine {
    /// Suspends a worker whose lease failed.
    pub(crate) fn blame(&mut self, key: WorkerKey, blame: Blame, now: Now) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        let WorkerStanding::Ready { failures } = worker.standing else { return };
        if !worker.is_pushed() {
            return;
        }
        let is_worker = match blame {
            Blame::Connection => true,
            Blame::WorkerOrJob(job) => {
                if worker.failed_jobs.len() < 2 && !worker.failed_jobs.contains(&job) {
                    worker.failed_jobs.push(job);
                }
                worker.failed_jobs.len() > 1
            }
        };
        let pause =
            if is_worker { FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        let reason = match blame {
            Blame::Connection => SuspensionReason::Undelivered,
            Blame::WorkerOrJob(_) => SuspensionReason::FailedLease,
        };
        self.suspend(key, failures + u32::from(is_worker), now.instant + pause, reason, now);
    }

    /// The worker does not run the job's kind: until it joins anew it gets no more of it.
    pub(crate) fn note_lacking(&mut self, key: WorkerKey, job: JobId, now: Now) {
        let (Some(worker), Some(live)) = (self.workers.get_mut(&key), self.jobs.get(&job)) else { return };
        if !worker.lacks.contains(&live.kind) {
            worker.lacks.push(live.kind);
            self.effects.push(Effect::Lacks { worker: worker.id.clone(), kind: live.kind });
            self.scheduler.worker_lacks(key, live.kind, now.instant);
        }
    }

    /// Suspends a worker whose connection for heartbeats has closed, probably with its process, until its next heartbeat.
    pub fn disconnected(&mut self, key: WorkerKey, now: Now) {
        if let Some(WorkerStanding::Ready { failures }) = self.workers.get(&key).map(|worker| &worker.standing) {
            self.suspend(key, *failures, now.instant, SuspensionReason::Disconnected, now);
        }
    }

    /// Drains a worker: it takes nothing new and goes with its last lease.
    pub fn drain(&mut self, key: WorkerKey, now: Now) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if !matches!(worker.standing, WorkerStanding::Draining | WorkerStanding::SetAside) {
            self.end_pause_of(key);
            if let Some(worker) = self.workers.get_mut(&key) {
                worker.standing = WorkerStanding::Draining;
            }
            self.scheduler.worker_retired(key, now.instant);
            self.settle(now);
        }
    }

    /// Gives a worker nothing more and revokes its leases.
    pub(crate) fn distrust(&mut self, key: WorkerKey, now: Now) {
        self.end_pause_of(key);
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.standing = WorkerStanding::SetAside;
        }
        self.scheduler.worker_set_aside(key, now.instant);
        self.settle(now);
    }

    /// Notes a heartbeat of the worker.
    pub(crate) fn note_alive(&mut self, key: WorkerKey, now: Now) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if let WorkerStanding::Suspended { is_alive, since, .. } = &mut worker.standing
            && *since < now.instant
        {
            *is_alive = true;
            self.resume_if_alive(key, now);
        }
    }

    pub(crate) fn resume_if_alive(&mut self, key: WorkerKey, now: Now) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if let WorkerStanding::Suspended { failures, until, is_alive: true, .. } = worker.standing
            && until <= now.instant
        {
            worker.standing = WorkerStanding::Ready { failures };
            self.pauses.remove(&(until, key));
            self.scheduler.worker_resumed(key);
            self.dispatch(now);
        }
    }

    /// The suspended workers in words, one of them with its reason; `None` if there is none.
    pub(crate) fn suspended(&self) -> Option<String> {
        let suspended =
            || self.workers.values().filter_map(move |worker| Some((&worker.id, self.suspension(worker)?.reason)));
        let (id, reason) = suspended().min_by_key(|(id, _)| *id)?;
        let others = match suspended().count() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Some(format!("the worker {id} is suspended: {reason}{others}"))
    }

    /// The reason for which a worker gets no leases for a while, and until when.
    pub(crate) fn suspension(&self, worker: &Worker) -> Option<Suspension> {
        match worker.standing {
            WorkerStanding::Suspended { reason, until, .. } => Some(Suspension { reason, until: Some(until) }),
            WorkerStanding::SetAside => {
                let until = self.set_aside.readmitted_at(&worker.id);
                Some(Suspension { reason: SuspensionReason::WrongOutcome, until })
            }
            WorkerStanding::Ready { .. } | WorkerStanding::Draining => None,
        }
    }

    pub(crate) fn end_pause_of(&mut self, key: WorkerKey) {
        if let Some(WorkerStanding::Suspended { until, .. }) = self.workers.get(&key).map(|worker| &worker.standing) {
            self.pauses.remove(&(*until, key));
        }
    }

    fn suspend(&mut self, key: WorkerKey, failures: u32, until: Instant, reason: SuspensionReason, now: Now) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        worker.standing = WorkerStanding::Suspended { failures, since: now.instant, until, is_alive: false, reason };
        self.effects.push(Effect::Suspended { worker: worker.id.clone(), reason });
        self.pauses.insert((until, key));
        self.scheduler.worker_suspended(key, now.instant);
    }
}
