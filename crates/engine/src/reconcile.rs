//! Reconciles the leases that workers hold with the engine's records. A lease of a stored job outlives connections and
//! coordinators: its worker lists the lease in every heartbeat until the coordinator answers that the outcome is durable or the
//! attempt void.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use model::{AttemptId, JobId};
use scheduler::{IdMap, Lane, WorkerKey};
use store::MAX_TIMED_OUT;

use crate::engine::Engine;
use crate::standing::Blame;
use crate::time::Now;
use crate::workers::Worker;

/// Heartbeats in a row that do not list a lease whose connection broke before the lease counts as undelivered. The first of them
/// may have been written before the lease arrived.
const MISSES: u32 = 2;

/// A lease of a stored job, as its worker lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLease {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// The tasks.
    pub tasks: Range<u64>,
    /// The worker's slot.
    pub slot: u32,
    /// Time since the worker began to compute it; zero while it waits for its slot.
    pub age: Duration,
    /// Whether the worker computes or keeps an outcome.
    pub state: HeldState,
}

/// State of a lease at its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldState {
    /// The worker computes the lease, or the lease waits for its slot.
    Running,
    /// The lease has ended, and the worker keeps its outcome.
    Finished,
}

/// The answer to a worker about the leases that it lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Attempts that are durable or void: the worker stops them and forgets their outcomes.
    pub settled: Vec<AttemptId>,
    /// Attempts leased to this worker whose outcomes have not arrived: the worker delivers them.
    pub deliver: Vec<AttemptId>,
}

impl Engine {
    /// Takes a heartbeat of a pushed worker, with the leases of stored jobs that it holds.
    pub fn heartbeat(&mut self, key: WorkerKey, held: &[HeldLease], now: Now) -> Reconciled {
        // A worker that is resumed gets leases, which wait in their slots behind those that it lists.
        let reconciled = self.reconcile(key, held, now);
        self.note_alive(key, now);
        if !held.is_empty() {
            self.dispatch(now);
        }
        reconciled
    }

    /// Leases tasks to the worker that reports on them, unless they are done, leased or unknown. Returns whether the
    /// attempt holds a lease now, or has an outcome that counts and is not committed yet.
    pub fn adopt_reported(&mut self, key: WorkerKey, held: &HeldLease, now: Now) -> bool {
        let is_pending = self.is_unsettled(held.attempt);
        let is_known = is_pending || self.scheduler.lease(held.attempt).is_some();
        is_known || self.adopt(Lane { worker: key, slot: 0 }, held, now)
    }

    /// Whether the attempt began at this coordinator, and not at an earlier one.
    #[must_use]
    pub fn has_made(&self, attempt: AttemptId) -> bool {
        self.attempts.has_made(attempt)
    }

    /// Whether no report on the attempt can count: this engine made it, it has ended, and it is not to be adopted.
    #[must_use]
    pub fn has_ended(&self, attempt: AttemptId) -> bool {
        let is_open = || self.scheduler.holds(attempt) || self.is_unsettled(attempt) || self.expired.contains(attempt);
        self.attempts.has_made(attempt) && !is_open()
    }

    pub(crate) fn reconcile(&mut self, key: WorkerKey, held: &[HeldLease], now: Now) -> Reconciled {
        let Some(worker) = self.workers.get_mut(&key) else { return Reconciled::default() };
        let mut reconciled = Reconciled { settled: worker.take_settled(), deliver: Vec::new() };
        if held.is_empty() && worker.detached.is_empty() {
            return reconciled;
        }
        // A lease that waits for another one of its slot is adopted after that one.
        let mut oldest_first: Vec<_> = held.iter().collect();
        oldest_first.sort_by_key(|lease| Reverse(lease.age));
        for lease in oldest_first {
            let holder = self.scheduler.lease(lease.attempt).map(|record| record.lane.worker);
            if self.is_unsettled(lease.attempt) {
                continue;
            }
            let lane = Lane { worker: key, slot: lease.slot };
            let is_holder = match holder {
                Some(holder) => holder == key,
                None => self.adopt(lane, lease, now),
            };
            match (is_holder, lease.state) {
                (true, HeldState::Finished) => reconciled.deliver.push(lease.attempt),
                // The lease lasts as long as its worker lists it and the time limit of its tasks allows.
                (true, HeldState::Running) => drop(self.scheduler.renew(lease.attempt, now.instant)),
                (false, _) => reconciled.settled.push(lease.attempt),
            }
        }
        self.note_orders(key, held, now);
        self.give_up_unlisted(key, held, now);
        reconciled
    }

