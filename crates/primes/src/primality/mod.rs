//! A proven primality test for the numbers that a sieve with too few primes leaves, many at a time.
//!
//! A number below 2^64 is prime if and only if it passes the strong test to base 2 and the almost extra strong Lucas
//! test: none of the composites of the first kind, all known from J. Feitsma's list (2013), passes the second
//! (D. Jacobsen, "Pseudoprime Statistics, Tables, and Data", <http://ntheory.org/pseudoprimes.html>).

mod bpsw;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod lanes;
mod scalar;

use crate::level::Level;

/// Keeps the primes of `numbers`, which are odd, between 2^32 and 2^64 and without a prime factor below 2^8.
///
/// The CPU has the instructions of `level`.
pub(crate) fn retain_primes(numbers: &mut Vec<u64>, level: Level) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        return ifma::retain_primes(numbers);
    }
    let _ = level;
    scalar::retain_primes(numbers);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strong pseudoprimes to base 2 and to more (OEIS A014233), squares, among them that of the two Wieferich primes,
    /// and strong pseudoprimes of the form (k + 1)(2 k + 1).
    const COMPOSITES: [u64; 11] = [
        2_152_302_898_747,
        3_474_749_660_383,
        341_550_071_728_321,
        3_825_123_056_546_413_051,
        1_122_004_669_633,
        4_294_967_297,
        4_295_098_369,
        14_726_582_775_529,
        18_446_744_065_119_617_025,
        800_194_311_797_653,
        8_000_001_094_000_037_401,
    ];

    const PRIMES: [u64; 6] = [
        4_294_967_311,
        1_000_000_000_039,
        1_125_899_906_842_597,
        1_125_899_906_842_679,
        9_223_372_036_854_775_783,
        18_446_744_073_709_551_557,
    ];

    #[test]
    fn composites_that_fool_other_tests_are_removed_and_primes_kept() {
        for level in Level::ALL.map(Level::supported) {
            for &n in &PRIMES {
                let mut numbers = vec![n];
                numbers.extend(COMPOSITES);
                retain_primes(&mut numbers, level);
                assert_eq!(numbers, [n], "{level:?}");
            }
            for n in COMPOSITES {
                let mut numbers = vec![n];
                retain_primes(&mut numbers, level);
                assert_eq!(numbers, [], "{n} {level:?}");
            }
        }
    }
}
