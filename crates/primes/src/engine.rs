//! The segmented sieve: walks over the numbers segment by segment and hands out their map.
//!
//! A walk may be interrupted at any number: what a segment holds beyond stays for the run that goes on from there.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::distant::Distant;
use crate::level::Level;
use crate::lone;
use crate::presieve;
use crate::sieve::Stopped;
use crate::strike::Striders;
use crate::wheel::{bits_from, bits_up_to};
use crate::window::{self, Windowed};

/// Primes up to here sieve block by block, so that their writes stay in the first-level cache.
const BLOCK_PRIME: u32 = 16000;
const BLOCK: usize = 32 << 10;

/// The bytes of a segment, and the largest prime whose period fits into the slack; larger ones have windows.
struct Layout {
    segment: usize,
    stride: u32,
}

/// For primes up to the square root of some 2e9: the segment stays in the second-level cache beside the tables.
const SMALL: Layout = Layout { segment: 96 << 10, stride: 48_000 };

const LARGE: Layout = Layout { segment: window::SEGMENT, stride: window::SEGMENT as u32 };

const _: () = assert!(lone::LONGEST == LARGE.segment);

/// The numbers of one run, and how far later runs are expected to go on behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first: u64,
    /// Included, and not below `first`.
    pub(crate) last: u64,
    /// Not below `last`.
    pub(crate) horizon: u64,
}

impl Span {
    /// The numbers `first` to `last`, both included, with nothing behind them.
    pub(crate) fn new(first: u64, last: u64) -> Self {
        Self { first, last, horizon: last }
    }

    fn first_byte(&self) -> u64 {
        self.first / 30
    }

    fn last_byte(&self) -> u64 {
        self.last / 30
    }

    /// Clears the numbers outside the span in a map whose first byte is `first_byte`.
    fn trim(&self, map: &mut [u8], first_byte: u64) {
        if first_byte == self.first_byte() {
            map[0] &= bits_from((self.first % 30) as u8);
        }
        let last = map.len() - 1;
        if first_byte + last as u64 == self.last_byte() {
            map[last] &= bits_up_to((self.last % 30) as u8);
        }
    }
}

/// The map and the sieving primes on their way through it, kept from walk to walk for their memory.
///
/// The map is a segment between a front pad, which takes what the first periods write before the span, and a slack,
/// which takes what the last periods of a segment write into the next one. Pad and slack are as long as the largest
/// sieving prime.
#[derive(Debug)]
pub(crate) struct Engine {
    level: Level,
    map: Vec<u8>,
    near: Striders,
    far: Striders,
    windowed: Windowed,
    distant: Distant,
    hits: Vec<u32>,
}

impl Engine {
    /// An engine with the instructions of `level`, which the CPU has.
    pub(crate) fn new(level: Level) -> Self {
        Self {
            level,
            map: Vec::new(),
            near: Striders::default(),
            far: Striders::default(),
            windowed: Windowed::default(),
            distant: Distant::default(),
            hits: Vec::new(),
        }
    }

    /// Starts a walk from the first number of `span` to its horizon with the ascending primes of `sieving`.
    ///
    /// Ends the walk before, for an engine has the memory of one.
    pub(crate) fn start(&mut self, span: &Span, sieving: &[u32]) -> Walk {
        self.start_with(span, sieving, false)
    }

    /// Like [`Engine::start`], where all primes behind those of `sieving` sieve too if the walk `has_distant` ones.
    pub(crate) fn start_with(&mut self, span: &Span, sieving: &[u32], has_distant: bool) -> Walk {
        let bytes = span.horizon / 30 - span.first_byte() + 1;
        let limit = lone::least_prime(bytes, self.level);
        let lone = sieving.partition_point(|&prime| prime <= limit);
        let largest = sieving[..lone].last().copied().unwrap_or(0);
        let is_small = largest <= SMALL.stride && lone == sieving.len();
        let Layout { segment, stride } = if is_small { SMALL } else { LARGE };
        let pad = largest.clamp(BLOCK_PRIME, stride) as usize;
        self.map.resize(self.map.len().max(pad + segment + pad), 0);
        self.near.clear();
        self.far.clear();
        if has_distant {
            self.distant.reset();
        }
        self.windowed.reset();
        let windowed = sieving.partition_point(|&prime| prime <= stride.min(largest));
        Walk {
            next: Some(span.first),
            last: span.horizon,
            waiting: 0..windowed,
            windowed: windowed..lone,
            lone: lone..sieving.len(),
            byte: span.first_byte(),
            len: 0,
            segment,
            pad,
            is_first: true,
            has_distant,
        }
    }

