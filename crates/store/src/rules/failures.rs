//! Choice of the kept failures of a task.

use super::{FIRST_FAILURES, LAST_FAILURES};

/// The row of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFailure {
    /// The row's number.
    pub row: i64,
    /// Size of the row in bytes.
    pub bytes: u64,
    /// Failures before it that are not kept.
    pub omitted: u64,
}

/// Failures that are no longer kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OmittedFailures {
    /// Their rows.
    pub rows: Vec<i64>,
    /// Size of the rows in bytes.
    pub bytes: u64,
    /// The row behind the omitted rows, and the number of failures before it that are not kept now.
    pub next: (i64, u64),
}

/// Removes the failures that begin at one task and are between the first and the last ones.
pub fn omit_failures(kept: &mut Vec<KeptFailure>) -> Option<OmittedFailures> {
    let last = kept.len().checked_sub(LAST_FAILURES).filter(|&last| last > FIRST_FAILURES)?;
    let out: Vec<_> = kept.drain(FIRST_FAILURES..last).collect();
    let next = &mut kept[FIRST_FAILURES];
    next.omitted += out.iter().map(|failure| 1 + failure.omitted).sum::<u64>();
    Some(OmittedFailures {
        rows: out.iter().map(|failure| failure.row).collect(),
        bytes: out.iter().map(|failure| failure.bytes).sum(),
        next: (next.row, next.omitted),
    })
}
