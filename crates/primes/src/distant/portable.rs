//! The portable path: primes one after the other.

use crate::wheel::{HITS, Hit, RESIDUES};

/// Appends the numbers of the bits of `map`, which are below 2^32.
pub(super) fn collect(map: &[u8], first_byte: u64, primes: &mut Vec<u32>) {
    crate::base::collect(map, first_byte, |prime| primes.push(prime as u32));
}

/// Appends the hits of `primes`, none of which is below `len`, in the `len` bytes from `first_byte`.
#[inline(always)]
pub(super) fn find(primes: &[u32], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    for &prime in primes {
        let quotient = prime / 30;
        // 17 r / 64 is the place of r among the eight residues.
        let pattern = &HITS[17 * (prime % 30) as usize / 64 % 8];
        let passed = (first_byte % u64::from(prime)) as u32;
        let bytes: [u32; 8] = std::array::from_fn(|s| {
            let offset = quotient * u32::from(RESIDUES[s]) + pattern[s] / 8;
            // The next period's, if this one's is before the range.
            offset.wrapping_sub(passed).wrapping_add(if offset < passed { prime } else { 0 })
        });
        if bytes.iter().fold(u32::MAX, |least, &byte| least.min(byte)) < len {
            let found = bytes.iter().zip(pattern).filter(|(byte, _)| **byte < len);
            hits.extend(found.map(|(byte, bit)| (byte << 3) | (bit % 8)));
        }
    }
}
