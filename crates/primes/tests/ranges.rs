//! Edges of the number line, of the wheel and of the segments, and random ranges, against a slow method.

mod reference;

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

use primes::{Level, Sieve};
use proptest::prelude::*;

const LAST_PRIME: u64 = 18_446_744_073_709_551_557;

fn assert_is_right(range: RangeInclusive<u64>) {
    assert_eq!(primes::sum(range.clone()), reference::sum(range.clone()), "{range:?}");
}

#[test]
fn every_range_of_small_numbers_is_right() {
    for first in 0..=70 {
        for last in first..=200 {
            assert_is_right(first..=last);
        }
    }
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "an empty range is the subject")]
fn empty_range_has_no_primes() {
    assert_eq!(primes::sum(3..=2), 0);
    assert_eq!(primes::count(u64::MAX..=0), 0);
}

#[test]
fn single_numbers_are_summed_if_they_are_prime() {
    for n in (0..=1000).chain([4_294_967_291, 4_294_967_311, LAST_PRIME - 1, LAST_PRIME, u64::MAX]) {
        let sum = if reference::is_prime(n) { u128::from(n) } else { 0 };
        assert_eq!(primes::sum(n..=n), sum, "{n}");
    }
}

#[test]
fn last_prime_below_two_to_the_64_is_found() {
    assert_eq!(primes::sum(LAST_PRIME..=u64::MAX), u128::from(LAST_PRIME));
    assert_eq!(primes::count(LAST_PRIME + 1..=u64::MAX), 0);
}

#[test]
fn ranges_around_powers_of_two_are_right() {
    for power in [16, 31, 32, 33, 40, 41, 47, 48, 52, 53, 54, 62, 63] {
        let middle = 1u64 << power;
        assert_is_right(middle - 5000..=middle + 5000);
    }
    assert_is_right(u64::MAX - 10_000..=u64::MAX);
}

#[test]
fn ranges_around_squares_of_sieving_primes_are_right() {
    for prime in [163u64, 167, 13_999, 14_009, 65_521, 65_537, 1_048_573, 1_048_583, 4_294_967_291] {
        let square = prime * prime;
        assert_is_right(square.saturating_sub(3000)..=square.saturating_add(3000));
    }
}

#[test]
fn pieces_add_up_across_block_and_segment_edges() {
    for bytes in [24 << 10, 96 << 10, 512 << 10, 1 << 20] {
        let edge = 30 * bytes;
        for start in [0, 30 * 10_000_000, 1_000_000_000_020] {
            let (first, cut, last) = (start, start + edge, start + 2 * edge + 77);
            let whole = primes::sum(first..=last);
            for cut in cut - 2..=cut + 31 {
                assert_eq!(primes::sum(first..=cut) + primes::sum(cut + 1..=last), whole, "{first}..={cut}..={last}");
            }
        }
    }
}

#[test]
fn one_sieve_serves_ranges_in_any_order() {
    let mut sieve = Sieve::new();
    let never = AtomicBool::new(false);
    for start in [1 << 60, 0, 1 << 45, 1 << 20, u64::MAX - 4000, 1 << 33] {
        let range = start..=start + 4000;
        assert_eq!(sieve.sum(range.clone(), &never), Ok(reference::sum(range)), "{start}");
    }
}

#[test]
fn walk_goes_on_exactly_after_its_memory_was_given_back() {
    let mut sieve = Sieve::new();
    let never = AtomicBool::new(false);
    for start in [1u64 << 20, 1 << 45, 1 << 60] {
        for range in [start..=start + 4000, start + 4001..=start + 8000] {
            let sum = sieve.sum_towards(range.clone(), start + 8000, &never);
            assert_eq!(sum, Ok(reference::sum(range)), "{start}");
            sieve.give_back();
        }
    }
}

fn with_level(level: Level, range: RangeInclusive<u64>) -> (u128, u64) {
    let never = AtomicBool::new(false);
    let mut sieve = Sieve::with_level(level);
    let sum = sieve.sum(range.clone(), &never).expect("nothing stops it");
    let count = sieve.count(range, &never).expect("nothing stops it");
    (sum, count)
}

#[test]
fn every_level_of_instructions_gives_the_published_sum() {
    for level in Level::ALL {
        let published = (279_209_790_387_276, 5_761_455);
        assert_eq!(with_level(level, 0..=100_000_000), published, "{level:?}");
    }
}

/// A number of any size: each count of bits is as likely as the others.
fn any_magnitude() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(n, shift)| n >> shift)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn sum_is_that_of_the_slow_method(first in any_magnitude(), len in 0..1000u64) {
        let range = first..=first.saturating_add(len);
        prop_assert_eq!(primes::sum(range.clone()), reference::sum(range));
    }

    #[test]
    fn count_and_sum_of_parts_make_the_whole(first in any_magnitude(), a in 0..300_000u64, b in 0..300_000u64) {
        let cut = first.saturating_add(a);
        let last = cut.saturating_add(b);
        prop_assume!(cut < last);
        prop_assert_eq!(primes::sum(first..=cut) + primes::sum(cut + 1..=last), primes::sum(first..=last));
        prop_assert_eq!(primes::count(first..=cut) + primes::count(cut + 1..=last), primes::count(first..=last));
    }

    #[test]
    fn every_level_of_instructions_gives_the_same(first in any_magnitude(), len in 0..100_000u64) {
        let range = first..=first.saturating_add(len);
        let expected = (primes::sum(range.clone()), primes::count(range.clone()));
        for level in Level::ALL {
            prop_assert_eq!(with_level(level, range.clone()), expected, "{:?}", level);
        }
    }
}
