//! The tally byte by byte, with a table.

use super::Moments;
use crate::wheel::RESIDUES;

pub(super) fn moments(map: &[u8]) -> Moments {
    let mut moments = Moments::default();
    for (index, &byte) in (0u64..).zip(map) {
        let ones = u64::from(byte.count_ones());
        moments.bits += ones;
        moments.indices += index * ones;
        moments.residues += u64::from(RESIDUE_SUMS[usize::from(byte)]);
    }
    moments
}

pub(super) fn ones(map: &[u8]) -> u64 {
    let (words, rest) = map.as_chunks::<8>();
    let in_words: u64 = words.iter().map(|&word| u64::from(u64::from_le_bytes(word).count_ones())).sum();
    in_words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// The sum of the residues of a byte's bits.
pub(crate) const RESIDUE_SUMS: [u8; 256] = {
    let mut sums = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                sums[byte] += RESIDUES[bit];
            }
            bit += 1;
        }
        byte += 1;
    }
    sums
};
