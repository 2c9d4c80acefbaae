//! Computation on a worker's slot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use model::{JobKind, Labels};
use primes::Sieve;
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

    /// Gives large memory back: the slot goes on with another kind that may take as much. Returns a sieve that the other kind
    /// can go on with.
    fn rest(&mut self) -> Option<Sieve> {
        None
    }

    /// Takes the sieve that another kind has left: a new one far out costs a tenth of a second.
    fn take_over(&mut self, sieve: Sieve) {
        drop(sieve);
    }
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
            for sieve in self.by_kind.values_mut().filter_map(|other| other.rest()) {
                executor.take_over(sieve);
            }
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
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A kind that may have a sieve, and the number of sieves that it has taken over.
    struct Far(Option<Sieve>, Rc<Cell<u32>>);

    impl Execute for Far {
        fn run(&mut self, _: &RawValue, _: &Range<u64>, _: &AtomicBool) -> Result<Report, ExecuteError> {
            Ok(Report::default())
        }

        fn takes_large_memory(&self) -> bool {
            true
        }

        fn rest(&mut self) -> Option<Sieve> {
            self.0.take()
        }

        fn take_over(&mut self, sieve: Sieve) {
            self.0 = Some(sieve);
            self.1.set(self.1.get() + 1);
        }
    }

    #[test]
    fn a_kind_goes_on_with_the_sieve_of_another_one() {
        let (of_sum, of_count) = (Rc::<Cell<u32>>::default(), Rc::<Cell<u32>>::default());
        let mut slot = Executors::default();
        slot.by_kind.insert(JobKind::SUM_OF_PRIMES, Box::new(Far(Some(Sieve::new()), Rc::clone(&of_sum))));
        slot.by_kind.insert(JobKind::COUNT_PRIMES, Box::new(Far(None, Rc::clone(&of_count))));
        let mut taken = |kind| {
            slot.run(kind, RawValue::NULL, &(0..1), &AtomicBool::new(false)).expect("computed");
            (of_sum.get(), of_count.get())
        };
        assert_eq!(taken(JobKind::SUM_OF_PRIMES), (0, 0));
        assert_eq!(taken(JobKind::COUNT_PRIMES), (0, 1));
        assert_eq!(taken(JobKind::COUNT_PRIMES), (0, 1));
        assert_eq!(taken(JobKind::SUM_OF_PRIMES), (1, 1));
    }

    #[test]
    fn leases_of_every_kind_with_an_executor_are_sent_to_workers() {
        for kind in KINDS.iter().filter(|kind| kind.executor().is_some()) {
            assert!(kind.is_pushed(), "{}", kind.name());
        }
        let pulled: Vec<_> = KINDS.iter().filter(|kind| !kind.is_pushed()).map(|kind| kind.name()).collect();
        assert_eq!(pulled, [JobKind::TASKS]);
    }
}