    /// Goes on with the last walk started through `span`, which [follows](Walk::is_followed_by) what it has visited.
    ///
    /// Calls `visit` with the map, piece by piece, and the number of each piece's first byte. A number stays set if it
    /// is 1 < n without a divisor among the primes of `sieving`, those of the start, and of the pre-sieve, or one of
    /// them. A walk that was stopped cannot go on.
    pub(crate) fn run(
        &mut self,
        walk: &mut Walk,
        span: &Span,
        sieving: &[u32],
        stop: &AtomicBool,
        mut visit: impl FnMut(&mut [u8], u64) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let mut byte = span.first_byte();
        while byte <= span.last_byte() {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            if byte == walk.end() {
                self.sieve(walk, span.horizon, sieving, stop)?;
            }
            let end = walk.end().min(span.last_byte() + 1);
            let map = &mut self.map[walk.index(byte)..walk.index(end)];
            let last = map.len() - 1;
            let untrimmed = map[last];
            span.trim(map, byte);
            visit(map, byte)?;
            // The next span starts within this byte, unless this one ends with it.
            map[last] = untrimmed;
            byte = end;
        }
        walk.next = span.last.checked_add(1);
        Ok(())
    }

    /// Sieves the next segment, as far as the walk or the horizon allows.
    fn sieve(&mut self, walk: &mut Walk, horizon: u64, sieving: &[u32], stop: &AtomicBool) -> Result<(), Stopped> {
        walk.advance(horizon);
        self.prepare(walk);
        self.activate(walk, sieving, stop)?;
        self.strike(walk);
        self.strike_by_windows(walk, sieving, stop)?;
        let map = &mut self.map[walk.pad..walk.pad + walk.len];
        lone::strike(map, walk.byte, &sieving[walk.lone.clone()], &mut self.hits, self.level, stop)
    }

    /// Pre-sieves the segment, folds the slack of the one before into it and empties the slack.
    fn prepare(&mut self, walk: &Walk) {
        let (map, slack) = self.map[walk.pad..].split_at_mut(walk.segment);
        let map = &mut map[..walk.len];
        presieve::fill(map, walk.byte, self.level);
        if !walk.is_first {
            for (byte, carried) in map.iter_mut().zip(&slack[..walk.pad]) {
                *byte &= carried;
            }
        }
        self.map[walk.pad + walk.len..][..walk.pad].fill(0xff);
    }

    /// Gives a position to each prime whose square is about to enter.
    fn activate(&mut self, walk: &mut Walk, sieving: &[u32], stop: &AtomicBool) -> Result<(), Stopped> {
        const PRIMES_BETWEEN_CHECKS: usize = 1 << 16;
        let waiting = &sieving[walk.waiting.clone()];
        let is_entering = |&prime: &u32| u64::from(prime) * u64::from(prime / 30) < walk.end();
        let entering = &waiting[..waiting.partition_point(is_entering)];
        for primes in entering.chunks(PRIMES_BETWEEN_CHECKS) {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            for &prime in primes {
                self.place(prime, walk);
            }
        }
        walk.waiting.start += entering.len();
        Ok(())
    }

    fn place(&mut self, prime: u32, walk: &Walk) {
        let p = u64::from(prime);
        let start = p * (walk.byte / p).max(u64::from(prime / 30));
        let position = (start + walk.front() as u64 - walk.byte) as u32;
        if prime <= BLOCK_PRIME {
            self.near.push(prime, position);
        } else {
            self.far.push(prime, position);
        }
    }

    /// Clears the multiples of the primes beyond the segment.
    fn strike_by_windows(&mut self, walk: &Walk, sieving: &[u32], stop: &AtomicBool) -> Result<(), Stopped> {
        let Some(segment) = self.map[walk.pad..].first_chunk_mut() else { return Ok(()) };
        let (byte, end, level) = (walk.byte, walk.last / 30 + 1, self.level);
        if !walk.windowed.is_empty() {
            self.windowed.strike(segment, byte, end, &sieving[walk.windowed.clone()], level, stop)?;
        }
        if walk.has_distant {
            self.distant.strike(segment, byte, end, level, stop)?;
        }
        Ok(())
    }

