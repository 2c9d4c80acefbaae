//! The engine in a simulated world: workers, clients, network, disk, clock and faults, all drawn from a seed.
//!
//! A run drives [`engine::Engine`] through the inputs that the coordinator uses, performs its effects in virtual time and
//! checks the invariants after each step. The same seed is the same run.

mod asks;
mod audit;
mod client;
mod coordinator;
mod disk;
mod faults;
mod jobs;
mod network;
mod outcome;
mod plan;
mod puller;
mod registrations;
mod sharing;
mod trace;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use sharing::run_shared;
use world::World;

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Steps that were made.
    pub steps: u64,
    /// A hash of its trace: the same for the same run.
    pub hash: u64,
    /// The invariant that did not hold.
    pub failure: Option<Violation>,
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The description of the violation.
    pub what: String,
    /// The last lines of the trace.
    pub trace: Vec<String>,
}

/// Runs a seed. With `is_traced` its trace is printed.
#[must_use]
pub fn run(seed: u64, until_step: u64, is_traced: bool) -> Run {
    let mut world = World::new(seed, is_traced);
    let panicked = caught(|| world.run(until_step));
    let failure = panicked.or_else(|| world.violation.take());
    let hash = world.trace.hash();
    let failure = failure.map(|what| Violation { what, trace: world.trace.take() });
    Run { seed, steps: world.steps, hash, failure }
}

/// The message of a panic in `run`, if it panics.
fn caught(run: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Some(format!("panic: {}", text.unwrap_or_default()))
}
