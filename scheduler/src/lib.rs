//! The scheduling core: which worker runs which tasks, what happens when one fails, and when a job is over.
//!
//! A pure state machine. Every call takes the time as an argument, changes the state at once or not at all, and may
//! leave [`Event`]s to be polled; the caller owns clocks, threads and sockets.

mod event;
mod job;
mod lease;
mod pace;
mod scheduler;
#[cfg(test)]
mod tests;

pub use crate::event::{Event, JobError, Progress};
pub use crate::lease::{Failure, Lease, Outcome, StaleAttempt, UnknownWorker, WorkerKey};
pub use crate::scheduler::{JobSpec, Policy, Scheduler, SubmitError};
