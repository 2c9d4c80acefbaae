//! The hard leaves: those whose sums φ(x/(p m), π(p) − 1) need a sieve of the numbers below x/z.
//!
//! Source: J. Lagarias, V. Miller and A. Odlyzko, "Computing π(x): The Meissel–Lehmer method", 1985; the division of the
//! leaves: X. Gourdon, "Computation of π(x): improvements to the Meissel, Lehmer, Lagarias, Miller, Odlyzko, Deléglise and
//! Rivat method", 2001.
//!
//! The sieve goes segment by segment. Before prime b is crossed off, a segment holds what is left by the primes before
//! it, so φ(u, b − 1) of a leaf is what all segments before held at that stage, and what this one holds up to u. A run
//! that starts inside computes the former at its start: see [`super::start`].

use std::num::Wrapping;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::counted::{Counted, Cursor, Strider, unpack};
use super::factors::Factors;
use super::instance::Instance;
use super::start;
use super::tail::{self, Tail};
use super::tiny::FIRST_PRIMES;
use super::weight::{Total, Weight, total};
use crate::level::Level;
use crate::sieve::Stopped;

/// Numbers m that are looked at before the leaves among them are computed.
const PIECE: usize = 2048;

/// A run over consecutive segments.
#[derive(Debug)]
pub(crate) struct Hard<W> {
    counted: Counted<W>,
    level: Level,
    /// The number of the next segment.
    next: u64,
    stages: Vec<Stage>,
}

/// A prime on its way through the segments.
#[derive(Clone, Copy, Debug)]
struct Stage {
    prime: u64,
    /// x / prime.
    quotient: u64,
    /// No other factor of its leaves in the next segment is larger.
    most: u64,
    /// The sum of the earlier segments before the prime was crossed off: φ(low − 1, b − 1).
    before: Total,
    strider: Strider,
}

impl<W: Weight> Hard<W> {
    /// A run from a segment on, each of `len` bytes.
    pub(crate) fn new(
        instance: &Instance<W>,
        len: usize,
        segment: u64,
        level: Level,
        stop: &AtomicBool,
    ) -> Result<Self, Stopped> {
        let low = 30 * segment * len as u64;
        let primes = last_stage(instance, low);
        let before = if low == 0 {
            vec![Wrapping(0); primes.len()]
        } else {
            start::phi_by_prime::<W>(low - 1, &instance.primes[..FIRST_PRIMES + 1 + primes.len()], level, stop)?
        };
        let stages = primes.iter().zip(before).map(|(&prime, before)| {
            let quotient = instance.parameters.x / u64::from(prime);
            let most = quotient.checked_div(low).unwrap_or(u64::MAX);
            let strider = Strider::new(prime, segment * len as u64);
            Stage { prime: prime.into(), quotient, most, before, strider }
        });
        Ok(Self { counted: Counted::new(len), level, next: segment, stages: stages.collect() })
    }

    /// The number of the segment that [`Hard::segment`] takes next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The sum of the leaves of the next segments up to `end`.
    pub(crate) fn run(&mut self, instance: &Instance<W>, end: u64, stop: &AtomicBool) -> Result<Total, Stopped> {
        let mut value = Wrapping(0);
        while self.next < end {
            value += self.segment(instance, stop)?;
        }
        Ok(value)
    }

