//! Exact sums and counts of the primes in a range of `u64`.
//!
//! The range is sieved segment by segment in a bit map of eight bits for every thirty numbers, and the sum is taken
//! from the map itself. Memory stays bounded up to 2^64 − 1: above a limit, sieving primes are found anew for each window
//! of a long range, and the numbers that survive the sieve of a short one are settled by a deterministic primality test.
//!
//! Sums and counts of *all* primes up to x need no sieve of that length: see [`sum_up_to`], and [`Plan`] for its parts.
//!
//! A long range may be taken in consecutive steps at the cost of one call: see [`Sieve::sum_towards`].

mod base;
mod cost;
mod distant;
mod engine;
mod level;
mod lone;
pub mod lucy;
mod prefix;
mod presieve;
mod primality;
mod sieve;
mod strike;
mod tally;
mod wheel;
mod window;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

pub use cost::sieve_cost;
pub use level::Level;
pub use prefix::{Plan, Prefix, Quantity, count_up_to, sum_up_to, up_to};
pub use sieve::{Sieve, Stopped};

static NEVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SIEVE: RefCell<Sieve> = RefCell::new(Sieve::new());
}

/// The sum of all primes in `range`, exact over the whole of `u64`; 0 if the range is empty.
///
/// Buffers and base primes stay with the calling thread, so that later calls start warm.
pub fn sum(range: RangeInclusive<u64>) -> u128 {
    with_sieve(|sieve| sieve.sum(range, &NEVER)).expect("nothing stops this call")
}

/// The number of primes in `range`; 0 if the range is empty. Keeps its buffers like [`sum`].
pub fn count(range: RangeInclusive<u64>) -> u64 {
    with_sieve(|sieve| sieve.count(range, &NEVER)).expect("nothing stops this call")
}

fn with_sieve<T>(work: impl FnOnce(&mut Sieve) -> T) -> T {
    SIEVE.with_borrow_mut(work)
}
