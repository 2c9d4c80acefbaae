//! The leases of the last hour, for the task stream: the latest ones one by one, and for all of them the activity of each slot
//! in each step of time. Its memory is bounded, however many leases there are.

mod ended;
mod failed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{AttemptId, JobId, JobKind, WorkerId};

use crate::metrics::LeaseEnd;
use ended::Ended;
use failed::Failed;

/// Length of a step of time, and the number of steps that are kept: an hour.
pub(crate) const STEP: Duration = Duration::from_secs(5);
const MAX_STEPS: usize = 720;

/// Slots whose activity a step keeps; a step counts the leases of the other slots.
const MAX_SLOTS_PER_STEP: usize = 256;

/// Slots that have a number. Workers come and go under new names: with one more, the log begins anew.
const MAX_SLOTS: usize = 65_536;

/// Leases without an end that are looked at in one sweep; the next sweep looks at others.
const MAX_SWEPT: usize = 10_000;

/// The end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Failed,
    /// Without an outcome and without a failure: handed back, revoked, or ended elsewhere.
    Stopped,
}

/// A lease of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    pub(crate) slot: usize,
    pub(crate) job: JobId,
    pub(crate) kind: JobKind,
    pub(crate) tasks: u64,
    pub(crate) start: Instant,
    /// `None` while the lease runs.
    pub(crate) end: Option<(Instant, End)>,
    /// Whether its tasks had another lease at its start, or one before that failed.
    pub(crate) is_second: bool,
}

/// The activity of a slot in a step of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) job: JobId,
    pub(crate) kind: JobKind,
    pub(crate) busy: Duration,
    pub(crate) leases: u32,
    pub(crate) failed: u32,
    pub(crate) seconds: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) start: Instant,
    pub(crate) shares: BTreeMap<usize, Share>,
    /// Leases of slots beyond the bound.
    pub(crate) uncounted: u64,
}

/// The leases of the last hour.
#[derive(Debug)]
pub(crate) struct LeaseLog {
    /// Whether leases are kept: without the dashboard nobody can see them.
    is_on: bool,
    log: Mutex<Log>,
}

/// A copy of the log from some time on. It shares ended leases, steps and slots with the log until they change there.
#[derive(Debug)]
pub(crate) struct Recent {
    start: Instant,
    running: Vec<Logged>,
    ended: Ended,
    /// The time since which every lease is kept one by one; `None`: since the start.
    pub(crate) complete_since: Option<Instant>,
    pub(crate) steps: Vec<Arc<Step>>,
    /// The worker and the slot of each number.
    pub(crate) slots: Arc<Vec<(WorkerId, u32)>>,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    slots: Arc<Vec<(WorkerId, u32)>>,
    numbers: HashMap<(WorkerId, u32), usize>,
    /// End of the last lease of each slot: a lease that was sent ahead begins then.
    last_ends: HashMap<usize, Instant>,
    open: BTreeMap<AttemptId, (Logged, u64)>,
    /// The last open lease that the last sweep has looked at; `None` where it came to the end.
    swept: Option<AttemptId>,
    /// Number of open leases of each slot.
    open_at: HashMap<usize, u32>,
    /// The open lease of a job by its first task.
    begun: HashMap<(JobId, u64), AttemptId>,
    failed: Failed,
    ended: Ended,
    steps: VecDeque<Arc<Step>>,
}

/// A lease that begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun<'a> {
    pub(crate) attempt: AttemptId,
    pub(crate) worker: &'a WorkerId,
    /// `None` for a worker that pulls: the lease gets the first slot without one.
    pub(crate) slot: Option<u32>,
    pub(crate) job: JobId,
    pub(crate) kind: JobKind,
    pub(crate) tasks: &'a std::ops::Range<u64>,
}

impl LeaseLog {
    pub(crate) fn new(is_on: bool) -> Self {
        Self { is_on, log: Mutex::default() }
    }

