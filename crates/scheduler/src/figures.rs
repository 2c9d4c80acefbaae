//! Counts over all jobs, kept with every change: a query reads no job.

use std::collections::BTreeMap;

use model::{JobKind, JobState, Priority, TaskCounts};

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Jobs of which no task was ever leased.
    pub queued: u64,
    /// Jobs of which some task was leased.
    pub running: u64,
    /// Jobs that lease nothing until they are resumed.
    pub paused: u64,
}

/// The demand of the jobs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Open tasks that an active worker could run.
    pub runnable: u64,
    /// Open tasks of paused jobs.
    pub paused: u64,
    /// Open tasks that no active worker could run.
    pub unservable: u64,
    /// Tasks that workers hold.
    pub running: u64,
    /// Slots that could work now: one for each lease that is held, and one for each full lease that the open tasks of
    /// jobs which are not paused would make, by the latest speed. Never more than running and open tasks.
    pub wanted_slots: u64,
}

/// A job's part in the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobFigures {
    pub(crate) kind: JobKind,
    pub(crate) priority: Priority,
    pub(crate) state: JobState,
    pub(crate) counts: TaskCounts,
    /// Pending tasks, beside the returned ones, that nothing of the job itself keeps from being leased now.
    pub(crate) claimable: u64,
    pub(crate) wanted_slots: u64,
}

impl JobFigures {
    /// Tasks that could be leased if there were slots.
    pub(crate) fn open_tasks(&self) -> u64 {
        if self.state == JobState::Paused { 0 } else { self.counts.pending }
    }

    /// Whether slots that found nothing before may find tasks of the job now.
    pub(crate) fn offers_more_than(&self, before: &Self) -> bool {
        before.open_tasks() < self.open_tasks() || before.claimable < self.claimable
    }
}

#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) counts: TaskCounts,
    /// Open tasks that an active worker could run, by the priorities 1 to 9 of their jobs.
    pub(crate) runnable: [u64; 9],
    pub(crate) jobs: JobCounts,
    demand: BTreeMap<JobKind, Demand>,
}

// A job may have up to 2^64 - 1 tasks: sums of several wrap, and are exact again when it is over.
fn add(all: &mut u64, more: u64) {
    *all = all.wrapping_add(more);
}

fn subtract(all: &mut u64, less: u64) {
    *all = all.wrapping_sub(less);
}

impl Figures {
    pub(crate) fn add(&mut self, job: &JobFigures, is_served: bool) {
        self.apply(job, is_served, add);
    }

    pub(crate) fn subtract(&mut self, job: &JobFigures, is_served: bool) {
        self.apply(job, is_served, subtract);
    }

    fn apply(&mut self, job: &JobFigures, is_served: bool, change: fn(&mut u64, u64)) {
        let JobFigures { kind, priority, state, counts, wanted_slots, .. } = *job;
        let all = &mut self.counts;
        change(&mut all.total, counts.total);
        change(&mut all.pending, counts.pending);
        change(&mut all.running, counts.running);
        change(&mut all.succeeded, counts.succeeded);
        change(&mut all.failed, counts.failed);
        if is_served {
            change(&mut self.runnable[usize::from(priority.get()) - 1], job.open_tasks());
        }
        let demand = self.demand.entry(kind).or_default();
        change(&mut demand.running, counts.running);
        change(&mut demand.wanted_slots, wanted_slots);
        let (jobs, open) = match (state, is_served) {
            (JobState::Paused, _) => (&mut self.jobs.paused, &mut demand.paused),
            (JobState::Running, true) => (&mut self.jobs.running, &mut demand.runnable),
            (JobState::Running, false) => (&mut self.jobs.running, &mut demand.unservable),
            (_, true) => (&mut self.jobs.queued, &mut demand.runnable),
            (_, false) => (&mut self.jobs.queued, &mut demand.unservable),
        };
        change(jobs, 1);
        change(open, counts.pending);
    }

    /// Notes that a class with `open` tasks, by the priorities 1 to 9, has its first worker, or has lost its last.
    pub(crate) fn serve(&mut self, kind: JobKind, open: &[u64; 9], is_served: bool) {
        let change = if is_served { add } else { subtract };
        self.runnable.iter_mut().zip(open).for_each(|(all, open)| change(all, *open));
        let open = open.iter().fold(0_u64, |sum, open| sum.wrapping_add(*open));
        let demand = self.demand.entry(kind).or_default();
        let (from, to) = if is_served {
            (&mut demand.unservable, &mut demand.runnable)
        } else {
            (&mut demand.runnable, &mut demand.unservable)
        };
        subtract(from, open);
        add(to, open);
    }

    pub(crate) fn demand(&self, kind: JobKind) -> Demand {
        self.demand.get(&kind).copied().unwrap_or_default()
    }

    pub(crate) fn demands(&self) -> impl Iterator<Item = Demand> {
        self.demand.values().copied()
    }
}
