//! Prefix sums against the sieve, with limits and divisions of all kinds.

use std::sync::atomic::AtomicBool;

use super::parameters::Parameters;
use super::plan::{Plan, Quantity};
use super::worker::Prefix;
use crate::level::Level;

static NEVER: AtomicBool = AtomicBool::new(false);

fn whole(plan: &Plan, level: Level) -> u128 {
    Prefix::with_level(level).parts(plan, 0..plan.parts(), &NEVER).expect("nothing stops it")
}

fn sieved(quantity: Quantity, x: u64) -> u128 {
    match quantity {
        Quantity::Sum => crate::sum(0..=x),
        Quantity::Count => crate::count(0..=x).into(),
    }
}

#[test]
fn sums_and_counts_are_those_of_the_sieve_whatever_the_limits_are() {
    for x in [1_000_000, 1_234_567, 9_999_991, 100_000_000, 3_000_000_017] {
        for quantity in [Quantity::Sum, Quantity::Count] {
            for (y, z) in [(0, 0), (0, 2000), (300, 300), (1000, 1000), (u64::MAX >> 1, u64::MAX >> 1)] {
                let plan = Plan::divided(quantity, Parameters::new(x, y, z), 4096, None);
                assert_eq!(whole(&plan, Level::best()), sieved(quantity, x), "{x} {quantity:?} {y} {z}");
            }
        }
    }
}
