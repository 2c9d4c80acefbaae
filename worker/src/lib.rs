//! The worker: announces itself to the coordinator every second and computes the leases it is given, on threads that
//! serve no HTTP. See [`startup::Worker`].

mod compute;
pub mod config;
mod executor;
mod heartbeat;
mod intake;
mod metrics;
mod routes;
pub mod startup;
