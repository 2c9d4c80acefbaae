//! The public sieve: chooses between sieving alone and sieving with a primality test behind it.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{BasePrimes, collect};
use crate::cost::{self, Work};
use crate::distant;
use crate::engine::{Engine, Span, Walk};
use crate::level::Level;
use crate::primality::retain_primes;
use crate::tally::{Count, Sum, Tally};
use crate::wheel::class_of;
use crate::window;

/// With base primes up to here a sieve takes a few megabytes: no prime is longer than a segment, so none has hits in lists.
const LARGEST_KEPT: u32 = window::SEGMENT as u32;

/// A call that its stop flag ended early. The sieve is as usable as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the computation was stopped")
    }
}

impl Error for Stopped {}

/// Sums and counts primes, keeping its buffers and base primes from call to call.
///
/// Meant to live as long as its thread. Its memory grows with the square root of the largest number, to 70 MiB at 10^15,
/// and for long ranges further out to less than 256 MiB.
#[derive(Debug)]
pub struct Sieve {
    level: Level,
    base: BasePrimes,
    engine: Engine,
    /// The walk of the last call, for the next one to go on with.
    course: Option<Course>,
}

impl Default for Sieve {
    fn default() -> Self {
        Self::new()
    }
}

impl Sieve {
    /// A sieve with the base primes for ranges below 2^32; more are found when a range needs them.
    pub fn new() -> Self {
        Self::with_level(Level::best())
    }

    /// A sieve that uses the instructions of `level`, or the best ones that the CPU has if they are lower.
    pub fn with_level(level: Level) -> Self {
        let level = level.supported();
        Self { level, base: BasePrimes::new(), engine: Engine::new(level), course: None }
    }

    /// The sum of all primes in `range`, 0 if it is empty.
    ///
    /// # Errors
    ///
    /// [`Stopped`] within about 20 ms after `stop` became true.
    pub fn sum(&mut self, range: RangeInclusive<u64>, stop: &AtomicBool) -> Result<u128, Stopped> {
        let horizon = *range.end();
        self.sum_towards(range, horizon, stop)
    }

    /// Like [`Sieve::sum`], as a step of a walk over consecutive ranges that is expected to lead to `horizon`.
    ///
    /// A call whose range starts where that of the last call ended goes on with its walk, which costs no more than the
    /// two ranges in one call. Any other call starts a walk, and so does a range that ends beyond the horizon of the
    /// first step or of one whose segment it cut short. A step may sieve some 31 million numbers beyond its range, but
    /// none beyond its horizon. The horizon changes the time only, never the sum; one inside the range counts as its
    /// end.
    ///
    /// # Errors
    ///
    /// [`Stopped`] within about 20 ms after `stop` became true. The walk ends then.
    pub fn sum_towards(
        &mut self,
        range: RangeInclusive<u64>,
        horizon: u64,
        stop: &AtomicBool,
    ) -> Result<u128, Stopped> {
        let small = wheel_primes(&range).map(u128::from).sum();
        let mut sum = Sum(small);
        self.tally(range, horizon, stop, &mut sum)?;
        Ok(sum.0)
    }

    /// The number of primes in `range`, 0 if it is empty.
    ///
    /// # Errors
    ///
    /// [`Stopped`] within about 20 ms after `stop` became true.
    pub fn count(&mut self, range: RangeInclusive<u64>, stop: &AtomicBool) -> Result<u64, Stopped> {
        let horizon = *range.end();
        self.count_towards(range, horizon, stop)
    }

    /// Like [`Sieve::count`], as a step of a walk: see [`Sieve::sum_towards`], whose steps may come in between.
    ///
    /// # Errors
    ///
    /// [`Stopped`] within about 20 ms after `stop` became true. The walk ends then.
    pub fn count_towards(
        &mut self,
        range: RangeInclusive<u64>,
        horizon: u64,
        stop: &AtomicBool,
    ) -> Result<u64, Stopped> {
        let mut count = Count(wheel_primes(&range).count() as u64);
        self.tally(range, horizon, stop, &mut count)?;
        Ok(count.0)
    }

    /// Gives back the memory that ranges above some 10^12 have taken, if there were any. Their walk ends then, and the next call
    /// starts cold.
    pub fn give_back(&mut self) {
        if self.is_large() {
            *self = Self::with_level(self.level);
        }
    }

