//! The worker as a process, at its HTTP face, with coordinators that record what it sends and answer as a test wants.

mod coordinators;
mod draining;
mod epochs;
mod held;
mod helpers;
mod lease_streams;
mod programs;
mod readiness;
