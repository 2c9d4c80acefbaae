//! The core by direct calls, with time as an argument, through one harness.

mod harness;
mod jobs;
mod leases;
mod order;
mod properties;
mod stragglers;
mod stripes;
mod suitability;
mod workers;
