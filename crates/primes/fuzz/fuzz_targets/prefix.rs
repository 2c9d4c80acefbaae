//! Prefix sums and counts of random x against the sieve, in random divisions between two workers that compute them in
//! any order, some calls stopped in between.
//!
//! Run with `cargo +nightly fuzz run prefix` in `crates/primes/`.

#![no_main]

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use primes::{Level, Plan, Prefix, Quantity, Stopped};

static NEVER: AtomicBool = AtomicBool::new(false);

/// Larger ones take the sieve long.
const LARGEST: u64 = 400_000_000;

thread_local! {
    static WORKERS: RefCell<[Prefix; 3]> = RefCell::new(Level::ALL.map(Prefix::with_level));
}

fuzz_target!(|input: (u64, bool, Vec<(u8, u8)>)| {
    let (seed, is_sum, cuts) = input;
    let x = seed % LARGEST;
    let plan = Plan::new(if is_sum { Quantity::Sum } else { Quantity::Count }, x);
    let mut ends: Vec<u64> = cuts.iter().map(|(cut, _)| u64::from(*cut) * (plan.parts() + 1) / 256).collect();
    ends.extend([0, plan.parts()]);
    ends.sort_unstable();
    let mut ranges: Vec<_> = ends.windows(2).map(|ends| ends[0]..ends[1]).collect();
    let turn = seed as usize % ranges.len();
    ranges.rotate_left(turn);
    WORKERS.with_borrow_mut(|workers| {
        let mut value = 0u128;
        for (index, range) in ranges.into_iter().enumerate() {
            let choice = cuts.get(index).map_or(0, |(_, choice)| *choice);
            let worker = &mut workers[usize::from(choice) % 3];
            if choice > 200 && !range.is_empty() {
                assert_eq!(worker.parts(&plan, range.clone(), &AtomicBool::new(true)), Err(Stopped));
            }
            value = value.wrapping_add(worker.parts(&plan, range, &NEVER).expect("nothing stops it"));
        }
        let expected = if is_sum { primes::sum(0..=x) } else { primes::count(0..=x).into() };
        assert_eq!(value, expected, "{x} {is_sum} {cuts:?}");
    });
});
