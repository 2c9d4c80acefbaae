//! Time limits of leases. Leases of a slot run one after the other: the limit of a lease begins with its own computation.

use std::time::{Duration, Instant};

use model::AttemptId;

use super::{LeaseRecord, MAX_LEASE_TIME, Scheduler, times};
use crate::lease::{Lane, StaleAttempt};

impl Scheduler {
    /// Restarts the time limit of a lease's tasks, if they have one: its worker has done its part, and the rest takes as long as
    /// the coordinator does.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn restart_limit(&mut self, attempt: AttemptId, now: Instant) -> Result<(), StaleAttempt> {
        let record = self.leases.get(&attempt).ok_or(StaleAttempt)?;
        let Some((time, before)) = self.limited_time(record).zip(record.limit_at) else { return Ok(()) };
        self.begin_limit(attempt, before.max(now + time));
        Ok(())
    }

    /// Like [`Self::restart_limit`], for an attempt that keeps its slot meanwhile: the time limits of the leases that wait for
    /// the slot end as much later.
    ///
    /// # Errors
    /// The attempt holds no lease.
    pub fn restart_limits_of_slot(&mut self, attempt: AttemptId, now: Instant) -> Result<(), StaleAttempt> {
        let before = self.leases.get(&attempt).and_then(|record| record.limit_at);
        self.restart_limit(attempt, now)?;
        let record = self.leases.get(&attempt).ok_or(StaleAttempt)?;
        let (lane, queued_at) = (record.lane, record.queued_at);
        let Some((before, limit_at)) = before.zip(record.limit_at) else { return Ok(()) };
        let later = limit_at.saturating_duration_since(before);
        let waits = |other: &LeaseRecord| other.has_waited && other.queued_at >= queued_at;
        let waiting = self.slot_records(lane).filter(|(other, record)| *other != attempt && waits(record));
        let waiting: Vec<_> = waiting.filter_map(|(other, record)| Some((other, record.limit_at? + later))).collect();
        for (other, limit_at) in waiting {
            self.set_limit(other, limit_at);
        }
        Ok(())
    }

    /// Notes that the worker has ended a lease of the slot, claimed at `ended_claim_at`, and runs the next lease. The time
    /// limit of the next lease, which allowed for the longest wait, begins now.
    pub fn slot_goes_on(&mut self, lane: Lane, ended_claim_at: Instant, now: Instant) {
        let Some((attempt, record)) = self.first_of_slot(lane) else { return };
        let Some((time, before)) = self.limited_time(record).zip(record.limit_at) else { return };
        let has_waited = record.has_waited && record.queued_at >= ended_claim_at;
        if has_waited && now + time < before {
            self.set_limit(attempt, now + time);
        }
    }

    /// Notes that a lease of the slot, claimed at `ended_claim_at`, has ended at its worker before one that was given to the slot
    /// earlier: requests overtake each other. The other one began no earlier than now, and so does its time limit. This holds once
    /// for a lease: one that never comes to its worker is overtaken by all that follow.
    pub fn note_overtaken(&mut self, lane: Lane, ended_claim_at: Instant, now: Instant) {
        let Some((attempt, record)) = self.first_of_slot(lane) else { return };
        if record.queued_at >= ended_claim_at || record.was_overtaken {
            return;
        }
        if let Some(record) = self.leases.get_mut(&attempt) {
            record.was_overtaken = true;
        }
        // The lease was found just now.
        let _ = self.restart_limits_of_slot(attempt, now);
    }

    /// Notes that the worker has computed a lease of a slot since `begun_at`, and that another one waits for its slot though it was
    /// given to the slot earlier: requests overtake each other. The time limit of the former began at `begun_at`, and that of the
    /// latter begins behind those of all others of the slot. Without effect where the order is known.
    pub fn note_order(&mut self, running: AttemptId, begun_at: Instant, waiting: AttemptId, now: Instant) {
        let (Some(runs), Some(waits)) = (self.leases.get(&running), self.leases.get(&waiting)) else { return };
        if runs.lane != waits.lane || runs.place(running) <= waits.place(waiting) {
            return;
        }
        let (lane, has_waited) = (waits.lane, runs.has_waited);
        if let Some(time) = self.limited_time(runs).filter(|_| has_waited) {
            let limit_at = begun_at.max(runs.claimed_at) + time;
            self.begin_limit(running, limit_at);
        }
        let Some(record) = self.leases.get_mut(&waiting) else { return };
        (record.queued_at, record.has_waited) = (now, true);
        self.limit_behind_others(lane, waiting, now);
    }

    /// Lets the time limit of a lease allow for those of all others of its slot. It begins later if one of those has no limit.
    fn limit_behind_others(&mut self, lane: Lane, attempt: AttemptId, now: Instant) {
        let Some(time) = self.leases.get(&attempt).and_then(|record| self.limited_time(record)) else { return };
        let others = self.slot_records(lane).filter(|(other, _)| *other != attempt);
        let limits: Option<Vec<_>> = others.map(|(_, record)| record.limit_at).collect();
        let before = self.leases[&attempt].limit_at;
        match limits {
            Some(limits) => {
                let free_at = limits.into_iter().fold(now, Instant::max);
                self.set_limit(attempt, before.map_or(free_at + time, |before| before.max(free_at + time)));
            }
            None => self.take_limit(attempt, now),
        }
    }

    /// Begins the time limits of the leases of a slot that have waited for one without a limit, as far as that one has ended. To
    /// be called at each end of a lease of a pushed worker.
    pub fn begin_limits(&mut self, lane: Lane, now: Instant) {
        let mut of_slot: Vec<_> = self.slot_records(lane).collect();
        of_slot.sort_by_key(|(attempt, record)| record.place(*attempt));
        let mut free_at = now;
        let mut begun = Vec::new();
        for (attempt, record) in of_slot {
            // Without a limit of its own, the lease keeps those behind it waiting.
            let Some(time) = self.limited_time(record) else { break };
            let limit_at = record.limit_at.unwrap_or(free_at + time);
            if record.limit_at.is_none() {
                begun.push((attempt, limit_at));
            }
            free_at = free_at.max(limit_at);
        }
        for (attempt, limit_at) in begun {
            self.set_limit(attempt, limit_at);
        }
    }

    /// Time that the time limit of its tasks gives to a lease, if there is one.
    fn limited_time(&self, record: &LeaseRecord) -> Option<Duration> {
        let spec = &self.jobs[&record.job].spec;
        let limit = spec.task_timeout?;
        Some(times(limit, record.run.len()).saturating_add(spec.lease_slack).min(MAX_LEASE_TIME))
    }

    /// The lease of a slot that runs first.
    fn first_of_slot(&self, lane: Lane) -> Option<(AttemptId, &LeaseRecord)> {
        self.slot_records(lane).min_by_key(|(attempt, record)| record.place(*attempt))
    }

    /// Sets the time limit of a lease that does not wait for its slot any more.
    fn begin_limit(&mut self, attempt: AttemptId, limit_at: Instant) {
        if let Some(record) = self.leases.get_mut(&attempt) {
            record.has_waited = false;
        }
        self.set_limit(attempt, limit_at);
    }

    fn set_limit(&mut self, attempt: AttemptId, limit_at: Instant) {
        self.set_end(attempt, limit_at, Some(limit_at));
    }

    /// Takes the time limit off a lease, which must be renewed then.
    fn take_limit(&mut self, attempt: AttemptId, now: Instant) {
        let Some(record) = self.leases.get(&attempt) else { return };
        let expires_at = record.expires_at.max(now + self.policy.lease_timeout);
        self.set_end(attempt, expires_at, None);
    }

    fn set_end(&mut self, attempt: AttemptId, expires_at: Instant, limit_at: Option<Instant>) {
        let Some(record) = self.leases.get_mut(&attempt) else { return };
        self.expiries.remove(&(record.expires_at, attempt));
        (record.expires_at, record.limit_at) = (expires_at, limit_at);
        self.expiries.insert((expires_at, attempt));
    }
}

impl LeaseRecord {
    /// Place among the leases of its slot.
    fn place(&self, attempt: AttemptId) -> (Instant, AttemptId) {
        (self.queued_at, attempt)
    }
}
