//! One job's tasks: which nobody holds, which failed and come again, which are done.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

use rangemap::RangeSet;

use crate::lease::{Lane, WorkerKey};
use crate::spec::{History, Order};

/// Consecutive tasks with one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) tasks: Range<u64>,
    /// Attempts at it that failed.
    pub(crate) failures: u32,
    /// How many of these ended with their worker.
    pub(crate) kills: u32,
    /// Who failed at it last: a retry goes to another worker while there is one.
    pub(crate) last_worker: Option<WorkerKey>,
}

impl Run {
    pub(crate) fn new(tasks: Range<u64>) -> Self {
        Self { tasks, failures: 0, kills: 0, last_worker: None }
    }

    pub(crate) fn len(&self) -> u64 {
        self.tasks.end - self.tasks.start
    }
}

/// Where a lease could be cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// From what failed: the index among the retries.
    Retry(usize),
    /// From what was never given out, or came back unharmed.
    Open {
        /// The first task.
        from: u64,
        /// The end of the run that it is cut from.
        end: u64,
        /// Whether the lane's last lease ended there.
        continues: bool,
    },
}

/// Its memory grows with what is in flight, never with the number of tasks.
#[derive(Debug)]
pub(crate) struct TaskSet {
    total: u64,
    open: RangeSet<u64>,
    open_tasks: u64,
    /// What failed and has attempts left, the next first.
    retries: VecDeque<Run>,
    retry_tasks: u64,
    failed: RangeSet<u64>,
    failed_tasks: u64,
    done: u64,
    /// Where the lanes that walk this job go on.
    steps: HashMap<Lane, u64>,
}

fn len(tasks: &Range<u64>) -> u64 {
    tasks.end - tasks.start
}

impl TaskSet {
    pub(crate) fn new(total: u64, history: &History) -> Self {
        let mut open = RangeSet::new();
        open.insert(0..total);
        let retries: VecDeque<_> = history
            .retries
            .iter()
            .map(|(tasks, failures)| Run { failures: *failures, ..Run::new(tasks.clone()) })
            .collect();
        let known = history.over.iter().chain(retries.iter().map(|run| &run.tasks));
        known.for_each(|tasks| open.remove(tasks.clone()));
        let failed_tasks = history.failed.iter().map(len).sum();
        Self {
            total,
            open_tasks: open.iter().map(len).sum(),
            open,
            retry_tasks: retries.iter().map(Run::len).sum(),
            retries,
            failed: history.failed.iter().cloned().collect(),
            failed_tasks,
            done: history.over.iter().map(len).sum::<u64>() - failed_tasks,
            steps: HashMap::new(),
        }
    }

