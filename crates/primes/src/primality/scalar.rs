//! Four lanes of 64-bit integers: enough to hide the latency of one multiplication behind the others.

use super::bpsw;
use super::lanes::{Lanes, MOST_LANES};

const COUNT: usize = 4;

/// Residues are held times 2^64 and stay below the modulus.
struct Scalar {
    moduli: [u64; COUNT],
    inverses: [u64; COUNT],
    one: [u64; COUNT],
}

pub(super) fn retain_primes(numbers: &mut Vec<u64>) {
    bpsw::retain::<Scalar>(numbers, bpsw::strong_to_base_two::<Scalar>);
    bpsw::retain::<Scalar>(numbers, bpsw::lucas::<Scalar>);
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
pub(super) fn inverse(n: u64) -> u64 {
    let mut inverse = n.wrapping_mul(3) ^ 2;
    for _ in 0..4 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(n.wrapping_mul(inverse)));
    }
    inverse
}

impl Lanes for Scalar {
    const COUNT: usize = COUNT;

    type Value = [u64; COUNT];

    fn new(moduli: &[u64]) -> Self {
        let moduli = std::array::from_fn(|lane| moduli[lane]);
        Self { moduli, inverses: moduli.map(inverse), one: moduli.map(|n| (u64::MAX % n) + 1) }
    }

    fn one(&self) -> Self::Value {
        self.one
    }

    #[inline(always)]
    fn add(&self, a: Self::Value, b: Self::Value) -> Self::Value {
        std::array::from_fn(|lane| {
            let room = self.moduli[lane] - b[lane];
            if a[lane] >= room { a[lane] - room } else { a[lane] + b[lane] }
        })
    }

    #[inline(always)]
    fn subtract(&self, a: Self::Value, b: Self::Value) -> Self::Value {
        std::array::from_fn(|lane| {
            let (difference, borrow) = a[lane].overflowing_sub(b[lane]);
            if borrow { difference.wrapping_add(self.moduli[lane]) } else { difference }
        })
    }

    #[inline(always)]
    fn multiply(&self, a: Self::Value, b: Self::Value) -> Self::Value {
        std::array::from_fn(|lane| {
            let product = u128::from(a[lane]) * u128::from(b[lane]);
            let factor = (product as u64).wrapping_mul(self.inverses[lane]);
            let reduction = u128::from(factor) * u128::from(self.moduli[lane]);
            let (high, borrow) = ((product >> 64) as u64).overflowing_sub((reduction >> 64) as u64);
            if borrow { high.wrapping_add(self.moduli[lane]) } else { high }
        })
    }

    #[inline(always)]
    fn select(lanes: u32, a: Self::Value, b: Self::Value) -> Self::Value {
        std::array::from_fn(|lane| if lanes >> lane & 1 == 1 { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn test(words: &[u64; MOST_LANES], bit: u32) -> u32 {
        (0..COUNT).fold(0, |lanes, lane| lanes | ((words[lane] >> bit & 1) as u32) << lane)
    }

    #[inline(always)]
    fn equal(&self, a: Self::Value, b: Self::Value) -> u32 {
        (0..COUNT).fold(0, |lanes, lane| lanes | u32::from(a[lane] == b[lane]) << lane)
    }
}