    fn segment(&mut self, instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
        match self.level {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call into AVX-512 code")]
            // SAFETY: this level is only taken where the CPU has it.
            Level::Avx512 => unsafe { self.segment_avx512(instance, stop) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call into AVX2 code")]
            // SAFETY: this level is only taken where the CPU has it.
            Level::Avx2 => unsafe { self.segment_avx2(instance, stop) },
            _ => self.segment_with::<tail::Portable>(instance, stop),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bitalg,avx512vl,avx512dq,popcnt,bmi1,bmi2")]
    fn segment_avx512(&mut self, instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
        self.segment_with::<tail::Avx512>(instance, stop)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,popcnt,fma")]
    fn segment_avx2(&mut self, instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
        self.segment_with::<tail::Portable>(instance, stop)
    }

    #[inline(always)]
    fn segment_with<T: Tail>(&mut self, instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
        let len = self.counted.len() as u64;
        let low = 30 * len * self.next;
        let high = low + 30 * len;
        let root_of_z = instance.parameters.root_of_z;
        let mut value = Wrapping(0);
        self.counted.fill::<T>(len * self.next);
        for index in 0..self.stages.len() {
            // A segment near the first leaves takes up to a second, and a prime of it some milliseconds.
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let stage = self.stages[index];
            if stage.most <= stage.prime {
                // The other factor is larger than the prime, here and from here on.
                self.stages.truncate(index);
                break;
            }
            let least = stage.quotient / high;
            self.stages[index].most = least;
            let leaves = if stage.prime <= root_of_z {
                self.composite::<T>(instance, &stage, least, low)
            } else {
                self.pairs::<T>(instance, &stage, least, low)
            };
            value += total(W::of(stage.prime)) * leaves;
            let stage = &mut self.stages[index];
            stage.before += total(unpack::<W>(self.counted.total(), low));
            self.counted.strike(&mut stage.strider);
        }
        self.next += 1;
        Ok(value)
    }

    /// The leaves of a prime and numbers m above `least` whose prime factors are larger: −μ(m) f(m) φ.
    #[inline(always)]
    fn composite<T: Tail>(&mut self, instance: &Instance<W>, stage: &Stage, least: u64, low: u64) -> Total {
        let z = instance.parameters.z;
        let first = Factors::index_above(least.max(z / stage.prime).min(z));
        let end = Factors::index_above(stage.most.min(z));
        let codes = instance.factors.codes();
        let (mut cursor, mut value, mut factors) = (Cursor::default(), Wrapping(0), Wrapping(0));
        let mut leaves = [0; PIECE];
        let mut end = end;
        while first < end {
            let start = first.max(end.saturating_sub(PIECE));
            for index in leaves_of(codes, stage.prime, start..end, &mut leaves).iter().map(|&index| index as usize) {
                let m = Factors::number(index);
                // All ones if μ(m) = 1, whose term is negative.
                let sign = Wrapping(u128::from(codes[index] & 1).wrapping_sub(1));
                let up_to = self.counted.up_to::<T>(stage.quotient / m - low, &mut cursor);
                let f = total(W::of(m));
                value += ((f * total(unpack::<W>(up_to, low))) ^ sign) - sign;
                factors += (f ^ sign) - sign;
            }
            end = start;
        }
        value + factors * stage.before
    }

    /// The leaves of a prime p and larger primes q above `least` with x/(p q) ≥ p²: f(q) φ.
    #[inline(always)]
    fn pairs<T: Tail>(&mut self, instance: &Instance<W>, stage: &Stage, least: u64, low: u64) -> Total {
        let hard = stage.quotient / (stage.prime * stage.prime);
        let most = stage.most.min(hard).min(instance.parameters.y);
        let (mut cursor, mut value, mut factors) = (Cursor::default(), Wrapping(0), Wrapping(0));
        for &q in instance.primes_between(least.max(stage.prime), most).iter().rev() {
            let up_to = self.counted.up_to::<T>(stage.quotient / u64::from(q) - low, &mut cursor);
            let f = total(W::of(q.into()));
            value += f * total(unpack::<W>(up_to, low));
            factors += f;
        }
        value + factors * stage.before
    }
}

/// The indices in `range` of numbers whose prime factors are all larger than `prime`, the largest first.
#[inline(always)]
fn leaves_of<'a>(codes: &[u16], prime: u64, range: Range<usize>, leaves: &'a mut [u32; PIECE]) -> &'a [u32] {
    let mut found = 0;
    for (index, &code) in range.clone().zip(&codes[range]).rev() {
        leaves[found % PIECE] = index as u32;
        found += usize::from(u64::from(code) > prime);
    }
    &leaves[..found]
}

/// The primes whose leaves, or larger ones', are at `low` or above, or which larger ones' need crossed off.
fn last_stage<W: Weight>(instance: &Instance<W>, low: u64) -> &[u32] {
    let parameters = &instance.parameters;
    let last = parameters.fourth_root.max(parameters.root_of_z);
    let primes = &instance.primes[FIRST_PRIMES + 1..];
    let primes = &primes[..primes.partition_point(|&prime| u64::from(prime) <= last)];
    let has_leaves = |&prime: &u32| low == 0 || parameters.x / u64::from(prime) / low > u64::from(prime);
    &primes[..primes.partition_point(has_leaves)]
}
