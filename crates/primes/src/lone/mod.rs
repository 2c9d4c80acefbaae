//! Sieving primes on a short range, which most of them meet once or not at all.
//!
//! Nothing is kept from prime to prime: a pass over them finds the hits in the range, and a second one clears them.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
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
        Level::Avx2 => LEAST.max(bytes as u32),
        Level::Portable => LEAST.max(4 * bytes as u32).min(LONGEST as u32),
    }
}

/// The number of segments in which a prime may be placed anew before lists of hits in a window cost less.
pub(crate) fn most_segments(level: Level) -> u64 {
    match level {
        Level::Avx512 => 4,
        Level::Avx2 => 2,
        Level::Portable => 1,
    }
}

/// Clears the multiples of `primes` in `map`, whose first byte is byte `first_byte` of the numbers.
///
/// The primes are ascending and between 2^13 and 2^27. `hits` is a buffer. The CPU has the instructions of `level`.
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
    for primes in reached(primes, first_byte + map.len() as u64).chunks(PRIMES_BETWEEN_CHECKS) {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        hits.clear();
        find(primes, first_byte, map.len(), hits, level);
        for &hit in &*hits {
            map[hit as usize / 8] &= !(1 << (hit % 8));
        }
    }
    Ok(())
}

/// The ascending `primes` with multiples to clear before byte `end` of the numbers.
pub(crate) fn reached(primes: &[u32], end: u64) -> &[u32] {
    &primes[..primes.partition_point(|&prime| u64::from(prime) * u64::from(prime / 30) < end)]
}

/// Appends the hits of `primes`, which have multiples to clear, in the `len` bytes from `first_byte`, at most 2^26.
pub(crate) fn find(primes: &[u32], first_byte: u64, len: usize, hits: &mut Vec<Hit>, level: Level) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::find(primes, first_byte, len, hits),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::find(primes, first_byte, len, hits),
        _ => portable::find(primes, first_byte, len, hits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BasePrimes;

    #[test]
    fn every_level_clears_the_same() {
        let base = BasePrimes::new();
        let primes: Vec<u32> = base.up_to(u32::MAX).iter().copied().filter(|prime| *prime > 1 << 14).collect();
        let large = [67_108_859, 67_108_837, 67_108_819, 67_108_777, 67_108_763, 67_108_757, 67_108_753, 67_108_747];
        for first_byte in [0, 1 << 20, 143_165_576, 1 << 33, 1 << 47, (1 << 49) + 7, u64::MAX / 30 - 1_000_000] {
            for primes in [&primes[..], &large] {
                let clear = |level: Level| {
                    let mut map = vec![0xff; 300_000];
                    let stop = AtomicBool::new(false);
                    let result = strike(&mut map, first_byte, primes, &mut Vec::new(), level.supported(), &stop);
                    assert_eq!(result, Ok(()));
                    map
                };
                let [portable, avx2, avx512] = Level::ALL.map(clear);
                assert!(portable == avx2 && portable == avx512, "byte {first_byte}");
            }
        }
    }
}
