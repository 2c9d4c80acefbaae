//! Workers that an operator has drained. The mark of one stays while its process may ask for work, whichever coordinator leads.

use jiff::Timestamp;
use model::{BootId, WorkerId};

/// A drained worker: one process under its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainedWorker {
    /// Its name.
    pub worker: WorkerId,
    /// The process, where the worker registers; none for a worker that pulls, which names no process.
    pub boot: Option<BootId>,
}

/// A drained worker and since when it is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The worker.
    pub drained: DrainedWorker,
    /// Time of the first drain.
    pub at: Timestamp,
}

/// A change to the drains.
#[derive(Clone, Debug)]
pub enum DrainChange {
    /// Adds a drain. Without effect where it is there.
    Put(Drain),
    /// Removes a drain. Without effect where it is not there.
    Remove(DrainedWorker),
}
