//! A whole plan on the threads of one process.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::plan::Plan;
use super::worker::Prefix;
use crate::sieve::Stopped;

/// A plan that takes less is left to one thread: some milliseconds.
const LEAST_FOR_THREADS: f64 = 5e6;

/// The result of a plan, on at most so many threads.
pub(super) fn compute(plan: &Plan, threads: usize, stop: &AtomicBool) -> Result<u128, Stopped> {
    let threads = if plan.total_cost() < LEAST_FOR_THREADS { 1 } else { threads.max(1) };
    let left = Mutex::new(stripes(plan, threads));
    thread::scope(|scope| {
        let run = |index| {
            let left = &left;
            move || run(plan, left, index, stop)
        };
        let others: Vec<_> = (1..threads).map(|index| scope.spawn(run(index))).collect();
        let own = run(0)();
        others.into_iter().fold(own, |sum, other| {
            let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(sum?.wrapping_add(other?))
        })
    })
}

/// Consecutive parts for each thread, of similar cost.
fn stripes(plan: &Plan, threads: usize) -> Vec<Range<u64>> {
    let share = plan.total_cost() / threads as f64;
    let mut end = 0;
    let stripe = |thread| {
        let start = end;
        while end < plan.parts() && (thread + 1 == threads || plan.cost(0..end + 1) <= share * (thread + 1) as f64) {
            end += 1;
        }
        start..end
    };
    (0..threads).map(stripe).collect()
}

fn run(plan: &Plan, left: &Mutex<Vec<Range<u64>>>, index: usize, stop: &AtomicBool) -> Result<u128, Stopped> {
    let mut prefix = Prefix::new();
    let mut sum = 0u128;
    while let Some(part) = claim(left, index) {
        sum = sum.wrapping_add(prefix.parts(plan, part..part + 1, stop)?);
    }
    Ok(sum)
}

/// The next part of a thread's own stripe, or of the second half of the longest one.
fn claim(left: &Mutex<Vec<Range<u64>>>, index: usize) -> Option<u64> {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    if left[index].is_empty() {
        let longest = left.iter_mut().max_by_key(|stripe| stripe.end - stripe.start)?;
        let middle = u64::midpoint(longest.start, longest.end);
        let end = std::mem::replace(&mut longest.end, middle);
        left[index] = middle..end;
    }
    left[index].next()
}
