//! The core by direct calls, with time as an argument, through one harness.

mod adoption;
mod comparing;
mod fairness;
mod figures;
mod harness;
mod idle;
mod jobs;
mod last_task;
mod leases;
mod order;
mod overtaking;
mod properties;
mod slope;
mod stragglers;
mod stripes;
mod suitability;
mod workers;
