//! Sums and counts of random ranges of the whole of `u64`, at every level of instructions, against Miller–Rabin, and
//! walks over them in random steps against whole calls.
//!
//! Run with `cargo +nightly fuzz run ranges` in `crates/primes/`.

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

/// Numbers on both sides of the checked ones, so that these come to lie anywhere in a segment.
const LONGEST_SIDE: u64 = 1 << 20;

/// Bits of a walk's length behind the checked numbers, for some segments.
const WALK_BITS: u64 = 26;

/// Bits of a walk's length where each survivor of the sieve has to be proven prime.
const WALK_BITS_FAR_OUT: u64 = 20;

const MOST_STEPS: usize = 24;

fuzz_target!(|input: (u64, u8, u32, u32, u16, u64)| {
    let (start, shift, before, after, len, seed) = input;
    let first = start >> (shift % 64);
    let last = first.saturating_add(u64::from(len) % CHECKED);
    let outer_first = first.saturating_sub(u64::from(before) % LONGEST_SIDE);
    let outer_last = last.saturating_add(u64::from(after) % LONGEST_SIDE);
    let expected = reference::sum(first..=last);
    let count = (first..=last).filter(|&n| reference::is_prime(n)).count() as u64;
    let random = Random(start ^ seed.rotate_left(32) ^ u64::from(before) << 16 ^ u64::from(after));
    SIEVES.with_borrow_mut(|sieves| {
        for sieve in sieves {
            let mut sum = |first: u64, last: u64| sieve.sum(first..=last, &NEVER).expect("nothing stops it");
            assert_eq!(sum(first, last), expected, "{first}..={last}");
            let left = if outer_first < first { sum(outer_first, first - 1) } else { 0 };
            let right = if last < outer_last { sum(last + 1, outer_last) } else { 0 };
            let outer = sum(outer_first, outer_last);
            assert_eq!(outer, left + expected + right, "{outer_first}..={first}..={last}..={outer_last}");
            assert_eq!(sieve.count(first..=last, &NEVER), Ok(count), "{first}..={last}");
            walk(sieve, outer_first, outer_last, random.clone(), first..=last, expected);
        }
    });
});

/// Goes from `first` to `last` and beyond in random steps, with calls for `foreign`, whose sum is `expected`, in
/// between.
fn walk(sieve: &mut Sieve, first: u64, last: u64, mut random: Random, foreign: RangeInclusive<u64>, expected: u128) {
    let walk_bits = if last >> 52 == 0 { WALK_BITS } else { WALK_BITS_FAR_OUT };
    let end = last.saturating_add(random.magnitude(walk_bits));
    let whole = sieve.sum(first..=end, &NEVER).expect("nothing stops it");
    let (mut sum, mut next, mut ends) = (0, first, Vec::new());
    for _ in 0..MOST_STEPS {
        let last = next.saturating_add(random.magnitude(walk_bits));
        if last >= end {
            continue;
        }
        if random.next() % 16 == 0 {
            assert_eq!(sieve.sum(foreign.clone(), &NEVER), Ok(expected), "{foreign:?}");
        }
        let horizon = last.saturating_add(random.magnitude(walk_bits + 4));
        sum += sieve.sum_towards(next..=last, horizon, &NEVER).expect("nothing stops it");
        next = last + 1;
        ends.push((last, horizon));
    }
    sum += sieve.sum_towards(next..=end, end, &NEVER).expect("nothing stops it");
    assert_eq!(sum, whole, "{first}..={end} by {ends:?}");
}

/// SplitMix64 (G. Steele, D. Lea and C. Flood, 2014). A fuzzer repeats few values, and steps made of them are alike.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number of up to `bits` bits, each count of them as likely as the others.
    fn magnitude(&mut self, bits: u64) -> u64 {
        let bits = self.next() % (bits + 1);
        self.next() & ((1 << bits) - 1)
    }
}
