//! Hits, one prime after the other.

use crate::wheel::{HITS, Hit, RESIDUES, class_of};

/// Appends the hits of `primes` in the `len` bytes from `first_byte`.
pub(super) fn find(primes: &[u32], first_byte: u64, len: usize, hits: &mut Vec<Hit>) {
    for &prime in primes {
        let class = class_of(u64::from(prime)).expect("a sieving prime is coprime to 30");
        let (p, quotient) = (u64::from(prime), prime / 30);
        let period = (first_byte / p).max(quotient.into());
        let mut position = (p * period).wrapping_sub(first_byte) as i32;
        while position < len as i32 {
            let mut found = [0; 8];
            let mut number = 0;
            for s in 0..8 {
                let byte = position + (quotient * u32::from(RESIDUES[s])) as i32;
                found[number % 8] = ((8 * byte) as Hit).wrapping_add(HITS[class][s]);
                number += usize::from(found[number % 8] < 8 * len as Hit);
            }
            hits.extend_from_slice(&found[..number]);
            position += prime as i32;
        }
    }
}
