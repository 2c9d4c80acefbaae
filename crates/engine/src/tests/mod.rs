//! Direct tests: an input, and the whole list of effects.

mod harness;
mod jobs;
mod named;
mod overtaking;
mod reconciling;
mod releasing;
mod sending;
mod skipping;
mod timing_out;
mod verifying;
