//! Sums and counts against published values.

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

use primes::{Level, Sieve};

const SUMS: &str = include_str!("data/prime-sums.csv");

/// OEIS A006880: the number of primes below 10^1, 10^2, ...
const COUNTS: [u64; 10] = [4, 25, 168, 1229, 9592, 78498, 664579, 5761455, 50847534, 455052511];

fn published_sums() -> impl Iterator<Item = (u64, u128)> {
    SUMS.lines().skip(1).map(|line| {
        let (n, sum) = line.split_once(',').expect("two columns");
        (n.parse().expect("a number"), sum.parse().expect("a sum"))
    })
}

#[test]
fn sums_up_to_powers_of_ten_are_the_published_ones() {
    for (n, sum) in published_sums().filter(|(n, _)| *n <= 10_000_000_000) {
        assert_eq!(primes::sum(0..=n), sum, "sum up to {n}");
    }
}

#[test]
fn counts_up_to_powers_of_ten_are_the_published_ones() {
    for (exponent, count) in (1..).zip(COUNTS).take(9) {
        assert_eq!(primes::count(1..=10u64.pow(exponent)), count, "count up to 10^{exponent}");
    }
}

/// Ranges that are sieved by all primes up to the root, by primesieve 12.16.
#[test]
fn counts_of_long_ranges_far_out_are_those_of_primesieve() {
    const LEN: u64 = 999_999_999;
    let far = [(1_000_000_000_000_000_000, 24_127_085), (18_446_744_072_709_551_615, 22_537_866)];
    for (first, count) in far {
        assert_eq!(primes::count(first..=first + LEN), count, "{first}");
    }
    let first = 10_000_000_000_000_000;
    for level in Level::ALL {
        let count = Sieve::with_level(level).count(first..=first + LEN, &AtomicBool::new(false));
        assert_eq!(count, Ok(27_153_205), "{level:?}");
    }
}

/// Counts by primesieve 12.16, which shares no code with this crate.
#[test]
fn counts_far_out_are_those_of_primesieve() {
    let far: [(RangeInclusive<u64>, u64); 6] = [
        (1_000_000_000_000..=1_000_000_000_000 + 100_000_000, 3_618_282),
        (1_000_000_000_000_000..=1_000_000_000_000_000 + 2_500_000, 72_345),
        (1_000_000_000_000_000..=1_000_000_000_000_000 + 200_000_000, 5_788_545),
        (10_000_000_000_000_000..=10_000_000_000_000_000 + 1_000_000, 27_168),
        (1_000_000_000_000_000_000..=1_000_000_000_000_000_000 + 2_500_000, 60_592),
        (u64::MAX - 1_000_000..=u64::MAX, 22_475),
    ];
    for (range, count) in far {
        assert_eq!(primes::count(range.clone()), count, "{range:?}");
    }
}
