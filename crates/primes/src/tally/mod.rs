//! Totals of a finished map: the count of its primes, and their sum.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

pub(crate) use portable::RESIDUE_SUMS;

use crate::level::Level;

/// Receives finished maps, in order and without gaps.
pub(crate) trait Tally {
    /// Adds the primes of `map`, whose first byte stands for the numbers from `30 first_byte`.
    ///
    /// The CPU has the instructions of `level`.
    fn add(&mut self, map: &[u8], first_byte: u64, level: Level);
}

/// The number of primes.
#[derive(Debug, Default)]
pub(crate) struct Count(pub(crate) u64);

/// The sum of the primes.
#[derive(Debug, Default)]
pub(crate) struct Sum(pub(crate) u128);

impl Tally for Count {
    fn add(&mut self, map: &[u8], _: u64, level: Level) {
        self.0 += map.chunks(LONGEST).map(|piece| ones(piece, level)).sum::<u64>();
    }
}

impl Tally for Sum {
    fn add(&mut self, map: &[u8], first_byte: u64, level: Level) {
        let mut first_byte = u128::from(first_byte);
        for piece in map.chunks(LONGEST) {
            let Moments { bits, indices, residues } = moments(piece, level);
            let bytes = first_byte * u128::from(bits) + u128::from(indices);
            self.0 += 30 * bytes + u128::from(residues);
            first_byte += piece.len() as u128;
        }
    }
}

/// Bytes in one call of [`moments`] or [`ones`]: no 32-bit lane of theirs overflows.
const LONGEST: usize = 512 << 10;

/// The terms of the sum of a map's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moments {
    /// The number of set bits.
    bits: u64,
    /// The sum of the byte index of every set bit.
    indices: u64,
    /// The sum of the residue modulo 30 of every set bit.
    residues: u64,
}

fn moments(map: &[u8], level: Level) -> Moments {
    debug_assert!(map.len() <= LONGEST);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::moments(map),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::moments(map),
        _ => portable::moments(map),
    }
}

fn ones(map: &[u8], level: Level) -> u64 {
    debug_assert!(map.len() <= LONGEST);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::ones(map),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::ones(map),
        _ => portable::ones(map),
    }
}