    fn strike(&mut self, walk: &Walk) {
        let mut origin = walk.pad - walk.front();
        let end = walk.pad + walk.len;
        self.far.strike(&mut self.map[origin..], end - origin);
        let mut block_end = walk.pad;
        while block_end < end {
            block_end = (block_end + BLOCK).min(end);
            self.near.strike(&mut self.map[origin..], block_end - origin);
            origin = block_end;
        }
    }
}

/// Position of a walk: a sieved segment, and the part of it that has been visited.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The first number that has not been visited, none behind the last `u64`.
    next: Option<u64>,
    /// The last number that can be visited.
    last: u64,
    /// The sieving primes whose squares are still ahead.
    waiting: Range<usize>,
    /// The sieving primes beyond the segment, which are placed anew in each window.
    windowed: Range<usize>,
    /// The sieving primes behind these, which are placed anew in each segment.
    lone: Range<usize>,
    /// The number of the segment's first byte.
    byte: u64,
    /// The bytes of the segment that are sieved, none before the first one.
    len: usize,
    segment: usize,
    pad: usize,
    is_first: bool,
    has_distant: bool,
}

impl Walk {
    /// Whether a run through `span` goes on where the last one ended, and ends where this walk can lead.
    pub(crate) fn is_followed_by(&self, span: &Span) -> bool {
        self.next == Some(span.first) && span.last <= self.last
    }

    /// Makes the next segment the present one, cut at the horizon.
    fn advance(&mut self, horizon: u64) {
        self.is_first = self.len == 0;
        self.byte = self.end();
        let last = self.last.min(horizon);
        let left = last / 30 - self.byte + 1;
        self.len = left.min(self.segment as u64) as usize;
        if self.len < self.segment {
            // Slack and lists stand a whole segment further, so nothing can follow a part of one.
            self.last = last;
        }
    }

    /// The number of the first byte behind those that are sieved.
    fn end(&self) -> u64 {
        self.byte + self.len as u64
    }

    /// The place in the map of byte `byte` of the numbers.
    fn index(&self, byte: u64) -> usize {
        self.pad + (byte - self.byte) as usize
    }

    /// Bytes before the segment in which positions may begin; only first periods start there.
    fn front(&self) -> usize {
        if self.is_first { self.pad } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BasePrimes;

    struct Steps {
        engine: Engine,
        base: BasePrimes,
        walk: Walk,
    }

    impl Steps {
        fn new(span: Span) -> Self {
            let (mut engine, base) = (Engine::new(Level::best()), BasePrimes::new());
            let walk = engine.start(&span, base.up_to(u32::MAX));
            Self { engine, base, walk }
        }

        fn step(&mut self, span: Span) {
            assert!(self.walk.is_followed_by(&span), "{span:?} follows {:?}", self.walk);
            let stop = AtomicBool::new(false);
            let result = self.engine.run(&mut self.walk, &span, self.base.up_to(u32::MAX), &stop, |_, _| Ok(()));
            assert_eq!(result, Ok(()));
        }
    }

    const START: u64 = 1_000_000_000;
    const SEGMENT: u64 = 30 * (1 << 20);

    #[test]
    fn what_a_segment_holds_beyond_a_step_is_not_sieved_again() {
        let horizon = START + 4 * SEGMENT;
        let mut steps = Steps::new(Span { first: START, last: START + 1, horizon });
        steps.step(Span { first: START, last: START + 100, horizon });
        let sieved = steps.walk.end();
        steps.step(Span { first: START + 101, last: START + 1_000_000, horizon });
        assert_eq!(steps.walk.end(), sieved);
        assert_eq!(sieved - START / 30, steps.walk.segment as u64);
    }

    #[test]
    fn walk_leads_no_further_than_the_horizon_that_cut_a_segment() {
        let (near, far) = (START + 5000, START + 4 * SEGMENT);
        let mut steps = Steps::new(Span { first: START, last: START + 1, horizon: far });
        steps.step(Span { first: START, last: START + 1000, horizon: near });
        assert_eq!(steps.walk.end(), near / 30 + 1);
        assert!(steps.walk.is_followed_by(&Span { first: START + 1001, last: near, horizon: far }));
        assert!(!steps.walk.is_followed_by(&Span { first: START + 1001, last: near + 1, horizon: far }));
        assert!(!steps.walk.is_followed_by(&Span { first: START + 1002, last: near, horizon: far }));
    }
}