    pub(crate) fn began(&self, lease: Begun<'_>, now: Instant) {
        if !self.is_on {
            return;
        }
        let mut log = self.lock();
        let slot = log.number(lease.worker, lease.slot);
        let first = lease.tasks.start;
        let is_second = log.begun.contains_key(&(lease.job, first)) || log.failed.has(lease.job, first);
        log.begun.insert((lease.job, first), lease.attempt);
        let tasks = lease.tasks.end - first;
        let logged = Logged { slot, job: lease.job, kind: lease.kind, tasks, start: now, end: None, is_second };
        *log.open_at.entry(slot).or_default() += 1;
        log.open.insert(lease.attempt, (logged, first));
    }

    /// Notes that a lease goes on without the tasks from `beyond` on. Without effect on an unknown lease.
    pub(crate) fn shortened(&self, attempt: AttemptId, beyond: u64) {
        let mut log = self.lock();
        let Some((lease, first)) = log.open.get_mut(&attempt) else { return };
        lease.tasks = lease.tasks.min(beyond.saturating_sub(*first));
    }

    /// Notes the end of a lease. Without effect on an unknown lease.
    pub(crate) fn ended(&self, attempt: AttemptId, end: End, now: Instant) {
        self.lock().end(attempt, end, now);
    }

    /// Ends the leases for which `is_held` is false: their end was not noted here. Looks at a bounded number of leases; calls
    /// that follow each other look at all of them in turn.
    pub(crate) fn sweep(&self, older_than: Instant, now: Instant, is_held: impl Fn(AttemptId) -> bool) {
        let old = self.lock().next_to_sweep(older_than);
        let gone: Vec<_> = old.into_iter().filter(|attempt| !is_held(*attempt)).collect();
        let mut log = self.lock();
        for attempt in gone {
            log.end(attempt, End::Stopped, now);
        }
    }

