//! The coordinator without I/O: every decision about jobs, workers, leases and what must be stored.
//!
//! An [`Engine`] is a value. Methods take the time and the input; they change the state and leave [`Effect`]s, which the
//! caller performs in their order. It reads no clock, random number, socket or disk. The coordinator performs effects with
//! real connections and a real store, the simulation with simulated ones: both run the same decisions.

mod attempts;
mod candidacy;
mod claims;
mod composing;
mod dispatch;
mod durability;
mod effect;
mod ending;
mod engine;
#[cfg(any(test, feature = "invariants"))]
mod invariants;
mod jobs;
mod leases;
mod named;
mod progress;
mod rates;
mod recent_attempts;
mod reconcile;
mod recovery;
mod skipping;
mod slots;
mod standing;
#[cfg(test)]
mod tests;
mod time;
mod verification;
mod view;
mod workers;

pub use crate::candidacy::{Candidacy, LeaseAnswer, Question, Turn};
pub use crate::claims::ClaimId;
pub use crate::composing::ComposeFailure;
pub use crate::effect::{Effect, JobFailure, LeaseOrder, PulledLease, SuspensionReason, TracedLease};
pub use crate::engine::{Engine, Settings};
#[cfg(any(test, feature = "invariants"))]
pub use crate::invariants::Footprint;
pub use crate::jobs::requirements;
pub use crate::leases::{CompleteError, LeaseFailure};
pub use crate::named::{Holding, NamedLease};
pub use crate::reconcile::{HeldLease, HeldState, Reconciled};
pub use crate::skipping::SkipError;
pub use crate::time::Now;
pub use crate::verification::{VerificationCounts, VerificationView};
pub use crate::view::{JobView, LeasedTasks, WorkerView};
pub use crate::workers::{Delivery, Standing, Suspension, WorkerAnnouncement};
