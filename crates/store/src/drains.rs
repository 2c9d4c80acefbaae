//! Workers that an operator has drained. The mark of a worker stays while its process may ask for work, whichever coordinator
//! leads.

use jiff::Timestamp;
use model::{BootId, WorkerId};

/// A drained worker: one process under its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainedWorker {
    /// Its name.
    pub worker: WorkerId,
    /// The process, if the worker registers; `None` for a pulling worker, which names no process.
    pub boot: Option<BootId>,
}

/// A drained worker and the time of its drain.
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
    /// Adds a drain. Without effect if it exists.
    Put(Drain),
    /// Removes a drain. Without effect if it does not exist.
    Remove(DrainedWorker),
}
