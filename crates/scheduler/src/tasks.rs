//! A job's tasks: open, failed and tried again, done.

#[cfg(any(test, feature = "invariants"))]
mod check;
mod slope;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use model::WorkerId;
use rangemap::RangeSet;

use crate::lease::{Lane, WorkerKey};
use crate::runs::OpenRuns;
use crate::spec::{History, Order};
pub(crate) use slope::Slope;

/// A task whose attempts ended with their workers this many times counts as their cause.
pub(crate) const MAX_KILLS: u32 = 3;

/// Returned runs that are tried for a worker, beside the compared runs: if so many are held back from the worker, the open tasks
/// come first.
const MAX_RETURNED_LOOKED_AT: usize = 64;

/// Runs of one job whose outcome waits for another worker's. No other tasks are leased when there are so many, so that the
/// memory of their workers is bounded.
const MAX_CONTESTED: usize = 256;

/// Consecutive tasks with one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) tasks: Range<u64>,
    /// Number of failed attempts at the run.
    pub(crate) failures: u32,
    /// Failures among these that ended with their worker.
    pub(crate) kills: u32,
    /// Times that a worker handed the run back since its last failure.
    pub(crate) releases: u32,
    /// The last worker that failed at the run or handed it back.
    pub(crate) last_worker: Option<WorkerKey>,
    /// End of the time in which the last worker does not get the run while others could.
    pub(crate) held_back_until: Option<Instant>,
    /// The workers that have computed the run, if its outcome waits for another worker's.
    pub(crate) voters: Vec<WorkerId>,
}

impl Run {
    pub(crate) fn new(tasks: Range<u64>) -> Self {
        Self { tasks, failures: 0, kills: 0, releases: 0, last_worker: None, held_back_until: None, voters: Vec::new() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.tasks.end - self.tasks.start
    }

    /// Whether the run may fail twice without its tasks being out of attempts after the first failure.
    pub(crate) fn may_fail_twice(&self, max_attempts: u32) -> bool {
        self.failures.saturating_add(2) <= max_attempts && self.kills + 2 <= MAX_KILLS
    }

    /// Whether the run goes back to the tasks that were never given out.
    fn is_unharmed(&self) -> bool {
        self.failures == 0 && self.releases == 0 && !self.is_contested()
    }

    /// Whether the run's outcome waits for another worker's.
    pub(crate) fn is_contested(&self) -> bool {
        !self.voters.is_empty()
    }

    /// A run that a lone worker handed back is still held back from it, or the two would go round at full speed.
    fn suits(&self, claimant: &Claimant<'_>) -> bool {
        if self.is_contested() && (self.len() > claimant.most || self.voters.contains(claimant.name)) {
            return false;
        }
        let is_last = self.last_worker == Some(claimant.lane.worker);
        let is_held_back = self.held_back_until.is_some_and(|until| claimant.now < until);
        !(is_last && is_held_back && (claimant.has_peers || self.releases > 0))
    }
}

/// The lane that a lease is cut for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) lane: Lane,
    /// The worker's name.
    pub(crate) name: &'a WorkerId,
    /// Most tasks of the lease.
    pub(crate) most: u64,
    /// Whether other workers could run the job.
    pub(crate) has_peers: bool,
    /// Tasks of the shortest run that is worth a set-up of its own.
    pub(crate) least_half: u64,
    pub(crate) now: Instant,
}

/// A place from which a lease can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Cut from the runs that failed or were handed back, at this index.
    Returned(usize),
    /// Cut from the tasks that were never leased, or came back unharmed.
    Open {
        /// The first task of the run. Other lanes walk the tasks before `from`.
        start: u64,
        /// The first task of the lease.
        from: u64,
        /// The end of the run that the lease is cut from.
        end: u64,
        /// Whether the lane's last lease ended at `from`.
        continues: bool,
    },
}

impl Offer {
    /// The offer for a lease of up to `limit` tasks: the far part of a run that other lanes walk becomes as long as the nearest number
    /// of such leases, at least one, instead of leaving a rest that is too small for a lease.
    pub(crate) fn in_whole_leases(self, limit: u64) -> Self {
        match self {
            Self::Open { start, from, end, continues } if start < from => {
                let limit = limit.max(1);
                let leases = ((end - from + limit / 2) / limit).max(1);
                let from = end.saturating_sub(leases.saturating_mul(limit)).max(start);
                Self::Open { start, from, end, continues }
            }
            Self::Open { .. } | Self::Returned(_) => self,
        }
    }
}

/// Memory grows with the leases in flight, never with the number of tasks.
#[derive(Debug)]
pub(crate) struct TaskSet {
    total: u64,
    open: OpenRuns,
    /// Runs that failed and have attempts left, or were handed back; the next first.
    returned: VecDeque<Run>,
    returned_tasks: u64,
    /// Number of returned runs that have failed.
    retries: usize,
    /// Number of returned runs that wait for another worker's outcome.
    contested: usize,
    failed: RangeSet<u64>,
    failed_tasks: u64,
    done: u64,
    /// Whether the last task waits until all others are done.
    last_waits: bool,
}

