//! Prefix sums and counts against published values, Lucy's method and the sieve, in one piece and in parts.

use std::sync::atomic::AtomicBool;

use primes::{Level, Plan, Prefix, Quantity, Stopped};
use proptest::prelude::*;

static NEVER: AtomicBool = AtomicBool::new(false);

const SUMS: &str = include_str!("data/prime-sums.csv");
const COUNTS: &str = include_str!("data/prime-counts.csv");

/// Larger ones take long: `cargo run --release -p primes --example published` checks them.
const LARGEST: u64 = 100_000_000_000_000;

/// Lucy's method takes longer still.
const LARGEST_FOR_LUCY: u64 = 1_000_000_000_000;

fn published(table: &str) -> impl Iterator<Item = (u64, u128)> {
    table.lines().skip(1).map(|line| {
        let (n, value) = line.split_once(',').expect("two columns");
        (n.parse().expect("a number"), value.parse().expect("a value"))
    })
}

fn value(plan: &Plan, level: Level) -> u128 {
    Prefix::with_level(level).parts(plan, 0..plan.parts(), &NEVER).expect("nothing stops it")
}

#[test]
fn sums_are_the_published_ones() {
    for (n, sum) in published(SUMS).filter(|(n, _)| *n <= LARGEST) {
        assert_eq!(primes::sum_up_to(n), sum, "{n}");
    }
}

#[test]
fn counts_are_the_published_ones() {
    for (n, count) in published(COUNTS).filter(|(n, _)| *n <= LARGEST) {
        assert_eq!(u128::from(primes::count_up_to(n)), count, "{n}");
    }
}

#[test]
fn lucys_sums_are_the_published_ones() {
    for (n, sum) in published(SUMS).filter(|(n, _)| *n <= LARGEST_FOR_LUCY) {
        assert_eq!(primes::lucy::sum_up_to(n), sum, "{n}");
    }
}

#[test]
fn sums_grow_by_each_prime() {
    let mut sum = 0;
    for n in 0..=2000 {
        let is_prime = n > 1 && (2..n).all(|divisor| n % divisor != 0);
        sum += if is_prime { u128::from(n) } else { 0 };
        assert_eq!([primes::sum_up_to(n), primes::lucy::sum_up_to(n)], [sum; 2], "{n}");
    }
}

#[test]
fn every_level_computes_the_same() {
    for quantity in [Quantity::Sum, Quantity::Count] {
        let plan = Plan::new(quantity, 123_456_789_012);
        let expected = value(&plan, Level::best());
        for level in Level::ALL {
            assert_eq!(value(&plan, level), expected, "{quantity:?} {level:?}");
        }
    }
}

#[test]
fn value_next_to_a_square_or_a_cube_is_that_of_the_sieve() {
    for x in [25_000_000u64, 9_409_u64.pow(2), 1_000_003u64.pow(2), 3_001u64.pow(3), 7_919u64.pow(3)] {
        for x in [x - 1, x, x + 1] {
            let start = x.saturating_sub(1_000_000);
            let grown = primes::sum_up_to(x) - primes::sum_up_to(start);
            assert_eq!(grown, primes::sum(start + 1..=x), "{x}");
        }
    }
}

#[test]
fn stopped_computation_ends_and_the_next_one_is_exact() {
    let plan = Plan::new(Quantity::Sum, 1_000_000_000_000);
    let mut prefix = Prefix::new();
    for part in 0..plan.parts() {
        assert_eq!(prefix.parts(&plan, part..part + 1, &AtomicBool::new(true)), Err(Stopped), "{part}");
    }
    let sum = prefix.parts(&plan, 0..plan.parts(), &NEVER);
    assert_eq!(sum, Ok(18_435_588_552_550_705_911_377));
}

#[test]
fn parts_are_bounded_and_of_similar_cost() {
    for x in [0, 1, 20_000_000, 1 << 30, 1 << 40, 1 << 50, 1 << 60, u64::MAX] {
        for quantity in [Quantity::Sum, Quantity::Count] {
            let plan = Plan::new(quantity, x);
            assert!((1..=1000).contains(&plan.parts()), "{x} has {} parts", plan.parts());
            assert_eq!(plan, Plan::new(quantity, x));
            let most = (0..plan.parts()).map(|part| plan.cost(part..part + 1)).fold(0.0, f64::max);
            assert!(x < 1 << 40 || most < plan.total_cost() / 16.0, "{x}: {most} of {}", plan.total_cost());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn parts_add_up_however_they_are_divided(
        x in 20_000_000..10_000_000_000u64,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        order in any::<u64>(),
        is_sum in any::<bool>(),
    ) {
        let quantity = if is_sum { Quantity::Sum } else { Quantity::Count };
        let plan = Plan::new(quantity, x);
        let mut ends: Vec<u64> = cuts.iter().map(|cut| cut.index(plan.parts() as usize + 1) as u64).collect();
        ends.extend([0, plan.parts()]);
        ends.sort_unstable();
        let mut ranges: Vec<_> = ends.windows(2).map(|ends| ends[0]..ends[1]).collect();
        let turn = order as usize % ranges.len();
        ranges.rotate_left(turn);
        let mut workers = [Prefix::new(), Prefix::new()];
        let mut sum = 0u128;
        for (index, range) in ranges.into_iter().enumerate() {
            let worker = &mut workers[(order >> (index % 64) & 1) as usize];
            sum = sum.wrapping_add(worker.parts(&plan, range, &NEVER).expect("nothing stops it"));
        }
        let expected = if is_sum { primes::sum(0..=x) } else { primes::count(0..=x).into() };
        prop_assert_eq!(sum, expected, "{} {:?}", x, quantity);
    }

    #[test]
    fn sum_is_that_of_lucys_method(x in 20_000_000..20_000_000_000u64) {
        prop_assert_eq!(primes::sum_up_to(x), primes::lucy::sum_up_to(x));
    }

    #[test]
    fn sieve_agrees_with_the_prefix_sums(last in 30_000_000..3_000_000_000_000u64, len in 0..100_000_000u64) {
        let first = last.saturating_sub(len).max(1);
        let expected = primes::sum_up_to(last) - primes::sum_up_to(first - 1);
        prop_assert_eq!(primes::sum(first..=last), expected);
        let expected = primes::count_up_to(last) - primes::count_up_to(first - 1);
        prop_assert_eq!(primes::count(first..=last), expected);
    }
}
