//! A job's open tasks as disjoint runs, and the lanes that walk through them. Every query is logarithmic in the number
//! of runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::id_map::IdMap;
use crate::lease::Lane;

fn squares(start: u64, end: u64) -> u128 {
    u128::from(end).pow(2) - u128::from(start).pow(2)
}

#[derive(Debug, Default)]
pub(crate) struct OpenRuns {
    /// Start and end of each run; no two touch.
    runs: BTreeMap<u64, u64>,
    /// Length and start of each run.
    by_length: BTreeSet<(u64, u64)>,
    /// Starts of the runs that no lane walks.
    unwalked: BTreeSet<u64>,
    /// The task at which each lane that walks this job continues.
    steps: IdMap<Lane, u64>,
    /// Number of lanes that continue at a task.
    walkers: IdMap<u64, u32>,
    tasks: u64,
    /// Sum of the squares of the runs' ends less that of their starts: twice the sum of the tasks' places.
    squares: u128,
}

impl OpenRuns {
    /// Number of tasks in all runs.
    pub(crate) fn tasks(&self) -> u64 {
        self.tasks
    }

    /// Twice the sum of the places of all tasks, each in the middle of its task.
    pub(crate) fn squares(&self) -> u128 {
        self.squares
    }

    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.runs.first_key_value().map(|(start, end)| *start..*end)
    }

    pub(crate) fn longest(&self) -> Option<Range<u64>> {
        self.by_length.last().map(|(length, start)| *start..start + length)
    }

    pub(crate) fn first_unwalked(&self) -> Option<Range<u64>> {
        self.unwalked.first().map(|start| *start..self.runs[start])
    }

    /// The run that a lane's last lease ended at.
    pub(crate) fn continuation(&self, lane: Lane) -> Option<Range<u64>> {
        let start = *self.steps.get(&lane)?;
        self.runs.get(&start).map(|end| start..*end)
    }

    /// Number of `tasks` that are open.
    pub(crate) fn open_within(&self, tasks: &Range<u64>) -> u64 {
        let before = self.runs.range(..tasks.start).next_back();
        let inside = self.runs.range(tasks.clone());
        let overlap = |(start, end): (&u64, &u64)| (*end).min(tasks.end).saturating_sub((*start).max(tasks.start));
        before.into_iter().chain(inside).map(overlap).sum()
    }

    /// Adds tasks that are not in any run.
    pub(crate) fn insert(&mut self, tasks: Range<u64>) {
        let Range { mut start, mut end } = tasks;
        if let Some((before, its_end)) = self.runs.range(..start).next_back().map(|(from, to)| (*from, *to))
            && its_end == start
        {
            self.remove_run(before, its_end);
            start = before;
        }
        if let Some(its_end) = self.runs.get(&end).copied() {
            self.remove_run(end, its_end);
            end = its_end;
        }
        self.add_run(start, end);
    }

    /// Removes tasks, of which some may be in no run.
    pub(crate) fn remove(&mut self, tasks: &Range<u64>) {
        let before = self.runs.range(..tasks.start).next_back();
        let touched = before.into_iter().chain(self.runs.range(tasks.clone()));
        let touched: Vec<_> =
            touched.map(|(start, end)| (*start, *end)).filter(|(_, end)| *end > tasks.start).collect();
        for (start, end) in touched {
            self.remove_run(start, end);
            self.add_run(start, end.min(tasks.start));
            self.add_run(start.max(tasks.end), end);
        }
    }

    /// Notes that the lane continues at `task`.
    pub(crate) fn walk(&mut self, lane: Lane, task: u64) {
        self.leave(lane);
        self.steps.insert(lane, task);
        *self.walkers.entry(task).or_default() += 1;
        self.unwalked.remove(&task);
    }

    /// Notes that the lane continues elsewhere. Returns whether that leaves a run without a lane.
    pub(crate) fn leave(&mut self, lane: Lane) -> bool {
        let Some(task) = self.steps.remove(&lane) else { return false };
        let walkers = self.walkers.get_mut(&task).expect("a lane's step is counted");
        *walkers -= 1;
        if *walkers > 0 {
            return false;
        }
        self.walkers.remove(&task);
        self.runs.contains_key(&task) && self.unwalked.insert(task)
    }

    fn add_run(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        self.tasks += end - start;
        self.squares += squares(start, end);
        self.runs.insert(start, end);
        self.by_length.insert((end - start, start));
        if !self.walkers.contains_key(&start) {
            self.unwalked.insert(start);
        }
    }

    fn remove_run(&mut self, start: u64, end: u64) {
        self.tasks -= end - start;
        self.squares -= squares(start, end);
        self.runs.remove(&start);
        self.by_length.remove(&(end - start, start));
        self.unwalked.remove(&start);
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(start, end)| *start..*end)
    }

    /// Checks that the indexes agree with the runs.
    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn check(&self) {
        assert_eq!(self.iter().map(|run| run.end - run.start).sum::<u64>(), self.tasks);
        assert_eq!(self.iter().map(|run| squares(run.start, run.end)).sum::<u128>(), self.squares);
        let ends: Vec<_> = self.iter().collect();
        assert!(ends.windows(2).all(|pair| pair[0].end < pair[1].start), "runs touch: {ends:?}");
        let by_length: BTreeSet<_> = self.iter().map(|run| (run.end - run.start, run.start)).collect();
        assert_eq!(self.by_length, by_length);
        let mut walkers = IdMap::<u64, u32>::default();
        self.steps.values().for_each(|task| *walkers.entry(*task).or_default() += 1);
        assert_eq!(self.walkers, walkers);
        let unwalked = self.runs.keys().copied().filter(|start| !walkers.contains_key(start)).collect();
        assert_eq!(self.unwalked, unwalked);
    }
}
