//! What is taken from a finished map: how many primes it holds, and their sum.

use crate::wheel::RESIDUES;

/// Receives finished maps, in order and without gaps.
pub(crate) trait Tally {
    /// Adds the primes of `map`, whose first byte stands for the numbers from `30 first_byte`.
    fn add(&mut self, map: &[u8], first_byte: u64);
}

/// The number of primes.
#[derive(Default)]
pub(crate) struct Count(pub(crate) u64);

/// The sum of the primes.
#[derive(Default)]
pub(crate) struct Sum(pub(crate) u128);

impl Tally for Count {
    fn add(&mut self, map: &[u8], _: u64) {
        self.0 += map.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    }
}

impl Tally for Sum {
    fn add(&mut self, map: &[u8], first_byte: u64) {
        let mut bits = 0;
        let mut indices = 0;
        let mut residues = 0;
        for (i, &byte) in map.iter().enumerate() {
            let ones = u64::from(byte.count_ones());
            bits += ones;
            indices += i as u64 * ones;
            residues += u64::from(RESIDUE_SUMS[usize::from(byte)]);
        }
        self.0 += 30 * (u128::from(first_byte) * u128::from(bits) + u128::from(indices)) + u128::from(residues);
    }
}

const RESIDUE_SUMS: [u8; 256] = {
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