fn len(tasks: &Range<u64>) -> u64 {
    tasks.end - tasks.start
}

impl TaskSet {
    pub(crate) fn new(total: u64, last_waits: bool, history: &History) -> Self {
        let mut open = OpenRuns::default();
        open.insert(0..total);
        let returned: VecDeque<_> = history
            .retries
            .iter()
            .map(|(tasks, failures)| Run { failures: *failures, ..Run::new(tasks.clone()) })
            .collect();
        let known = history.over.iter().chain(returned.iter().map(|run| &run.tasks));
        known.for_each(|tasks| open.remove(tasks));
        let failed_tasks = history.failed.iter().map(len).sum();
        let last = total - 1..total;
        // A last task that was ever leased was preceded by the end of all others.
        let last_waits = last_waits && open.open_within(&last) > 0;
        if last_waits {
            open.remove(&last);
        }
        let mut tasks = Self {
            total,
            open,
            returned_tasks: returned.iter().map(Run::len).sum(),
            retries: returned.iter().filter(|run| run.failures > 0).count(),
            contested: 0,
            returned,
            failed: history.failed.iter().cloned().collect(),
            failed_tasks,
            done: history.over.iter().map(len).sum::<u64>() - failed_tasks,
            last_waits,
        };
        tasks.open_last_if_due();
        tasks
    }

    /// The last task is open once all others are done.
    fn open_last_if_due(&mut self) {
        if self.last_waits && self.done == self.total - 1 {
            self.last_waits = false;
            self.open.insert(self.total - 1..self.total);
        }
    }

    /// Number of tasks that wait for others to be done: 1 or 0.
    pub(crate) fn waiting(&self) -> u64 {
        u64::from(self.last_waits)
    }

    /// Number of tasks that no attempt holds and that still have to be done.
    pub(crate) fn unclaimed(&self) -> u64 {
        self.open.tasks() + self.returned_tasks
    }

