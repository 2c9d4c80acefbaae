//! Sums and counts of all primes up to x in about x^(2/3) steps.
//!
//! φ(x, a), what f comes to over the numbers up to x without a factor among the first a primes, is expanded by
//! φ(x, a) = φ(x, a − 1) − f(p) φ(x/p, a − 1), and the leaves of the expansion are divided as in X. Gourdon's method
//! (2001), which follows J. Lagarias, V. Miller and A. Odlyzko (1985) and M. Deléglise and J. Rivat (1996). It holds for
//! any completely multiplicative f, here 1 and n. All values are modulo 2^128, where the result fits.
//!
//! The value is the plain sum of its parts: each part computes by itself whatever it needs of the numbers before its
//! own, so parts may be computed anywhere and in any order.

mod counted;
mod easy;
mod factors;
mod hard;
mod instance;
mod ordinary;
mod pairs;
mod parameters;
mod plan;
mod price;
mod start;
mod table;
mod tail;
mod threads;
mod tiny;
mod weight;
mod worker;

#[cfg(test)]
mod tests;

use std::num::NonZero;
use std::sync::atomic::AtomicBool;
use std::thread;

pub use plan::{Plan, Quantity};
pub use worker::Prefix;

use crate::NEVER;
use crate::sieve::Stopped;

/// The sum of all primes up to `x`, on all threads of the machine that this process may use.
///
/// Takes about x^(2/3) steps: some 10 ms at 10^12, two minutes at 10^18 on two cores. Memory grows with ∛x for each
/// thread.
pub fn sum_up_to(x: u64) -> u128 {
    up_to(Quantity::Sum, x, available_threads(), &NEVER).expect("nothing stops this call")
}

/// The number of primes up to `x`. Takes what [`sum_up_to`] takes, or less.
pub fn count_up_to(x: u64) -> u64 {
    let count = up_to(Quantity::Count, x, available_threads(), &NEVER).expect("nothing stops this call");
    count.try_into().expect("there are fewer primes than numbers")
}

/// The sum or the count of all primes up to `x`, on at most so many threads.
///
/// # Errors
///
/// [`Stopped`] within about 20 ms after `stop` became true.
pub fn up_to(quantity: Quantity, x: u64, threads: usize, stop: &AtomicBool) -> Result<u128, Stopped> {
    threads::compute(&Plan::new(quantity, x), threads, stop)
}

fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Bytes of thirty numbers in the table of the far leaves.
const fn far_bytes() -> u64 {
    256 << 10
}
