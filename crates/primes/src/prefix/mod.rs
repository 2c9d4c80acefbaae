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
mod tiny;
mod weight;
mod worker;

#[cfg(test)]
mod tests;

pub use plan::{Plan, Quantity};
pub use worker::Prefix;

/// Bytes of thirty numbers in the table of the far leaves.
const fn far_bytes() -> u64 {
    256 << 10
}
