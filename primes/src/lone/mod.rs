//! Sieving primes on a short range, which most of them meet once or not at all.
//!
//! Nothing is kept from prime to prime: a pass over them finds the hits in the range, and a second one clears them.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::level::Level;
use crate::sieve::Stopped;
use crate::wheel::Hit;

/// The longest map, in bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// The prime from which on a range of `bytes` is crossed so seldom that keeping a position does not pay.
pub(crate) fn least_prime(bytes: u64, level: Level) -> u32 {
    const LEAST: u32 = 1 << 14;
    let segments = bytes.div_ceil(LONGEST as u64);
    match level {
        _ if segments > most_segments(level) => u32::MAX,
        _ if segments > 1 => LONGEST as u32,
        Level::Avx512 => LEAST.max(bytes as u32 / 2),
        Level::Avx2 | Level::Portable => LEAST.max(4 * bytes as u32).min(LONGEST as u32),
    }
}

/// How often a prime may be placed anew before lists of hits cost less.
pub(crate) fn most_segments(level: Level) -> u64 {
    match level {
        Level::Avx512 => 6,
        Level::Avx2 | Level::Portable => 2,
    }
}

/// Clears the multiples of `primes` in `map`, whose first byte is byte `first_byte` of the numbers.
///
/// The primes are ascending and between 2^13 and 2^27. `hits` is a buffer. `level` is one that the CPU has.
pub(crate) fn strike(
    map: &mut [u8],
    first_byte: u64,
    primes: &[u32],
    hits: &mut Vec<Hit>,
    level: Level,
    stop: &AtomicBool,
) -> Result<(), Stopped> {
    const PRIMES_BETWEEN_CHECKS: usize = 4096;
    assert!(map.len() <= LONGEST);
    let end = first_byte + map.len() as u64;
    let reached = primes.partition_point(|&prime| u64::from(prime) * u64::from(prime / 30) < end);
    for primes in primes[..reached].chunks(PRIMES_BETWEEN_CHECKS) {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        hits.clear();
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::find(primes, first_byte, map.len(), hits),
            _ => portable::find(primes, first_byte, map.len(), hits),
        }
        for &hit in &*hits {
            map[hit as usize / 8] &= !(1 << (hit % 8));
        }
    }
    Ok(())
}
