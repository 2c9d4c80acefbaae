//! The watch over what a program takes: memory and processes of the whole tree, and space on disk.
//!
//! Looks are as frequent as their cost permits: each is followed by a pause of at least [`PAUSE_PER_COST`] times the
//! processor time that it took. While processes get more, or seem to take too much memory, the pause is the shortest, whatever
//! the cost: a fork bomb doubles within a millisecond, and what it is at first is still little.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::share::Share;
use super::tree::{self, HeldResources};
use super::wire::{Bound, Bounds, Start};
use crate::scratch;

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// Descriptors and files change slower than memory and cost more to look at.
const SHORTEST_DISK_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_DISK_PAUSE: Duration = Duration::from_millis(250);
/// Time between two looks at the threads that run.
const SHARE_PAUSE: Duration = Duration::from_millis(100);
/// Looks take at most a part in this many, plus one, of a processor.
const PAUSE_PER_COST: u32 = 25;

/// A process that executes another file or ends is hidden for some microseconds, which a look may meet by chance.
const HIDDEN_LOOKS: u32 = 4;

/// Processes change while a look counts their memory. A thread that the kernel interrupts between making a child of `vfork` and
/// waiting for it does not show that they share it, for as long as other programs have the processors.
const FULL_LOOKS: u32 = 3;

pub(crate) struct Watch<'a> {
    start: &'a Start,
    root: i32,
    look_at: Instant,
    look_at_disk_at: Instant,
    weigh_at: Instant,
    share: Share<'a>,
    kernel_bytes: u64,
    peak_memory_bytes: u64,
    /// Processes at the last look.
    processes: usize,
    /// Looks in a row that have found too much memory.
    full_looks: u32,
    /// Looks at the disk in a row that have found a process which hides.
    hidden_looks: u32,
}

impl<'a> Watch<'a> {
    /// Watches all descendants of the calling process.
    pub(crate) fn new(start: &'a Start, share: Share<'a>, now: Instant) -> Self {
        Self {
            start,
            root: rustix::process::getpid().as_raw_pid(),
            look_at: now + SHORTEST_PAUSE,
            look_at_disk_at: now + SHORTEST_DISK_PAUSE,
            weigh_at: now,
            share,
            kernel_bytes: 0,
            peak_memory_bytes: 0,
            processes: 0,
            full_looks: 0,
            hidden_looks: 0,
        }
    }

    pub(crate) fn next_look(&self) -> Instant {
        self.look_at.min(self.look_at_disk_at)
    }