    /// Notes which lease of a slot runs where others wait for it: requests overtake each other.
    fn note_orders(&mut self, key: WorkerKey, held: &[HeldLease], now: Now) {
        let is_running = |lease: &&HeldLease| lease.state == HeldState::Running;
        let (begun, waiting): (Vec<_>, Vec<_>) = held.iter().filter(is_running).partition(|lease| !lease.age.is_zero());
        if waiting.is_empty() {
            return;
        }
        let by_slot: IdMap<_, _> = begun.into_iter().map(|lease| (lease.slot, lease)).collect();
        for lease in waiting {
            let Some(running) = by_slot.get(&lease.slot) else { continue };
            let is_held = |attempt| self.scheduler.lease(attempt).is_some_and(|record| record.lane.worker == key);
            if is_held(lease.attempt) && is_held(running.attempt) {
                let begun_at = now.instant.checked_sub(running.age).unwrap_or(now.instant);
                self.scheduler.note_order(running.attempt, begun_at, lease.attempt, now.instant);
            }
        }
    }

    fn adopt(&mut self, lane: Lane, lease: &HeldLease, now: Now) -> bool {
        let is_trusted = self.workers.get(&lane.worker).is_some_and(|worker| !worker.is_set_aside());
        if !is_trusted || !self.is_stored(lease.job) || self.voided.contains(lease.attempt) {
            return false;
        }
        let is_pushed = self.workers.get(&lane.worker).is_some_and(Worker::is_pushed);
        let begun_at = match lease.state {
            // The engine waits for the outcome from now on: its tasks are neither late, which would run them again, nor at their
            // limit.
            HeldState::Finished => Some(now.instant),
            // The leases of a worker that pulls wait for no other.
            HeldState::Running if is_pushed && lease.age.is_zero() => None,
            HeldState::Running => Some(now.instant.checked_sub(lease.age).unwrap_or(now.instant)),
        };
        if self.has_timed_out_before(lease, begun_at, now) {
            self.voided.insert(lease.attempt);
            return false;
        }
        let adopted = self.scheduler.adopt(lane, lease.attempt, lease.job, lease.tasks.clone(), begun_at, now.instant);
        if adopted.is_err() {
            return false;
        }
        // The lease was claimed at another coordinator: its time there has passed.
        let _ = self.scheduler.renew(lease.attempt, now.instant);
        self.settle(now);
        self.occupy(lane);
        if let Some(worker) = self.workers.get_mut(&lane.worker).filter(|worker| worker.is_pushed()) {
            worker.detached.insert(lease.attempt, 0);
        } else {
            // A worker that pulls may never come back, neither for these tasks nor for those that follow.
            let _ = self.scheduler.demand_renewals(lease.attempt, now.instant);
            self.scheduler.end_walk(lane);
        }
        true
    }

    /// Whether an earlier coordinator has recorded that the attempt reached its time limit, without the worker being told: this
    /// must not count twice. A full list may have lost the attempt: then a failure of its tasks may be its own, and where that
    /// failure is of another attempt, the tasks run once more.
    fn has_timed_out_before(&self, lease: &HeldLease, begun_at: Option<Instant>, now: Now) -> bool {
        let Some(live) = self.jobs.get(&lease.job) else { return false };
        if live.timed_out.contains(&lease.attempt) {
            return true;
        }
        let may_be_lost = live.timed_out.len() >= MAX_TIMED_OUT && !self.has_made(lease.attempt);
        let running_since = begun_at.filter(|_| may_be_lost && lease.state == HeldState::Running);
        running_since
            .is_some_and(|begun_at| self.scheduler.may_have_timed_out(lease.job, &lease.tasks, begun_at, now.instant))
    }

    /// Takes back the leases without a connection that their worker does not list: they never came to it.
    fn give_up_unlisted(&mut self, key: WorkerKey, held: &[HeldLease], now: Now) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        let listed: HashSet<_> = held.iter().map(|lease| lease.attempt).collect();
        for (attempt, misses) in &mut worker.detached {
            *misses = if listed.contains(attempt) { 0 } else { *misses + 1 };
        }
        let never_came = worker.detached.iter().filter(|(_, misses)| **misses >= MISSES);
        let never_came: Vec<_> = never_came.map(|(attempt, _)| *attempt).collect();
        for attempt in never_came {
            // A worker that loses its leases gets nothing more for a while; the tasks are not at fault.
            self.blame(key, Blame::Connection, now);
            // The lease may have ended meanwhile; it is adopted if it arrives after all, and so is a report on it.
            if self.take_back(attempt, now).is_ok() {
                self.expired.insert(attempt);
            }
        }
    }
}
