//! Direct tests: an input, and the whole list of effects.

mod harness;
mod jobs;
mod reconciling;
mod releasing;
mod sending;
mod skipping;
mod verifying;
