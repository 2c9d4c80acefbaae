//! The leases of a slot in the order in which their worker runs them, as far as the coordinator can know it.

use std::ops::Range;

use engine::{Effect, HeldLease, HeldState};
use model::{AttemptId, JobId};
use scheduler::WorkerKey;

use super::{Account, Leased};
use crate::plan::Micros;
use crate::world::World;

/// The place of a lease of a job that is not stored, whose tasks have no time limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    slot: Option<(WorkerKey, u32)>,
    claimed_at: Micros,
    has_waited: bool,
}

/// A lease that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    place: Place,
    is_reported: bool,
}

impl Leased {
    pub(super) fn new(
        job: JobId,
        tasks: Range<u64>,
        slot: Option<(WorkerKey, u32)>,
        pulled_by: Option<WorkerKey>,
    ) -> Self {
        Self {
            job,
            tasks,
            slot,
            pulled_by,
            claimed_at: 0,
            queued_at: 0,
            has_waited: false,
            since: None,
            limit: None,
            latest_end: None,
            was_overtaken: false,
            is_silent: false,
        }
    }

    fn place(&self) -> Place {
        Place { slot: self.slot, claimed_at: self.claimed_at, has_waited: self.has_waited }
    }
}

impl Account {
    /// The stored leases of a slot, in their order.
    fn of_slot(&mut self, slot: Option<(WorkerKey, u32)>) -> Vec<(AttemptId, &mut Leased)> {
        let of_slot = self.leases.iter_mut().filter(|(_, lease)| slot.is_some() && lease.slot == slot);
        let mut of_slot: Vec<_> = of_slot.map(|(attempt, lease)| (*attempt, lease)).collect();
        of_slot.sort_by_key(|(attempt, lease)| (lease.queued_at, *attempt));
        of_slot
    }

    /// The first lease of a slot that is not stored.
    fn first_unstored(&self, slot: Option<(WorkerKey, u32)>) -> Option<(Micros, AttemptId)> {
        let of_slot = self.unstored.iter().filter(|(_, place)| slot.is_some() && place.slot == slot);
        of_slot.map(|(attempt, place)| (place.claimed_at, *attempt)).min()
    }

    /// Ends a lease; the next lease of its slot starts. If the worker has reported the end, that start is known.
    pub(super) fn end(&mut self, attempt: AttemptId, now: Micros, is_reported: bool) -> Option<Leased> {
        let ended = self.leases.remove(&attempt);
        let place = match &ended {
            Some(lease) => lease.place(),
            None => self.unstored.remove(&attempt)?,
        };
        self.goes_on(Ended { place, is_reported }, now);
        ended
    }

    fn goes_on(&mut self, ended: Ended, now: Micros) {
        let unstored = self.first_unstored(ended.place.slot);
        let mut of_slot = self.of_slot(ended.place.slot);
        let runs_before = |attempt, lease: &Leased| unstored.is_none_or(|place| (lease.queued_at, attempt) < place);
        if let Some((attempt, next)) = of_slot.first_mut().filter(|(attempt, lease)| runs_before(*attempt, lease)) {
            let since = *next.since.get_or_insert(now);
            if ended.is_reported && since == now {
                let by_limit = next.limit.map(|limit| now + limit);
                next.latest_end = next.latest_end.or(by_limit).min(by_limit);
            }
            let is_earlier = next.queued_at < ended.place.claimed_at;
            if ended.is_reported && ended.place.has_waited && is_earlier && !next.was_overtaken {
                next.was_overtaken = true;
                let (attempt, queued_at) = (*attempt, next.queued_at);
                let later = next.begin_anew(now);
                let waits = |(other, lease): &&mut (AttemptId, &mut Leased)| {
                    *other != attempt && lease.has_waited && lease.queued_at >= queued_at
                };
                for (_, lease) in of_slot.iter_mut().filter(waits) {
                    lease.latest_end = lease.latest_end.map(|end| end + later);
                }
            }
        }
        // The limit of a lease that has waited for one without a limit begins.
        let mut free_at = now;
        for (attempt, lease) in of_slot {
            let Some(limit) = lease.limit.filter(|_| runs_before(attempt, lease)) else { break };
            free_at = free_at.max(*lease.latest_end.get_or_insert(free_at + limit));
        }
    }
}

impl Leased {
    /// The computation begins only now. Returns by how much later the lease may end.
    fn begin_anew(&mut self, now: Micros) -> Micros {
        self.since = Some(now);
        let Some((limit, before)) = self.limit.zip(self.latest_end) else { return 0 };
        let end = before.max(now + limit);
        (self.latest_end, self.has_waited) = (Some(end), false);
        end - before
    }
}