    /// Calls `view` with the log, in which no lease begins or ends meanwhile.
    pub(crate) fn view<T>(&self, view: impl FnOnce(&Log) -> T) -> T {
        view(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Leases that are kept one by one, the newest first: those that run, then those that ended.
    pub(crate) fn leases(&self) -> Vec<Logged> {
        let ended = self.ended.newest_first().filter(|lease| lease.end.is_none_or(|(end, _)| end > self.start));
        self.running.iter().copied().chain(ended).collect()
    }
}

impl Log {
    /// A copy of the leases that run or ended after `start`, and of the steps that end after it.
    pub(crate) fn recent(&self, start: Instant) -> Recent {
        Recent {
            start,
            running: self.running().collect(),
            ended: self.ended.clone(),
            complete_since: self.ended.complete_since(),
            steps: self.steps.iter().filter(|step| step.start + STEP > start).cloned().collect(),
            slots: Arc::clone(&self.slots),
        }
    }

    fn running(&self) -> impl Iterator<Item = Logged> {
        self.open.values().map(|(lease, _)| self.placed(*lease))
    }

    /// The open leases from before a time, the next ones after those that the last call returned.
    fn next_to_sweep(&mut self, older_than: Instant) -> Vec<AttemptId> {
        let start = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.open.range((start, Bound::Unbounded));
        let old = later.filter(|(_, (lease, _))| lease.start < older_than).map(|(attempt, _)| *attempt);
        let old: Vec<_> = old.take(MAX_SWEPT).collect();
        self.swept = old.last().copied().filter(|_| old.len() == MAX_SWEPT);
        old
    }

    fn number(&mut self, worker: &WorkerId, slot: Option<u32>) -> usize {
        let slot = slot.unwrap_or_else(|| self.free_slot(worker));
        if let Some(number) = self.numbers.get(&(worker.clone(), slot)) {
            return *number;
        }
        if self.slots.len() == MAX_SLOTS {
            *self = Self::default();
        }
        Arc::make_mut(&mut self.slots).push((worker.clone(), slot));
        self.numbers.insert((worker.clone(), slot), self.slots.len() - 1);
        self.slots.len() - 1
    }

    /// The first slot of a pulling worker that has no lease.
    fn free_slot(&self, worker: &WorkerId) -> u32 {
        let mut slot = 0;
        while let Some(number) = self.numbers.get(&(worker.clone(), slot))
            && self.open_at.contains_key(number)
        {
            slot += 1;
        }
        slot
    }

    /// The lease with its start: a lease that was sent ahead begins when the lease before it ends.
    fn placed(&self, lease: Logged) -> Logged {
        let start = self.last_ends.get(&lease.slot).map_or(lease.start, |end| lease.start.max(*end));
        Logged { start, ..lease }
    }

    fn end(&mut self, attempt: AttemptId, end: End, now: Instant) {
        let Some((lease, first)) = self.open.remove(&attempt) else { return };
        if self.begun.get(&(lease.job, first)) == Some(&attempt) {
            self.begun.remove(&(lease.job, first));
        }
        if let Some(open) = self.open_at.get_mut(&lease.slot) {
            *open -= 1;
            if *open == 0 {
                self.open_at.remove(&lease.slot);
            }
        }
        if end == End::Failed {
            self.failed.note(lease.job, first, first.saturating_add(lease.tasks));
        }
        let lease = self.placed(lease);
        let lease = Logged { start: lease.start.min(now), end: Some((now, end)), ..lease };
        self.last_ends.insert(lease.slot, now);
        self.count(&lease, end, now);
        self.ended.push(lease);
    }

    /// Adds a lease that has ended to the steps that it covers.
    fn count(&mut self, lease: &Logged, end: End, now: Instant) {
        self.step_until(now);
        let is_last = |step: &Step| step.start <= now && now < step.start + STEP;
        for step in self.steps.iter_mut().rev().take_while(|step| step.start + STEP > lease.start) {
            let step = Arc::make_mut(step);
            let busy = now.min(step.start + STEP).saturating_duration_since(lease.start.max(step.start));
            let ended = u32::from(is_last(step));
            step.add(lease, busy, ended, ended * u32::from(end == End::Failed));
        }
    }

    fn step_until(&mut self, now: Instant) {
        let mut next = self.steps.back().map_or(now, |last| last.start + STEP);
        // After a pause longer than the whole log, the steps begin anew.
        if now.saturating_duration_since(next) > STEP * u32::try_from(MAX_STEPS).unwrap_or(u32::MAX) {
            self.steps.clear();
            next = now;
        }
        while next <= now {
            if self.steps.len() == MAX_STEPS {
                self.steps.pop_front();
            }
            self.steps.push_back(Arc::new(Step { start: next, shares: BTreeMap::new(), uncounted: 0 }));
            next += STEP;
        }
    }
}

impl Step {
    fn add(&mut self, lease: &Logged, busy: Duration, ended: u32, failed: u32) {
        if !self.shares.contains_key(&lease.slot) && self.shares.len() == MAX_SLOTS_PER_STEP {
            self.uncounted += u64::from(ended);
            return;
        }
        let none = Share { job: lease.job, kind: lease.kind, busy: Duration::ZERO, leases: 0, failed: 0, seconds: 0 };
        let share = self.shares.entry(lease.slot).or_insert(none);
        // The job of the last lease stands for all of the step.
        (share.job, share.kind) = (lease.job, lease.kind);
        share.busy = (share.busy + busy).min(STEP);
        share.leases += ended;
        share.failed += failed;
        share.seconds += ended * u32::from(lease.is_second);
    }
}

impl End {
    /// `None` where the worker goes on: the end comes in another way.
    pub(crate) fn of(end: LeaseEnd) -> Option<Self> {
        match end {
            LeaseEnd::Completed => Some(End::Done),
            LeaseEnd::Failed | LeaseEnd::Expired => Some(End::Failed),
            LeaseEnd::Returned | LeaseEnd::Revoked | LeaseEnd::Refused => Some(End::Stopped),
            LeaseEnd::Disconnected => None,
        }
    }
}