    /// Number of these tasks, beside the returned ones, that may be leased now.
    pub(crate) fn claimable(&self) -> u64 {
        if self.contested >= MAX_CONTESTED { 0 } else { self.open.tasks() }
    }

    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed_tasks
    }

    pub(crate) fn held(&self) -> u64 {
        self.total - self.unclaimed() - self.waiting() - self.done - self.failed_tasks
    }

    pub(crate) fn has_retries(&self) -> bool {
        self.retries > 0
    }

    /// Whether some of the returned tasks wait for another worker's outcome.
    pub(crate) fn has_contested(&self) -> bool {
        self.contested > 0
    }

    /// The place from which a lease for a lane would be cut: returned runs go first, except those held back from its worker. A
    /// run that another lane walks is split only if the far half is worth a set-up.
    pub(crate) fn offer(&self, order: Order, claimant: &Claimant<'_>) -> Option<Offer> {
        // A worker may have computed most of the compared runs: they must not hide the others from it.
        let mut returned = self.returned.iter().take(MAX_RETURNED_LOOKED_AT.saturating_add(self.contested));
        if let Some(index) = returned.position(|run| run.suits(claimant)) {
            return Some(Offer::Returned(index));
        }
        if self.contested >= MAX_CONTESTED {
            return None;
        }
        match order {
            Order::FirstInFirstOut => self.open.first().map(|run| Self::at_start(&run, false)),
            Order::Stripes => self.stripe(claimant),
        }
    }

    fn stripe(&self, claimant: &Claimant<'_>) -> Option<Offer> {
        if let Some(run) = self.open.continuation(claimant.lane) {
            return Some(Self::at_start(&run, true));
        }
        if let Some(run) = self.open.first_unwalked() {
            return Some(Self::at_start(&run, false));
        }
        let longest = self.open.longest()?;
        let half = (len(&longest) / 2).max(1);
        let (start, from, end) = (longest.start, longest.end - half, longest.end);
        (half >= claimant.least_half).then_some(Offer::Open { start, from, end, continues: false })
    }

    fn at_start(run: &Range<u64>, continues: bool) -> Offer {
        Offer::Open { start: run.start, from: run.start, end: run.end, continues }
    }

    /// Number of tasks, at most `limit`, from the offer's place on that are of one section.
    pub(crate) fn within_section(&self, offer: Offer, sections: &[u64], limit: u64) -> u64 {
        let start = match offer {
            Offer::Returned(index) => self.returned[index].tasks.start,
            Offer::Open { from, .. } => from,
        };
        let next = sections.get(sections.partition_point(|section| *section <= start));
        next.map_or(limit, |next| limit.min(next - start))
    }

    /// Cuts up to `limit` tasks from where the offer says; `walker` continues where they end.
    pub(crate) fn take(&mut self, offer: Offer, walker: Option<Lane>, limit: u64) -> Run {
        let run = match offer {
            Offer::Returned(index) => self.take_returned(index, limit),
            Offer::Open { from, end, .. } => {
                let tasks = from..end.min(from.saturating_add(limit));
                self.open.remove(&tasks);
                Run::new(tasks)
            }
        };
        if let Some(lane) = walker {
            self.open.walk(lane, run.tasks.end);
        }
        run
    }

    /// A run that failed is tried again by halves, so that a task that always fails ends up alone. A run whose outcome is
    /// compared stays whole.
    fn take_returned(&mut self, index: usize, limit: u64) -> Run {
        let run = &self.returned[index];
        let tasks = if run.is_contested() {
            run.tasks.clone()
        } else {
            let most = if run.failures > 0 { run.len().div_ceil(2) } else { run.len() };
            run.tasks.start..run.tasks.start + limit.min(most)
        };
        self.cut_returned(index, &tasks)
    }

    /// Takes exactly these tasks if all are open. If their failures differ, the highest count applies.
    pub(crate) fn take_exactly(&mut self, tasks: &Range<u64>, walker: Option<Lane>) -> Option<Run> {
        let overlap = |run: &Run| run.tasks.end.min(tasks.end).saturating_sub(run.tasks.start.max(tasks.start));
        let returned: u64 = self.returned.iter().map(overlap).sum();
        let is_compared = returned > 0 && self.returned.iter().any(|run| run.is_contested() && overlap(run) > 0);
        if tasks.is_empty() || is_compared || self.open.open_within(tasks) + returned != len(tasks) {
            return None;
        }
        let mut taken = Run::new(tasks.clone());
        for index in (0..self.returned.len()).rev().filter(|_| returned > 0) {
            if overlap(&self.returned[index]) > 0 {
                let part = self.cut_returned(index, tasks);
                taken.failures = taken.failures.max(part.failures);
                taken.kills = taken.kills.max(part.kills);
            }
        }
        self.open.remove(tasks);
        if let Some(lane) = walker {
            self.open.walk(lane, tasks.end);
        }
        Some(taken)
    }

    /// Cuts the part of a returned run that lies within `tasks`; the rest of the run stays in its place.
    fn cut_returned(&mut self, index: usize, tasks: &Range<u64>) -> Run {
        let run = self.returned.remove(index).expect("the index was just found");
        let part = run.tasks.start.max(tasks.start)..run.tasks.end.min(tasks.end);
        let is_retry = run.failures > 0;
        self.contested -= usize::from(run.is_contested());
        self.returned_tasks -= len(&part);
        self.retries -= usize::from(is_retry);
        for rest in [part.end..run.tasks.end, run.tasks.start..part.start] {
            if !rest.is_empty() {
                self.returned.insert(index, Run { tasks: rest, ..run.clone() });
                self.retries += usize::from(is_retry);
            }
        }
        Run { tasks: part, ..run }
    }

    /// Whether some of these tasks are open and have failed before.
    pub(crate) fn have_failed(&self, tasks: &Range<u64>) -> bool {
        let overlaps = |run: &Run| run.tasks.start < tasks.end && tasks.start < run.tasks.end;
        self.returned.iter().any(|run| run.failures > 0 && overlaps(run))
    }

    /// Notes that a lane continues elsewhere: others may continue where it was. Returns whether there is something to continue.
    pub(crate) fn leave(&mut self, lane: Lane) -> bool {
        self.open.leave(lane)
    }

    /// Takes the tasks of a lease back that did not complete; those that failed are the next to be given out.
    pub(crate) fn give_back(&mut self, run: Run) {
        if run.is_unharmed() {
            return self.open.insert(run.tasks);
        }
        self.returned_tasks += run.len();
        self.contested += usize::from(run.is_contested());
        if run.failures > 0 {
            self.retries += 1;
            self.returned.push_front(run);
        } else {
            self.returned.push_back(run);
        }
    }

    /// Notes that held tasks are done.
    pub(crate) fn finish(&mut self, run: &Run) {
        self.done += run.len();
        self.open_last_if_due();
    }

    /// Opens done tasks again.
    pub(crate) fn reopen_done(&mut self, tasks: &Range<u64>) {
        self.done -= len(tasks);
        self.open.insert(tasks.clone());
    }

    /// Notes that held tasks have no attempts left.
    pub(crate) fn give_up(&mut self, run: Run) {
        self.failed_tasks += run.len();
        self.failed.insert(run.tasks);
    }

    /// Opens failed tasks again.
    pub(crate) fn reopen_failed(&mut self) {
        for tasks in std::mem::take(&mut self.failed).iter() {
            self.open.insert(tasks.clone());
        }
        self.failed_tasks = 0;
    }
}
