//! The worker: announces itself to every coordinator each second and computes the leases it is given, on threads that
//! serve no HTTP. See [`startup::Worker`].

pub mod config;
mod contact;
mod coordinators;
mod delivery;
mod epoch;
mod executor;
mod heartbeat;
mod held;
mod intake;
mod metrics;
mod outcome;
mod presence;
mod routes;
pub mod startup;
mod vitals;
