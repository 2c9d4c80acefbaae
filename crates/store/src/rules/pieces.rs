//! Cuts attempts into rows.

use std::ops::Range;

/// Most tasks in one row of attempts, so that a search by task knows how far back to look.
pub const ATTEMPT_TASKS: u64 = 1024;

/// The rows that an attempt at these tasks takes.
pub fn pieces(tasks: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = tasks.end;
    (tasks.start..end).step_by(ATTEMPT_TASKS as usize).map(move |first| first..end.min(first + ATTEMPT_TASKS))
}
