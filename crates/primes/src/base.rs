//! The base primes, whose multiples a sieve crosses off.

use std::sync::atomic::AtomicBool;

use crate::engine::{Engine, Span};
use crate::presieve;
use crate::sieve::Stopped;
use crate::wheel::RESIDUES;

/// The primes above the pre-sieved ones up to a limit that grows on demand.
#[derive(Debug)]
pub(crate) struct BasePrimes {
    primes: Vec<u32>,
    limit: u32,
}

/// Base primes up to here sieve all others, for its square is 2^32.
const FIRST_LIMIT: u32 = 1 << 16;

impl BasePrimes {
    pub(crate) fn new() -> Self {
        Self { primes: odd_sieve(FIRST_LIMIT), limit: FIRST_LIMIT }
    }

    /// Makes [`BasePrimes::up_to`] complete for `limit`.
    pub(crate) fn grow(&mut self, limit: u32, engine: &mut Engine, stop: &AtomicBool) -> Result<(), Stopped> {
        if limit <= self.limit {
            return Ok(());
        }
        let span = Span::new(u64::from(self.limit) + 1, u64::from(limit));
        let mut found = Vec::new();
        let sieving = self.up_to(limit.isqrt());
        let mut walk = engine.start(&span, sieving);
        engine.run(&mut walk, &span, sieving, stop, |map, first_byte| {
            collect(map, first_byte, |prime| found.push(prime as u32));
            Ok(())
        })?;
        self.primes.reserve_exact(found.len());
        self.primes.append(&mut found);
        self.limit = limit;
        Ok(())
    }

    /// The number up to which all base primes are known.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The base primes up to `limit`, ascending; complete once [`BasePrimes::grow`] has reached the limit.
    pub(crate) fn up_to(&self, limit: u32) -> &[u32] {
        &self.primes[..self.primes.partition_point(|&prime| prime <= limit)]
    }
}

/// Calls `found` with the number of every bit of `map`, whose first byte stands for the numbers from `30 first_byte`.
pub(crate) fn collect(map: &[u8], first_byte: u64, mut found: impl FnMut(u64)) {
    for (index, word) in (0u64..).step_by(8).zip(map.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        let mut bits = u64::from_le_bytes(bytes);
        while bits != 0 {
            let bit = bits.trailing_zeros();
            let residue = RESIDUES[bit as usize % 8];
            found(30 * (first_byte + index + u64::from(bit / 8)) + u64::from(residue));
            bits &= bits - 1;
        }
    }
}

/// The primes above [`presieve::LARGEST`] up to `limit`, by the sieve of Eratosthenes over the odd numbers.
fn odd_sieve(limit: u32) -> Vec<u32> {
    let limit = limit as usize;
    let mut composite = vec![false; limit + 1];
    for n in (3..).step_by(2).take_while(|n| n * n <= limit) {
        if !composite[n] {
            (n * n..=limit).step_by(2 * n).for_each(|multiple| composite[multiple] = true);
        }
    }
    let above = presieve::LARGEST as usize + 1;
    (above..=limit).filter(|n| n % 2 == 1 && !composite[*n]).map(|n| n as u32).collect()
}
