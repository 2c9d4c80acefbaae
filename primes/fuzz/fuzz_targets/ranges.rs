//! Sums and counts of random ranges of the whole of `u64`, at every level of instructions, against Miller–Rabin, and
//! walks over them in random steps against whole calls.
//!
//! Run with `cargo +nightly fuzz run ranges` in `primes/`.

#![no_main]

#[path = "../../tests/reference/mod.rs"]
mod reference;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use primes::{Level, Sieve};

static NEVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SIEVES: RefCell<[Sieve; 3]> = RefCell::new(Level::ALL.map(Sieve::with_level));
}

/// Numbers that the reference tests one by one.
const CHECKED: u64 = 500;

type Input = (u64, u8, u32, u32, u16, u32, u8, Vec<Step>);

/// The length of a step, how far its horizon is beyond it, how many bits of both count, and whether another call
/// comes before it.
type Step = (u32, u32, u8, bool);

/// Numbers on both sides of the checked ones, so that these come to lie anywhere in a segment.
const LONGEST_SIDE: u64 = 1 << 20;

/// Numbers of a walk behind the checked ones, for some segments.
const LONGEST_WALK: u64 = 1 << 26;

const MOST_STEPS: usize = 24;

fuzz_target!(|input: Input| {
    let (start, shift, before, after, len, far, far_shift, steps) = input;
    let first = start >> (shift % 64);
    let last = first.saturating_add(u64::from(len) % CHECKED);
    let outer_first = first.saturating_sub(u64::from(before) % LONGEST_SIDE);
    let outer_last = last.saturating_add(u64::from(after) % LONGEST_SIDE);
    let expected = reference::sum(first..=last);
    let count = (first..=last).filter(|&n| reference::is_prime(n)).count() as u64;
    let far_last = outer_last.saturating_add(u64::from(far >> (far_shift % 32)) % LONGEST_WALK);
    SIEVES.with_borrow_mut(|sieves| {
        for sieve in sieves {
            let mut sum = |first: u64, last: u64| sieve.sum(first..=last, &NEVER).expect("nothing stops it");
            assert_eq!(sum(first, last), expected, "{first}..={last}");
            let left = if outer_first < first { sum(outer_first, first - 1) } else { 0 };
            let right = if last < outer_last { sum(last + 1, outer_last) } else { 0 };
            let outer = sum(outer_first, outer_last);
            assert_eq!(outer, left + expected + right, "{outer_first}..={first}..={last}..={outer_last}");
            assert_eq!(sieve.count(first..=last, &NEVER), Ok(count), "{first}..={last}");
            let whole = sieve.sum(outer_first..=far_last, &NEVER).expect("nothing stops it");
            let in_steps = walk(sieve, outer_first, far_last, &steps, first..=last, expected);
            assert_eq!(in_steps, whole, "{outer_first}..={far_last} in {steps:?}");
        }
    });
});

/// The sum of `first` to `end` in steps, with calls for `foreign`, whose sum is `expected`, in between.
fn walk(sieve: &mut Sieve, first: u64, end: u64, steps: &[Step], foreign: RangeInclusive<u64>, expected: u128) -> u128 {
    let (mut sum, mut next) = (0, first);
    for &(len, reach, bits, is_interrupted) in steps.iter().take(MOST_STEPS) {
        let last = next.saturating_add(u64::from(len >> (bits % 32)));
        if last >= end {
            break;
        }
        if is_interrupted {
            assert_eq!(sieve.sum(foreign.clone(), &NEVER), Ok(expected), "{foreign:?}");
        }
        let horizon = last.saturating_add(u64::from(reach >> (bits / 8)));
        sum += sieve.sum_towards(next..=last, horizon, &NEVER).expect("nothing stops it");
        next = last + 1;
    }
    sum + sieve.sum_towards(next..=end, end, &NEVER).expect("nothing stops it")
}
