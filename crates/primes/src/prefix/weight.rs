//! The weight of a prime in a sum: its value, or one.

use std::num::Wrapping;

use super::instance::Shared;

/// A value modulo 2^128. Its terms may be negative and above 2^128; the final value is neither.
pub(crate) type Total = Wrapping<u128>;

pub(crate) fn total(value: u64) -> Total {
    Wrapping(u128::from(value))
}

/// A completely multiplicative function f with f(1) = 1, summed over primes.
pub(crate) trait Weight: Copy + Default + std::fmt::Debug + Send + Sync + 'static {
    const IS_SUM: bool;

    /// The tables for this f.
    fn shared() -> &'static Shared<Self>;

    /// f(n).
    fn of(n: u64) -> u64 {
        if Self::IS_SUM { n } else { 1 }
    }

    /// f(n) (f(n) − 1) / 2.
    fn pairs(n: u64) -> Total {
        if Self::IS_SUM { pairs(total(n)) } else { Wrapping(0) }
    }
}

/// f(n) = n.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers;

/// f(n) = 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ones;

impl Weight for Numbers {
    const IS_SUM: bool = true;

    fn shared() -> &'static Shared<Self> {
        static SHARED: Shared<Numbers> = Shared::new();
        &SHARED
    }
}

impl Weight for Ones {
    const IS_SUM: bool = false;

    fn shared() -> &'static Shared<Self> {
        static SHARED: Shared<Ones> = Shared::new();
        &SHARED
    }
}

/// n (n − 1) / 2 for an n below 2^64, where the product is exact.
pub(crate) fn pairs(n: Total) -> Total {
    let Wrapping(n) = n;
    Wrapping(n * n.saturating_sub(1) / 2)
}
