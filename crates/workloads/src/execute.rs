//! Computation on a worker's slot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use model::{JobKind, Labels};
use serde_json::value::RawValue;

use crate::KINDS;
use crate::workload::Report;

/// The computation of one kind on one slot. It lives as long as the slot, so that a lease finds what the one before it
/// left.
pub trait Execute {
    /// Computes `tasks` as [`crate::Workload::lease`] describes them in `work`. Stops early when `stop` turns true.
    ///
    /// # Errors
    /// The computation was stopped, or the tasks failed.
    fn run(&mut self, work: &RawValue, tasks: &Range<u64>, stop: &AtomicBool) -> Result<Report, ExecuteError>;

    /// Whether the computations may take large memory, so that the other kinds of the slot give theirs back before.
    fn takes_large_memory(&self) -> bool {
        false
    }

    /// Gives large memory back: the slot goes on with another kind that may take as much.
    fn rest(&mut self) {}
}

/// The reason why a computation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The stop flag was set.
    #[error("it was stopped")]
    Stopped,
    /// The tasks failed, through no fault of the worker.
    #[error("{0}")]
    Failed(String),
    /// The worker does not run this kind, or cannot read the work: it is of another release than the coordinator.
    #[error("{0}")]
    Unsupported(String),
    /// The worker could not do its part.
    #[error("{0}")]
    Broken(String),
}

/// The computations of one slot: one for each kind that it has run.
#[derive(Default)]
pub struct Executors {
    by_kind: HashMap<JobKind, Box<dyn Execute>>,
    /// The last kind that may take large memory. Leases of others between do not cost it a new start.
    last_large: Option<JobKind>,
}

impl Executors {
    /// Computes with the executor of `kind`, which is made at its first use.
    ///
    /// # Errors
    /// The errors of [`Execute::run`]; also if no worker runs this kind.
    pub fn run(
        &mut self,
        kind: JobKind,
        work: &RawValue,
        tasks: &Range<u64>,
        stop: &AtomicBool,
    ) -> Result<Report, ExecuteError> {
        let mut executor = match self.by_kind.remove(&kind) {
            Some(executor) => executor,
            None => new_executor(kind)?,
        };
        if executor.takes_large_memory() && self.last_large.replace(kind) != Some(kind) {
            self.by_kind.values_mut().for_each(|other| other.rest());
        }
        let outcome = executor.run(work, tasks, stop);
        self.by_kind.insert(kind, executor);
        outcome
    }

    /// The kinds that every worker runs when leases are sent to it.
    #[must_use]
    pub fn kinds() -> Vec<JobKind> {
        KINDS.iter().filter(|kind| kind.executor().is_some()).map(|kind| kind.name()).collect()
    }

    /// The abilities of these kinds beyond workers of earlier releases: [`crate::Kind::abilities`].
    #[must_use]
    pub fn abilities() -> Labels {
        KINDS.iter().flat_map(|kind| kind.abilities()).collect()
    }
}

fn new_executor(kind: JobKind) -> Result<Box<dyn Execute>, ExecuteError> {
    let known = KINDS.iter().find(|known| known.name() == kind).and_then(|known| known.executor());
    known.ok_or_else(|| ExecuteError::Unsupported(format!("this worker does not run {kind}")))
}

/// Reads the work of a lease.
pub(crate) fn parse_work<'a, T: serde::Deserialize<'a>>(work: &'a RawValue) -> Result<T, ExecuteError> {
    serde_json::from_str(work.get())
        .map_err(|error| ExecuteError::Unsupported(format!("cannot read the work: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_every_kind_with_an_executor_are_sent_to_workers() {
        for kind in KINDS.iter().filter(|kind| kind.executor().is_some()) {
            assert!(kind.is_pushed(), "{}", kind.name());
        }
        let pulled: Vec<_> = KINDS.iter().filter(|kind| !kind.is_pushed()).map(|kind| kind.name()).collect();
        assert_eq!(pulled, [JobKind::TASKS]);
    }
}
