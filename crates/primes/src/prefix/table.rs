//! Prime counts and sums up to any number of an interval, eight bytes for every thirty numbers.

use std::marker::PhantomData;
use std::num::Wrapping;

use super::tiny::bits_up_to_number;
use super::weight::{Total, Weight, total};
use crate::tally::RESIDUE_SUMS;

/// The primes of consecutive bytes of thirty numbers each, with running totals.
#[derive(Debug, Default)]
pub(crate) struct PrimeTable<W> {
    /// The bits of each byte in the low eight, and the sum of the bytes before it in the bits above.
    entries: Vec<u64>,
    first_byte: u64,
    /// The sum over all primes before the first byte.
    before: Total,
    /// The sum over the bytes so far.
    within: u64,
    weight: PhantomData<W>,
}

/// Bits of an entry's total: an interval of 2^28 numbers below 2^32 comes to less.
const TOTAL_BITS: u32 = 56;

impl<W: Weight> PrimeTable<W> {
    /// Empties the table; the next pushed byte is byte `first_byte` and follows `before`.
    pub(crate) fn restart(&mut self, first_byte: u64, before: Total) {
        self.entries.clear();
        self.first_byte = first_byte;
        self.before = before;
        self.within = 0;
    }

    /// Appends the next bytes of the map of primes.
    pub(crate) fn push(&mut self, map: &[u8]) {
        let first = self.end_byte();
        self.entries.reserve(map.len());
        for (byte, &bits) in (first..).zip(map) {
            debug_assert!(self.within >> TOTAL_BITS == 0);
            self.entries.push(self.within << 8 | u64::from(bits));
            self.within += byte_total::<W>(byte, bits);
        }
    }

    /// The number of the first byte behind the table.
    pub(crate) fn end_byte(&self) -> u64 {
        self.first_byte + self.entries.len() as u64
    }

    /// The sum over all primes before the table.
    pub(crate) fn before(&self) -> Total {
        self.before
    }

    /// The sum over all primes before the end of the table.
    pub(crate) fn end_total(&self) -> Total {
        self.before + total(self.within)
    }

    /// The sum over the primes of the table up to `number`, which lies in the table.
    #[inline(always)]
    pub(crate) fn within(&self, number: u64) -> u64 {
        let byte = number / 30;
        let entry = self.entries[(byte - self.first_byte) as usize];
        let bits = entry as u8 & bits_up_to_number(number % 30);
        (entry >> 8) + byte_total::<W>(byte, bits)
    }

    /// The sum over all primes up to `number`, which lies in the table.
    #[inline(always)]
    pub(crate) fn up_to(&self, number: u64) -> Total {
        self.before + total(self.within(number))
    }
}

#[inline(always)]
fn byte_total<W: Weight>(byte: u64, bits: u8) -> u64 {
    let ones = u64::from(ONES[usize::from(bits)]);
    if W::IS_SUM { 30 * byte * ones + u64::from(RESIDUE_SUMS[usize::from(bits)]) } else { ones }
}

/// A table costs less than the instructions for it where POPCNT may be missing.
const ONES: [u8; 256] = {
    let mut ones = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        ones[byte] = (byte as u8).count_ones() as u8;
        byte += 1;
    }
    ones
};

/// The sum over 2, 3 and 5, for which a map has no bits.
pub(crate) fn wheel_primes<W: Weight>() -> Total {
    [2, 3, 5].map(|prime| total(W::of(prime))).iter().fold(Wrapping(0), |sum, prime| sum + prime)
}