impl World {
    /// A lease begins. `begun_at` is the start of its computation if the worker has named it.
    pub(super) fn account_lease(&mut self, attempt: AttemptId, mut lease: Leased, begun_at: Option<Micros>) {
        let (now, slot) = (self.now, lease.slot);
        let is_stored = self.by_id.contains_key(&lease.job);
        let limit = if is_stored { self.time_limit(lease.job, &lease.tasks) } else { None };
        let account = &mut self.audit.account;
        let is_behind_unstored = account.first_unstored(slot).is_some();
        let ahead: Vec<_> = account.of_slot(slot).into_iter().map(|(_, other)| other.latest_end).collect();
        lease.claimed_at = begun_at.unwrap_or(now);
        lease.queued_at = lease.claimed_at;
        lease.has_waited = begun_at.is_none() && (is_behind_unstored || !ahead.is_empty());
        if !is_stored {
            account.unstored.insert(attempt, lease.place());
            return;
        }
        let waits = begun_at.is_none() && !ahead.is_empty();
        lease.since = if waits { None } else { Some(begun_at.unwrap_or(now)) };
        lease.limit = limit;
        lease.latest_end = limit.and_then(|limit| match lease.since {
            // The limit may be reached before the lease is adopted.
            Some(since) => Some((since + limit).max(now)),
            // The time limit of the lease ahead may be longer; behind a lease without one, the limit begins at that lease's end.
            None => {
                let ahead: Option<Vec<_>> = ahead.into_iter().collect();
                let ahead = ahead?;
                let free_at = ahead.iter().max().copied().unwrap_or(now);
                Some((now + (1 + ahead.len() as u64) * limit).max(free_at + limit))
            }
        });
        account.leases.insert(attempt, lease);
    }

    /// Notes the leases of jobs that are not stored which the present input has ended without revoking them.
    pub(in crate::audit) fn account_unstored(&mut self, effects: &[Effect]) {
        let Some(coordinator) = self.coordinator.as_ref() else { return };
        let is_revoked =
            |ended| effects.iter().any(|effect| matches!(effect, Effect::Revoke { attempt, .. } if *attempt == ended));
        let unstored = self.audit.account.unstored.keys().copied();
        let has_ended = |attempt: &AttemptId| !coordinator.engine.is_leased(*attempt) && !is_revoked(*attempt);
        for attempt in unstored.filter(has_ended).collect::<Vec<_>>() {
            self.audit.account.end(attempt, self.now, false);
        }
    }

    /// Notes which leases of a worker's list run though others of their slots were given earlier, which wait.
    pub(super) fn account_orders(&mut self, key: WorkerKey, held: &[HeldLease]) {
        let now = self.now;
        let is_running = |lease: &&HeldLease| lease.state == HeldState::Running;
        for waiting in held.iter().filter(is_running).filter(|lease| lease.age.is_zero()) {
            let runs = |lease: &&HeldLease| lease.slot == waiting.slot && !lease.age.is_zero();
            let Some(running) = held.iter().filter(is_running).rfind(runs) else { continue };
            let age = u64::try_from(running.age.as_micros()).unwrap_or(u64::MAX);
            let slot = Some((key, waiting.slot));
            self.audit.account.account_order(slot, (running.attempt, now.saturating_sub(age)), waiting.attempt, now);
        }
    }
}

impl Account {
    /// A lease of a slot runs since a time, and another one waits.
    fn account_order(
        &mut self,
        slot: Option<(WorkerKey, u32)>,
        (running, begun_at): (AttemptId, Micros),
        waiting: AttemptId,
        now: Micros,
    ) {
        let is_of_slot = |lease: &&mut Leased| lease.slot == slot;
        let Some(waits) = self.leases.get_mut(&waiting).filter(is_of_slot) else { return };
        let before = (waits.queued_at, waiting);
        let Some(runs) = self.leases.get_mut(&running).filter(is_of_slot) else { return };
        if (runs.queued_at, running) <= before {
            return;
        }
        if runs.has_waited
            && let Some(limit) = runs.limit
        {
            (runs.since, runs.latest_end, runs.has_waited) = (Some(begun_at), Some((begun_at + limit).max(now)), false);
        }
        runs.since.get_or_insert(begun_at);
        let has_unstored = self.first_unstored(slot).is_some();
        let others = self.of_slot(slot).into_iter().filter(|(other, _)| *other != waiting);
        let ends: Option<Vec<_>> = others.map(|(_, other)| other.latest_end).collect();
        let Some(waits) = self.leases.get_mut(&waiting) else { return };
        (waits.queued_at, waits.has_waited, waits.since) = (now, true, None);
        if let Some(limit) = waits.limit {
            let free_at = ends.filter(|_| !has_unstored).map(|ends| ends.into_iter().fold(now, Micros::max));
            waits.latest_end = free_at.map(|free_at| waits.latest_end.unwrap_or(0).max(free_at + limit));
        }
    }
}
