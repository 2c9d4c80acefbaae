//! The real binary against real servers that answer well, wrongly, late or never.

mod failures;
mod helpers;
mod interruption;
mod open_model;
mod ramp;
mod reports;
mod usage;