    /// Whether [`Sieve::give_back`] has memory to give back.
    pub fn is_large(&self) -> bool {
        self.base.limit() > LARGEST_KEPT
    }

    /// Whether a range up to `last` may make a sieve large.
    pub fn may_be_large(last: u64) -> bool {
        last.isqrt() > u64::from(LARGEST_KEPT)
    }

    fn tally(
        &mut self,
        range: RangeInclusive<u64>,
        horizon: u64,
        stop: &AtomicBool,
        tally: &mut impl Tally,
    ) -> Result<(), Stopped> {
        let level = self.level;
        self.visit_towards(range, horizon, stop, |map, first_byte| {
            tally.add(map, first_byte, level);
            Ok(())
        })
    }

    /// Calls `visit` with the map of the primes above 5 in `range`, piece by piece, and the number of each piece's first
    /// byte.
    pub(crate) fn visit(
        &mut self,
        range: RangeInclusive<u64>,
        stop: &AtomicBool,
        visit: impl FnMut(&mut [u8], u64) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let horizon = *range.end();
        self.visit_towards(range, horizon, stop, visit)
    }

    fn visit_towards(
        &mut self,
        range: RangeInclusive<u64>,
        horizon: u64,
        stop: &AtomicBool,
        mut visit: impl FnMut(&mut [u8], u64) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        if range.is_empty() {
            return Ok(());
        }
        let level = self.level;
        let (first, last) = range.into_inner();
        let span = Span { first, last, horizon: horizon.max(last) };
        let mut course = match self.course.take() {
            Some(course) if course.walk.is_followed_by(&span) => course,
            Some(_) | None => self.start(&span, stop)?,
        };
        let Course { walk, limit, proven_bytes } = &mut course;
        self.engine.run(walk, &span, self.base.up_to(*limit), stop, |map, first_byte| {
            if first_byte + map.len() as u64 > *proven_bytes {
                remove_composites(map, first_byte, level, stop)?;
            }
            visit(map, first_byte)
        })?;
        self.course = Some(course);
        Ok(())
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    fn start(&mut self, span: &Span, stop: &AtomicBool) -> Result<Course, Stopped> {
        let root = span.horizon.isqrt() as u32;
        let known = self.base.limit();
        let limit =
            cost::cheapest_limit(&Work { first: span.first, last: span.horizon, root, level: self.level, known });
        self.base.grow(limit, &mut self.engine, stop)?;
        let has_distant = limit == distant::KEPT && limit < root;
        let walk = self.engine.start_with(span, self.base.up_to(limit), has_distant);
        let is_complete = limit == root || has_distant;
        let proven_bytes = if is_complete { u64::MAX } else { u64::from(limit).pow(2) / 30 };
        Ok(Course { walk, limit, proven_bytes })
    }
}

/// A walk with the decisions made for it.
#[derive(Debug)]
struct Course {
    walk: Walk,
    /// The sieving primes end here.
    limit: u32,
    /// The byte up to which all survivors of the sieve are prime.
    proven_bytes: u64,
}

/// The primes that the map has no bits for.
fn wheel_primes(range: &RangeInclusive<u64>) -> impl Iterator<Item = u64> {
    [2, 3, 5].into_iter().filter(|prime| range.contains(prime))
}

/// Clears the bits of the composites that are left in `map`, whose numbers are above 2^32.
fn remove_composites(map: &mut [u8], first_byte: u64, level: Level, stop: &AtomicBool) -> Result<(), Stopped> {
    const BYTES_BETWEEN_CHECKS: usize = 4096;
    let mut numbers = Vec::new();
    for (piece, index) in map.chunks_mut(BYTES_BETWEEN_CHECKS).zip((0u64..).step_by(BYTES_BETWEEN_CHECKS)) {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        numbers.clear();
        collect(piece, first_byte + index, |number| numbers.push(number));
        retain_primes(&mut numbers, level);
        piece.fill(0);
        for number in &numbers {
            let bit = class_of(*number).expect("a bit stands for a number coprime to 30");
            piece[(number / 30 - first_byte - index) as usize] |= 1 << bit;
        }
    }
    Ok(())
}
