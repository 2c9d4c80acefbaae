//! The combinatorial sum against published values, and the sieve against the combinatorial sum.

use proptest::prelude::*;

const PUBLISHED: &str = include_str!("data/prime-sums.csv");

#[test]
fn combinatorial_sum_is_the_published_one() {
    for line in PUBLISHED.lines().skip(1) {
        let (n, sum) = line.split_once(',').expect("two columns");
        let sum: u128 = sum.parse().expect("a sum");
        assert_eq!(primes::sum_up_to(n.parse().expect("a number")), sum, "{n}");
    }
}

#[test]
fn combinatorial_sum_grows_by_each_prime() {
    let mut sum = 0;
    for n in 0..=2000 {
        let is_prime = n > 1 && (2..n).all(|divisor| n % divisor != 0);
        sum += if is_prime { u128::from(n) } else { 0 };
        assert_eq!(primes::sum_up_to(n), sum, "{n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn sieve_agrees_with_the_combinatorial_sum(first in 1..1_000_000_000u64, len in 0..300_000_000u64) {
        let last = first + len;
        let expected = primes::sum_up_to(last) - primes::sum_up_to(first - 1);
        prop_assert_eq!(primes::sum(first..=last), expected);
    }

    #[test]
    fn sieve_agrees_with_the_combinatorial_sum_far_out(first in 30_000_000_000..100_000_000_000u64, len in 0..100_000_000u64) {
        let last = first + len;
        let expected = primes::sum_up_to(last) - primes::sum_up_to(first - 1);
        prop_assert_eq!(primes::sum(first..=last), expected);
    }
}
