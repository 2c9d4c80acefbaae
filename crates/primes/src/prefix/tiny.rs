//! The numbers that the first seven primes do not divide: their pattern in a map, and their count and sum in closed form.

use std::num::Wrapping;
use std::sync::LazyLock;

use super::weight::{Total, Weight, total};
use crate::tally::RESIDUE_SUMS;
use crate::wheel::{CARRY, KEEP, RESIDUES, class_of};

/// The number of primes that the pattern leaves out: 2, 3, 5 and [`PATTERN_PRIMES`].
pub(crate) const FIRST_PRIMES: usize = 7;

const PATTERN_PRIMES: [usize; 4] = [7, 11, 13, 17];

/// Bytes after which the pattern repeats.
pub(crate) const PERIOD: usize = 7 * 11 * 13 * 17;

/// The numbers that a period stands for.
const NUMBERS: u64 = 30 * PERIOD as u64;

/// The pattern of one byte, with the count and the sum of the bytes before it.
#[derive(Clone, Copy, Debug)]
struct PatternEntry {
    sum: u64,
    count: u32,
    bits: u8,
}

struct Pattern {
    bytes: Vec<u8>,
    entries: Vec<PatternEntry>,
    sum: u64,
    count: u64,
}

static PATTERN: LazyLock<Pattern> = LazyLock::new(|| {
    let mut bytes = vec![0xff; PERIOD];
    for prime in PATTERN_PRIMES {
        let class = class_of(prime as u64).expect("the prime is coprime to 30");
        for start in (0..PERIOD).step_by(prime) {
            for s in 0..8 {
                let offset = prime / 30 * usize::from(RESIDUES[s]) + usize::from(CARRY[class][s]);
                bytes[start + offset] &= KEEP[class][s];
            }
        }
    }
    let (mut sum, mut count) = (0, 0);
    let mut entries = Vec::with_capacity(PERIOD);
    for (byte, &bits) in (0u64..).zip(&bytes) {
        entries.push(PatternEntry { sum, count: count as u32, bits });
        let ones = u64::from(bits.count_ones());
        count += ones;
        sum += 30 * byte * ones + u64::from(RESIDUE_SUMS[usize::from(bits)]);
    }
    Pattern { bytes, entries, sum, count }
});

/// Fills `map`, whose first byte is byte `first_byte` of the numbers, with the numbers coprime to the first seven primes.
pub(crate) fn fill(map: &mut [u8], first_byte: u64) {
    let pattern = &PATTERN.bytes;
    let phase = (first_byte % PERIOD as u64) as usize;
    let head = map.len().min(PERIOD - phase);
    let (first, rest) = map.split_at_mut(head);
    first.copy_from_slice(&pattern[phase..phase + head]);
    for piece in rest.chunks_mut(PERIOD) {
        piece.copy_from_slice(&pattern[..piece.len()]);
    }
}

/// The sum of `f(n)` over the n from 1 to `u` that are coprime to the first seven primes.
pub(crate) fn phi<W: Weight>(u: u64) -> Total {
    let pattern = &*PATTERN;
    let (periods, rest) = (u / NUMBERS, u % NUMBERS);
    let byte = rest / 30;
    let PatternEntry { sum, count, bits } = pattern.entries[byte as usize];
    let bits = bits & bits_up_to_number(rest % 30);
    let count = u64::from(count) + u64::from(bits.count_ones());
    if !W::IS_SUM {
        return total(periods * pattern.count + count);
    }
    let sum = sum + 30 * byte * u64::from(bits.count_ones()) + u64::from(RESIDUE_SUMS[usize::from(bits)]);
    let [periods, numbers] = [periods, NUMBERS].map(u128::from);
    let whole = numbers * u128::from(pattern.count) * (periods * periods.saturating_sub(1) / 2);
    Wrapping(whole + periods * u128::from(pattern.sum) + periods * numbers * u128::from(count) + u128::from(sum))
}

/// The bits of a byte up to that of `residue`, below 30.
#[inline(always)]
pub(crate) fn bits_up_to_number(residue: u64) -> u8 {
    MASKS[residue as usize % 32]
}

const MASKS: [u8; 32] = {
    let mut masks = [0; 32];
    let mut residue = 0;
    while residue < 32 {
        let mut bit = 0;
        while bit < 8 {
            if RESIDUES[bit] as usize <= residue {
                masks[residue] |= 1 << bit;
            }
            bit += 1;
        }
        residue += 1;
    }
    masks
};
