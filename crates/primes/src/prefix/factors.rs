//! The least prime factor and the Möbius function of every number up to z, two bytes for each that is coprime to 30.
//!
//! Source of the encoding: primecount (K. Walisch), `FactorTable.hpp`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::sieve::Stopped;
use crate::wheel::{RESIDUES, class_of};

/// Odd numbers stand for themselves as least prime factor of a number with an odd number of prime factors; even ones for
/// the next odd one as that of a number with an even number of them. 0 is a number with a square or a factor above y.
#[derive(Debug)]
pub(crate) struct Factors {
    codes: Vec<u16>,
}

/// The number 1.
const NO_FACTOR: u16 = u16::MAX;

/// Least prime factors from here on are not told apart.
const LARGEST: u64 = 65_533;

impl Factors {
    /// The table up to `z` with the ascending `primes` up to there, 0 in front.
    pub(crate) fn new(z: u64, y: u64, primes: &[u32], stop: &AtomicBool) -> Result<Self, Stopped> {
        let mut codes = vec![NO_FACTOR; Self::index_up_to(z) + 1];
        for &prime in primes.iter().skip_while(|&&prime| prime < 7) {
            let p = u64::from(prime);
            if p > z {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            for_multiples(p, z, |index| {
                let code = &mut codes[index];
                *code = match *code {
                    _ if p > y => 0,
                    0 => 0,
                    NO_FACTOR => p.min(LARGEST) as u16,
                    other => other ^ 1,
                };
            });
            if p * p <= z {
                for_multiples(p * p, z, |index| codes[index] = 0);
            }
        }
        Ok(Self { codes })
    }

    /// The codes of numbers by index: those above a prime stand for numbers of at least two prime factors, without a
    /// square or a factor above y, whose prime factors are all larger, or for the prime factors themselves.
    pub(crate) fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// The number of an index.
    #[inline(always)]
    pub(crate) fn number(index: usize) -> u64 {
        30 * (index as u64 / 8) + u64::from(RESIDUES[index % 8])
    }

    /// The index of the largest number in the table that is at most `number`, which is not 0.
    #[inline(always)]
    pub(crate) fn index_up_to(number: u64) -> usize {
        Self::index_above(number) - 1
    }

    /// The index of the least number in the table that is above `number`.
    #[inline(always)]
    pub(crate) fn index_above(number: u64) -> usize {
        8 * (number / 30) as usize + usize::from(RESIDUES_UP_TO[(number % 30) as usize])
    }
}

/// The number of residues coprime to 30 up to each number.
const RESIDUES_UP_TO: [u8; 30] = {
    let mut counts = [0; 30];
    let mut number = 1;
    while number < 30 {
        counts[number] = counts[number - 1] + class_of(number as u64).is_some() as u8;
        number += 1;
    }
    counts
};

/// The indices of the multiples up to `last` of a number coprime to 30 that are coprime to 30 themselves.
fn for_multiples(number: u64, last: u64, mut found: impl FnMut(usize)) {
    let offsets = RESIDUES.map(|residue| number * u64::from(residue));
    let indices = offsets.map(|offset| Factors::index_above(offset) - 1);
    let mut start = 0;
    let mut index = 0;
    while start < last {
        for (offset, within) in offsets.iter().zip(indices) {
            if start + offset <= last {
                found(index + within);
            }
        }
        start += 30 * number;
        index += 8 * number as usize;
    }
}