    /// The most memory that a look has found.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes
    }

    /// Looks at the resources that are due, and returns the bound that is passed.
    pub(crate) fn look(&mut self, now: Instant, caged: bool) -> Option<Bound> {
        if now >= self.look_at {
            let (before, cpu_before) = (self.processes, cpu_time());
            let bound = self.look_at_processes(now);
            let is_urgent = self.processes > before || self.full_looks > 0;
            let longest = if is_urgent { SHORTEST_PAUSE } else { LONGEST_PAUSE };
            self.look_at = pause(cpu_before, SHORTEST_PAUSE, longest);
            if bound.is_some() {
                return bound;
            }
        }
        if now >= self.look_at_disk_at {
            let cpu_before = cpu_time();
            let bound = self.look_at_disk(caged);
            self.look_at_disk_at = pause(cpu_before, SHORTEST_DISK_PAUSE, LONGEST_DISK_PAUSE);
            return bound;
        }
        None
    }

    /// Whether the scratch directory of a program that has ended is too large, so that no short program passes unseen.
    pub(crate) fn disk_bound(&self) -> Option<Bound> {
        let limit = self.start.bounds.scratch_bytes;
        let size = scratch::size_of(&self.start.scratch, limit);
        (!size.is_ok_and(|size| size <= limit)).then_some(Bound::Scratch)
    }

    fn look_at_processes(&mut self, now: Instant) -> Option<Bound> {
        let Bounds { memory_bytes, processes, .. } = self.start.bounds;
        let tree = tree::descendants(self.root, processes as usize);
        self.processes = tree.len();
        if tree.len() > processes as usize {
            return Some(Bound::Processes);
        }
        let mut threads = 0_u32;
        let mut memory = self.kernel_bytes;
        for process in &tree {
            let taken = tree::taken(*process);
            threads = threads.saturating_add(taken.threads);
            memory += taken.memory_bytes;
        }
        if memory > memory_bytes && tree.len() > 1 {
            memory = self.kernel_bytes + bytes_counted_once(&tree);
        }
        self.full_looks = if memory > memory_bytes { self.full_looks + 1 } else { 0 };
        let is_doubtful = tree.len() > 1 && (1..FULL_LOOKS).contains(&self.full_looks);
        if !is_doubtful {
            self.peak_memory_bytes = self.peak_memory_bytes.max(memory);
            if memory > memory_bytes {
                return Some(Bound::Memory);
            }
        }
        if threads > processes {
            return Some(Bound::Processes);
        }
        if now >= self.weigh_at {
            self.share.weigh(&tree, threads);
            self.weigh_at = now + SHARE_PAUSE;
        }
        None
    }

    fn look_at_disk(&mut self, caged: bool) -> Option<Bound> {
        let Bounds { memory_bytes, scratch_bytes: limit, processes, .. } = self.start.bounds;
        let mut held = HeldResources::within(memory_bytes);
        let tree = tree::descendants(self.root, processes as usize);
        let hidden =
            tree.iter().filter(|process| tree::add_held(**process, &self.start.scratch, &mut held).is_err()).count();
        self.hidden_looks = if hidden > 0 { self.hidden_looks + 1 } else { 0 };
        if caged && self.hidden_looks == HIDDEN_LOOKS {
            return Some(Bound::Unwatchable);
        }
        self.kernel_bytes = held.kernel_bytes();
        let Ok(named) = scratch::size_of(&self.start.scratch, limit) else { return Some(Bound::Scratch) };
        let too_large = named.saturating_add(held.unlinked_bytes()) > limit || held.has_unmeasurable();
        too_large.then_some(Bound::Scratch)
    }
}

/// The memory of processes, parents first, of which each page counts once whatever number of them shares it.
fn bytes_counted_once(tree: &[i32]) -> u64 {
    sum_shown_once(tree.iter().map(|process| {
        let bytes = tree::proportional_memory_bytes(*process).unwrap_or_else(|| tree::taken(*process).memory_bytes);
        (*process, bytes, tree::children_in_its_memory(*process))
    }))
}

/// The sum of the bytes that processes show, each given with its children that run in its memory: the kernel divides pages
/// among processes that were forked, but not between one and its child of `vfork`.
///
/// The bytes are taken from what that child shows, if it is one of the processes. A program that makes such children one
/// after the other has one that none of the processes is, and would else show nothing.
fn sum_shown_once(processes: impl IntoIterator<Item = (i32, u64, Vec<i32>)>) -> u64 {
    let (mut sum, mut shown_again) = (0_u64, HashMap::<i32, u64>::new());
    for (process, bytes, children) in processes {
        sum = sum.saturating_add(bytes.saturating_sub(shown_again.get(&process).copied().unwrap_or(0)));
        shown_again.extend(children.into_iter().map(|child| (child, bytes)));
    }
    sum
}

/// Time of the next look, after a look that began at processor time `cpu_before`.
fn pause(cpu_before: Duration, shortest: Duration, longest: Duration) -> Instant {
    let cost = cpu_time().saturating_sub(cpu_before);
    Instant::now() + (cost * PAUSE_PER_COST).clamp(shortest, longest)
}

/// Processor time of this process, which has one thread.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_again_only_by_a_child_of_vfork_that_was_looked_at() {
        let (parent, child, other) = (10, 11, 12);
        assert_eq!(sum_shown_once([(parent, 100, vec![child]), (child, 100, vec![])]), 100);
        // The child in turn has one.
        assert_eq!(sum_shown_once([(parent, 100, vec![child]), (child, 100, vec![other]), (other, 100, vec![])]), 100);
        // It has executed a file since.
        assert_eq!(sum_shown_once([(parent, 100, vec![]), (child, 30, vec![])]), 130);
        // It came after the list of processes was made.
        assert_eq!(sum_shown_once([(parent, 100, vec![child]), (other, 30, vec![])]), 130);
    }
}
