//! The worker: announces itself to every coordinator each second and computes the leases it is given, on threads that
//! serve no HTTP. See [`startup::Worker`].

pub mod config;
mod contact;
mod coordinators;
mod courier;
mod deletion_cost;
mod delivery;
mod epoch;
mod executor;
mod heartbeat;
mod held;
mod intake;
mod metrics;
mod outcome;
mod presence;
mod programs;
mod routes;
pub mod startup;
mod vitals;

/// Runs this process as a helper of its worker if it was started as one, and then never returns. A program that runs workers
/// calls it first in `main`: the processes that contain users' programs are started from the worker's own binary.
pub use sandbox::run_child_if_asked;
