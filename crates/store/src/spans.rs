//! Runs of tasks with a number each: disjoint, and adjacent runs with the same number are merged. Records the changed runs, so
//! that the stored rows follow with few writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

#[derive(Clone, Debug, Default)]
pub(crate) struct Spans {
    /// First task to the task after the last, and the number.
    spans: BTreeMap<u64, (u64, u32)>,
    /// First tasks of spans that were added, removed or changed.
    changed: BTreeSet<u64>,
    tasks: u64,
}

impl Spans {
    /// Number of tasks in the set.
    pub(crate) fn tasks(&self) -> u64 {
        self.tasks
    }

    /// Number of runs in the set.
    pub(crate) fn runs(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Range<u64>, u32)> {
        self.spans.iter().map(|(&first, &(beyond, number))| (first..beyond, number))
    }

    pub(crate) fn overlaps(&self, tasks: &Range<u64>) -> bool {
        self.spans.range(..tasks.end).next_back().is_some_and(|(_, &(beyond, _))| beyond > tasks.start)
    }

    /// Whether one run contains all of the tasks.
    pub(crate) fn covers(&self, tasks: &Range<u64>) -> bool {
        let before = self.spans.range(..=tasks.start).next_back();
        before.is_some_and(|(_, &(beyond, _))| beyond >= tasks.end)
    }

    /// Number of `tasks` in the set.
    pub(crate) fn count_of(&self, tasks: &Range<u64>) -> u64 {
        let touching = self.spans.range(..tasks.end).rev().take_while(|(_, (beyond, _))| *beyond > tasks.start);
        touching.map(|(&first, &(beyond, _))| beyond.min(tasks.end) - first.max(tasks.start)).sum()
    }

    /// Inserts the tasks, in place of earlier runs.
    pub(crate) fn insert(&mut self, tasks: Range<u64>, number: u32) {
        self.remove(&tasks);
        self.tasks += tasks.end - tasks.start;
        let Range { start: mut first, end: mut beyond } = tasks;
        if let Some((&left, &(end, same))) = self.spans.range(..first).next_back()
            && end == first
            && same == number
        {
            first = left;
        }
        if let Some(&(end, same)) = self.spans.get(&beyond)
            && same == number
        {
            self.spans.remove(&beyond);
            self.changed.insert(beyond);
            beyond = end;
        }
        self.spans.insert(first, (beyond, number));
        self.changed.insert(first);
    }

    /// Removes the tasks that are in the set.
    pub(crate) fn remove(&mut self, tasks: &Range<u64>) {
        while let Some((&first, &(beyond, number))) = self.spans.range(..tasks.end).next_back() {
            if beyond <= tasks.start {
                return;
            }
            self.spans.remove(&first);
            self.changed.insert(first);
            self.tasks -= beyond.min(tasks.end) - first.max(tasks.start);
            if beyond > tasks.end {
                self.spans.insert(tasks.end, (beyond, number));
                self.changed.insert(tasks.end);
            }
            if first < tasks.start {
                self.spans.insert(first, (tasks.start, number));
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.changed.extend(self.spans.keys());
        self.spans.clear();
        self.tasks = 0;
    }

    /// Inserts a stored run: not a change.
    pub(crate) fn load(&mut self, first: u64, beyond: u64, number: u32) {
        self.tasks += beyond - first;
        self.spans.insert(first, (beyond, number));
    }

    /// Changes since the last call: the first task, and the value that begins there now.
    pub(crate) fn take_changed(&mut self) -> impl Iterator<Item = (u64, Option<(u64, u32)>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|first| (first, self.spans.get(&first).copied()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_and_the_rows_that_follow_them_hold_what_a_list_of_tasks_holds(
            steps in proptest::collection::vec((0..3_u8, 0..60_u64, 1..20_u64, 0..2_u32), 0..60),
        ) {
            let (mut spans, mut tasks, mut rows) = (Spans::default(), BTreeMap::new(), BTreeMap::new());
            for (step, first, count, number) in steps {
                let run = first..first + count;
                prop_assert_eq!(spans.overlaps(&run), tasks.range(run.clone()).next().is_some());
                prop_assert_eq!(spans.count_of(&run), tasks.range(run.clone()).count() as u64);
                if step == 0 {
                    spans.remove(&run);
                    tasks.retain(|task, _| !run.contains(task));
                } else {
                    spans.insert(run.clone(), number);
                    tasks.extend(run.map(|task| (task, number)));
                }
                for (first, now) in spans.take_changed() {
                    match now {
                        Some(span) => rows.insert(first, span),
                        None => rows.remove(&first),
                    };
                }
                prop_assert_eq!(&rows, &spans.spans);
                prop_assert_eq!(spans.tasks(), tasks.len() as u64);
                let listed = rows.iter().flat_map(|(&first, &(beyond, n))| (first..beyond).map(move |task| (task, n)));
                prop_assert!(listed.eq(tasks.iter().map(|(&task, &n)| (task, n))));
                let spans: Vec<_> = rows.iter().collect();
                for pair in spans.windows(2) {
                    prop_assert!(pair[0].1.0 < *pair[1].0 || pair[0].1.1 != pair[1].1.1, "{:?} could be one", pair);
                }
            }
        }
    }
}
