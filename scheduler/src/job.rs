//! One job's tasks: which were never given out, which came back, which are done.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::lease::WorkerKey;
use crate::pace::Pace;
use crate::scheduler::JobSpec;

/// Consecutive tasks with one history.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) tasks: Range<u64>,
    /// Attempts at it that failed.
    pub(crate) failures: u32,
    /// Who had it last: a retry goes to another worker while there is one.
    pub(crate) last_worker: Option<WorkerKey>,
}

impl Run {
    pub(crate) fn len(&self) -> u64 {
        self.tasks.end - self.tasks.start
    }
}

/// A job of `tasks` numbered tasks. Its memory grows with what is in flight, never with their number.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tasks: u64,
    /// What a lease pays before its first task.
    pub(crate) setup: Duration,
    pub(crate) submitted_at: Instant,
    /// The first task that was never given out.
    cursor: u64,
    /// What came back, the next first.
    returned: VecDeque<Run>,
    returned_tasks: u64,
    pub(crate) done: u64,
    pub(crate) total: u128,
    paces: HashMap<WorkerKey, Pace>,
    latest_pace: Option<Pace>,
}

impl Job {
    pub(crate) fn new(spec: JobSpec, submitted_at: Instant) -> Self {
        Self {
            tasks: spec.tasks,
            setup: spec.setup,
            submitted_at,
            cursor: 0,
            returned: VecDeque::new(),
            returned_tasks: 0,
            done: 0,
            total: 0,
            paces: HashMap::new(),
            latest_pace: None,
        }
    }

    /// Tasks that nobody holds.
    pub(crate) fn unclaimed(&self) -> u64 {
        self.tasks - self.cursor + self.returned_tasks
    }

    /// Takes up to `limit` tasks: those that came back go first, save any that `avoid` itself gave back.
    pub(crate) fn take(&mut self, limit: u64, avoid: Option<WorkerKey>) -> Option<Run> {
        let fits = |run: &Run| avoid.is_none() || run.last_worker != avoid;
        if let Some(index) = self.returned.iter().position(fits) {
            return Some(self.take_returned(index, limit));
        }
        if self.cursor == self.tasks {
            return None;
        }
        let start = self.cursor;
        self.cursor += limit.min(self.tasks - start);
        Some(Run { tasks: start..self.cursor, failures: 0, last_worker: None })
    }

    /// A run that failed is tried again by halves, so that a task that always fails ends up alone.
    fn take_returned(&mut self, index: usize, limit: u64) -> Run {
        let run = &mut self.returned[index];
        let limit = if run.failures > 0 { limit.min(run.len().div_ceil(2)) } else { limit };
        let taken = Run { tasks: run.tasks.start..run.tasks.end.min(run.tasks.start + limit), ..run.clone() };
        run.tasks.start = taken.tasks.end;
        if run.tasks.is_empty() {
            self.returned.remove(index);
        }
        self.returned_tasks -= taken.len();
        taken
    }

    /// Takes back what a lease did not bring to an end; it is the next to be given out.
    pub(crate) fn give_back(&mut self, run: Run) {
        self.returned_tasks += run.len();
        self.returned.push_front(run);
    }

    pub(crate) fn pace(&self, worker: WorkerKey) -> Option<Pace> {
        self.paces.get(&worker).copied().or(self.latest_pace)
    }

    pub(crate) fn learn_pace(&mut self, worker: WorkerKey, tasks: u64, busy: Duration) {
        let pace = Pace::learn(self.paces.get(&worker).copied(), tasks, busy, self.setup);
        self.paces.insert(worker, pace);
        self.latest_pace = Some(pace);
    }

    pub(crate) fn forget_pace(&mut self, worker: WorkerKey) {
        self.paces.remove(&worker);
    }

    /// Every task is in one place only, and the counters say what the places hold.
    #[cfg(test)]
    pub(crate) fn check(&self, leased: impl Iterator<Item = Range<u64>>) {
        let returned = self.returned.iter().map(|run| run.tasks.clone());
        assert_eq!(returned.clone().map(|tasks| tasks.end - tasks.start).sum::<u64>(), self.returned_tasks);
        let mut held: Vec<_> = leased.chain(returned).collect();
        held.sort_by_key(|tasks| tasks.start);
        assert!(held.iter().all(|tasks| tasks.start < tasks.end && tasks.end <= self.cursor), "{held:?}");
        assert!(held.windows(2).all(|pair| pair[0].end <= pair[1].start), "held twice: {held:?}");
        let in_hand: u64 = held.iter().map(|tasks| tasks.end - tasks.start).sum();
        assert_eq!(self.done + in_hand + (self.tasks - self.cursor), self.tasks, "a task is lost");
        assert!(self.done < self.tasks, "a finished job is still here");
    }
}
