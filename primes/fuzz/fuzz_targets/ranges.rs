//! Sums and counts of random ranges of the whole of `u64`, at every level of instructions, against Miller–Rabin.
//!
//! Run with `cargo +nightly fuzz run ranges` in `primes/`.

#![no_main]

#[path = "../../tests/reference/mod.rs"]
mod reference;

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use primes::{Level, Sieve};

static NEVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SIEVES: RefCell<[Sieve; 3]> = RefCell::new(Level::ALL.map(Sieve::with_level));
}

/// Numbers that the reference tests one by one.
const CHECKED: u64 = 500;

/// Numbers on both sides of the checked ones, so that these come to lie anywhere in a segment.
const LONGEST_SIDE: u64 = 1 << 20;

fuzz_target!(|input: (u64, u8, u32, u32, u16)| {
    let (start, shift, before, after, len) = input;
    let first = start >> (shift % 64);
    let last = first.saturating_add(u64::from(len) % CHECKED);
    let outer_first = first.saturating_sub(u64::from(before) % LONGEST_SIDE);
    let outer_last = last.saturating_add(u64::from(after) % LONGEST_SIDE);
    let expected = reference::sum(first..=last);
    SIEVES.with_borrow_mut(|sieves| {
        for sieve in sieves {
            let mut sum = |first: u64, last: u64| sieve.sum(first..=last, &NEVER).expect("nothing stops it");
            assert_eq!(sum(first, last), expected, "{first}..={last}");
            let left = if outer_first < first { sum(outer_first, first - 1) } else { 0 };
            let right = if last < outer_last { sum(last + 1, outer_last) } else { 0 };
            assert_eq!(sum(outer_first, outer_last), left + expected + right, "{outer_first}..={first}..={last}..={outer_last}");
            let count = (first..=last).filter(|&n| reference::is_prime(n)).count() as u64;
            assert_eq!(sieve.count(first..=last, &NEVER), Ok(count), "{first}..={last}");
        }
    });
});
