//! The sieve's bound: the square root, or less far out, with a primality test for the survivors.

use std::ops::RangeInclusive;

use crate::distant;
use crate::level::Level;
use crate::lone;
use crate::presieve;
use crate::window;

/// Sieving primes that are kept end here, which bounds the memory for them and their hits to some 100 MB.
const LARGEST_SIEVING: u32 = distant::KEPT;

/// The primality test takes numbers whose square roots are above this.
const LEAST_UNFINISHED: u32 = 1 << 16;

/// A range to be sieved.
pub(crate) struct Work {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The square root of `last`, rounded down.
    pub(crate) root: u32,
    pub(crate) level: Level,
    /// The number up to which base primes are known.
    pub(crate) known: u32,
}

/// The estimated nanoseconds for one thread to sum a range by a sieve without base primes, on AMD Zen 4, to choose between
/// that and a [plan](crate::Plan) or two. 0 if the range is empty.
pub fn sieve_cost(range: RangeInclusive<u64>) -> f64 {
    if range.is_empty() {
        return 0.0;
    }
    let (first, last) = range.into_inner();
    let mut work = Work { first, last, root: last.isqrt() as u32, level: Level::best(), known: LEAST_UNFINISHED };
    let limit = cheapest_limit(&work);
    work.known = work.known.min(limit);
    nanoseconds(&work, limit.max(presieve::LARGEST + 1))
}

/// The largest sieving prime that makes the whole work least, all primes if it is [`distant::KEPT`].
pub(crate) fn cheapest_limit(work: &Work) -> u32 {
    let full = work.root.min(LARGEST_SIEVING);
    if work.root <= LEAST_UNFINISHED || work.first >> 32 == 0 {
        return full;
    }
    let partial = (LEAST_UNFINISHED.ilog2()..u32::BITS).map(|bit| 1 << bit);
    let limits = partial.take_while(|&limit| limit < full);
    limits.fold(full, |best, limit| if nanoseconds(work, limit) < nanoseconds(work, best) { limit } else { best })
}

/// The estimated time, as measured on AMD Zen 5; only the proportions matter.
fn nanoseconds(work: &Work, limit: u32) -> f64 {
    /// Base primes stay for later calls, so a call bears a part of the 2 ns that one costs.
    const TO_FIND_A_BASE_PRIME: f64 = 0.3;
    let numbers = (work.last - work.first) as f64 + 1.0;
    let finding = primes(limit.max(work.known)) - primes(work.known);
    let left = if limit < work.root.min(LARGEST_SIEVING) { (-EULER_GAMMA).exp() / log(limit) } else { 0.0 };
    finding * TO_FIND_A_BASE_PRIME
        + nanoseconds_to_sieve(work, numbers, limit)
        + numbers * left * nanoseconds_to_test(work)
        + if limit == LARGEST_SIEVING { nanoseconds_for_distant(work, numbers) } else { 0.0 }
}

fn nanoseconds_for_distant(work: &Work, numbers: f64) -> f64 {
    const TO_CLEAR_A_BIT: f64 = 4.0;
    if work.root <= LARGEST_SIEVING {
        return 0.0;
    }
    let to_find_a_prime = match work.level {
        Level::Avx512 => 2.0,
        Level::Avx2 => 8.0,
        Level::Portable => 12.0,
    };
    let window = distant::window_segments(work.root) as f64 * 30.0 * window::SEGMENT as f64;
    let windows = (numbers / window).ceil();
    let hits = numbers * 8.0 / 30.0 * (log(work.root) / log(LARGEST_SIEVING)).ln();
    windows * (primes(work.root) - primes(LARGEST_SIEVING)) * to_find_a_prime + hits * TO_CLEAR_A_BIT
}

fn nanoseconds_to_sieve(work: &Work, numbers: f64, limit: u32) -> f64 {
    const TO_CLEAR_A_BIT: f64 = 0.3;
    const TO_CLEAR_A_BIT_FROM_A_LIST: f64 = 2.5;
    let segments = (numbers / (30.0 * lone::LONGEST as f64)).ceil();
    let is_short = segments <= lone::most_segments(work.level) as f64;
    let placements = if is_short { segments } else { (segments / window::SEGMENTS as f64).ceil() };
    let to_place_a_prime = match work.level {
        Level::Avx512 => 1.1,
        Level::Avx2 => 3.0,
        Level::Portable => 8.0,
    };
    let small = limit.min(window::SEGMENT as u32);
    let clearing = |from: u32, to: u32| numbers * 8.0 / 30.0 * (log(to) / log(from)).ln();
    primes(limit) * to_place_a_prime * placements
        + clearing(presieve::LARGEST, small) * TO_CLEAR_A_BIT
        + clearing(small, limit) * TO_CLEAR_A_BIT_FROM_A_LIST
}

/// About as many primes as there are up to `n`.
fn primes(n: u32) -> f64 {
    f64::from(n) / log(n)
}

fn log(n: u32) -> f64 {
    f64::from(n).ln()
}

/// Mertens' third theorem: of the numbers, `e^−γ / ln limit` have no prime factor up to `limit`.
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

fn nanoseconds_to_test(work: &Work) -> f64 {
    const ONE_LIMB: u64 = 1 << 50;
    match work.level {
        Level::Avx512 if work.last < ONE_LIMB => 35.0,
        Level::Avx512 => 95.0,
        Level::Avx2 | Level::Portable => 190.0,
    }
}