    /// Tasks that nobody holds and that still have to be done.
    pub(crate) fn unclaimed(&self) -> u64 {
        self.open_tasks + self.retry_tasks
    }

    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed_tasks
    }

    pub(crate) fn held(&self) -> u64 {
        self.total - self.unclaimed() - self.done - self.failed_tasks
    }

    pub(crate) fn has_retries(&self) -> bool {
        !self.retries.is_empty()
    }

    /// Where a lease for `lane` would be cut: what failed goes first, save what `avoid` itself failed at. A run that a
    /// lane walks is split for another one only if the far half has at least `least_half` tasks.
    pub(crate) fn offer(&self, order: Order, lane: Lane, avoid: Option<WorkerKey>, least_half: u64) -> Option<Offer> {
        let fits = |run: &Run| avoid.is_none() || run.last_worker != avoid;
        if let Some(index) = self.retries.iter().position(fits) {
            return Some(Offer::Retry(index));
        }
        match order {
            Order::FirstInFirstOut => self.open.first().map(|run| Self::at_start(run, false)),
            Order::Stripes => self.stripe(lane, least_half),
        }
    }

    fn stripe(&self, lane: Lane, least_half: u64) -> Option<Offer> {
        if let Some(next) = self.steps.get(&lane)
            && let Some(run) = self.open.get(next).filter(|run| run.start == *next)
        {
            return Some(Self::at_start(run, true));
        }
        let walked: BTreeSet<_> = self.steps.values().copied().collect();
        if let Some(free) = self.open.iter().find(|run| !walked.contains(&run.start)) {
            return Some(Self::at_start(free, false));
        }
        let longest = self.open.iter().max_by_key(|run| len(run))?;
        let half = len(longest) / 2;
        let from = longest.end - half.max(1);
        (half.max(1) >= least_half).then_some(Offer::Open { from, end: longest.end, continues: false })
    }

    fn at_start(run: &Range<u64>, continues: bool) -> Offer {
        Offer::Open { from: run.start, end: run.end, continues }
    }

    /// Cuts up to `limit` tasks from where the offer says; `walker` will go on where they end.
    pub(crate) fn take(&mut self, offer: Offer, walker: Option<Lane>, limit: u64) -> Run {
        let run = match offer {
            Offer::Retry(index) => self.take_retry(index, limit),
            Offer::Open { from, end, .. } => {
                let tasks = from..end.min(from.saturating_add(limit));
                self.open.remove(tasks.clone());
                self.open_tasks -= len(&tasks);
                Run::new(tasks)
            }
        };
        self.steps.extend(walker.map(|lane| (lane, run.tasks.end)));
        run
    }

    /// A run that failed is tried again by halves, so that a task that always fails ends up alone.
    fn take_retry(&mut self, index: usize, limit: u64) -> Run {
        let run = &mut self.retries[index];
        let limit = limit.min(run.len().div_ceil(2));
        let taken = Run { tasks: run.tasks.start..run.tasks.start + limit, ..run.clone() };
        run.tasks.start = taken.tasks.end;
        if run.tasks.is_empty() {
            self.retries.remove(index);
        }
        self.retry_tasks -= taken.len();
        taken
    }

    /// A lane goes elsewhere: others may go on where it was.
    pub(crate) fn leave(&mut self, lane: Lane) {
        self.steps.remove(&lane);
    }

    /// Takes back what a lease did not bring to an end; what failed is the next to be given out.
    pub(crate) fn give_back(&mut self, run: Run) {
        if run.failures == 0 {
            self.open_tasks += run.len();
            self.open.insert(run.tasks);
        } else {
            self.retry_tasks += run.len();
            self.retries.push_front(run);
        }
    }

    /// What was held is done.
    pub(crate) fn finish(&mut self, run: &Run) {
        self.done += run.len();
    }

    /// What was held has no attempts left.
    pub(crate) fn give_up(&mut self, run: Run) {
        self.failed_tasks += run.len();
        self.failed.insert(run.tasks);
    }

    /// Opens what has failed again.
    pub(crate) fn reopen_failed(&mut self) {
        for tasks in std::mem::take(&mut self.failed).iter() {
            self.open.insert(tasks.clone());
        }
        self.open_tasks += std::mem::take(&mut self.failed_tasks);
    }

    /// Every task is in one place only, and the counters say what the places hold.
    #[cfg(test)]
    pub(crate) fn check(&self, leased: impl Iterator<Item = Range<u64>>) {
        assert_eq!(self.open.iter().map(len).sum::<u64>(), self.open_tasks);
        assert_eq!(self.retries.iter().map(Run::len).sum::<u64>(), self.retry_tasks);
        assert_eq!(self.failed.iter().map(len).sum::<u64>(), self.failed_tasks);
        let retries = self.retries.iter().map(|run| run.tasks.clone());
        let mut placed: Vec<_> =
            leased.chain(retries).chain(self.open.iter().cloned()).chain(self.failed.iter().cloned()).collect();
        placed.sort_by_key(|tasks| tasks.start);
        assert!(placed.iter().all(|tasks| tasks.start < tasks.end && tasks.end <= self.total), "{placed:?}");
        assert!(placed.windows(2).all(|pair| pair[0].end <= pair[1].start), "in two places: {placed:?}");
        assert_eq!(placed.iter().map(len).sum::<u64>() + self.done, self.total, "a task is lost");
    }
}
