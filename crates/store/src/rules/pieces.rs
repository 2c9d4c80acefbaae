//! Cuts attempts into rows.

use std::ops::Range;

/// Most tasks in one row of attempts, which bounds the range of a search by task.
pub const ATTEMPT_TASKS: u64 = 1024;

/// The rows of an attempt at these tasks.
pub fn pieces(tasks: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = tasks.end;
    (tasks.start..end).step_by(ATTEMPT_TASKS as usize).map(move |first| first..end.min(first + ATTEMPT_TASKS))
}
