//! The scheduling core: assigns tasks to workers, tries failed tasks again, and ends jobs.
//!
//! A pure state machine. Every call takes the time as an argument, changes the state at once or not at all, and may
//! leave [`Event`]s to be polled; the caller owns clocks, threads, sockets and the making of ids.

mod abilities;
mod event;
mod explain;
mod figures;
mod id_map;
mod idle;
mod job;
mod lease;
mod patience;
mod queue;
mod runs;
mod scheduler;
mod spec;
mod speed;
mod stragglers;
mod tasks;
#[cfg(test)]
mod tests;
mod workers;

pub use crate::event::{Event, JobError, WaitReason};
pub use crate::figures::{Demand, JobCounts};
pub use crate::id_map::{IdMap, IdSet, RandomState};
pub use crate::lease::{
    ActiveLease, AdoptError, AttemptFailure, ComputedValue, Counted, Lane, Lease, LeaseSize, Revocation, StaleAttempt,
    UnknownJob, UnknownWorker, WorkerKey,
};
pub use crate::scheduler::{Scheduler, SubmitError};
pub use crate::spec::{History, JobSpec, OnExhausted, Order, Policy, WorkerSpec};
