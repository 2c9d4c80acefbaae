//! The segmented sieve: walks over a span of the numbers and hands out its map, one finished segment at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::bucket::{self, Buckets};
use crate::level::Level;
use crate::lone;
use crate::presieve;
use crate::sieve::Stopped;
use crate::strike::Striders;
use crate::wheel::{bits_from, bits_up_to};

/// Primes up to here sieve block by block, so that their writes stay in the first-level cache.
const BLOCK_PRIME: u32 = 16000;
const BLOCK: usize = 32 << 10;

/// The bytes of a segment, and the largest prime whose period fits into the slack; larger ones go into buckets.
struct Layout {
    segment: usize,
    stride: u32,
}

/// For primes up to the square root of some 2e9: the segment stays in the second-level cache beside the tables.
const SMALL: Layout = Layout { segment: 96 << 10, stride: 48_000 };

const LARGE: Layout = Layout { segment: bucket::SEGMENT, stride: bucket::SEGMENT as u32 };

const _: () = assert!(lone::LONGEST == LARGE.segment);

/// Consecutive numbers as the bytes of the map that hold them.
#[derive(Debug)]
pub(crate) struct Span {
    first_byte: u64,
    last_byte: u64,
    first_bits: u8,
    last_bits: u8,
}

impl Span {
    /// The numbers `first` to `last`, both included; `first` is not above `last`.
    pub(crate) fn new(first: u64, last: u64) -> Self {
        Self {
            first_byte: first / 30,
            last_byte: last / 30,
            first_bits: bits_from((first % 30) as u8),
            last_bits: bits_up_to((last % 30) as u8),
        }
    }

    /// Clears the numbers outside the span in a map whose first byte is `first_byte`.
    fn trim(&self, map: &mut [u8], first_byte: u64) {
        if first_byte == self.first_byte {
            map[0] &= self.first_bits;
        }
        let last = map.len() - 1;
        if first_byte + last as u64 == self.last_byte {
            map[last] &= self.last_bits;
        }
    }
}

/// The map and the sieving primes on their way through it, kept from run to run for their memory.
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
    buckets: Buckets,
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
            buckets: Buckets::default(),
            hits: Vec::new(),
        }
    }

    /// Sieves `span` with the ascending primes of `sieving` and those of the pre-sieve, and calls `visit` with each
    /// segment of the map and the number of its first byte.
    ///
    /// A number stays set if it is 1 < n without a divisor among these primes, or one of them.
    pub(crate) fn run(
        &mut self,
        span: &Span,
        sieving: &[u32],
        stop: &AtomicBool,
        mut visit: impl FnMut(&mut [u8], u64) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let mut walk = self.start(span, sieving);
        while walk.byte <= span.last_byte {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let left = span.last_byte - walk.byte + 1;
            let len = left.min(walk.segment as u64) as usize;
            self.prepare(&walk, len);
            self.activate(&mut walk, len, stop)?;
            self.strike(&walk, len, stop)?;
            let map = &mut self.map[walk.pad..walk.pad + len];
            span.trim(map, walk.byte);
            visit(map, walk.byte)?;
            walk.byte += len as u64;
            walk.is_first = false;
        }
        Ok(())
    }

    fn start<'a>(&mut self, span: &Span, sieving: &'a [u32]) -> Walk<'a> {
        let bytes = span.last_byte - span.first_byte + 1;
        let limit = lone::least_prime(bytes, self.level);
        let (waiting, lone) = sieving.split_at(sieving.partition_point(|&prime| prime <= limit));
        let largest = waiting.last().copied().unwrap_or(0);
        let is_small = largest <= SMALL.stride && lone.is_empty();
        let Layout { segment, stride } = if is_small { SMALL } else { LARGE };
        let pad = largest.clamp(BLOCK_PRIME, stride) as usize;
        self.map.resize(self.map.len().max(pad + segment + pad), 0);
        self.near.clear();
        self.far.clear();
        let has_buckets = largest > stride;
        if has_buckets {
            self.buckets.reset(largest, bytes);
        }
        Walk { waiting, lone, byte: span.first_byte, segment, stride, pad, is_first: true, has_buckets }
    }

    /// Pre-sieves the segment, folds the slack of the one before into it and empties the slack.
    fn prepare(&mut self, walk: &Walk, len: usize) {
        let (map, slack) = self.map[walk.pad..].split_at_mut(walk.segment);
        presieve::fill(&mut map[..len], walk.byte, self.level);
        if !walk.is_first {
            for (byte, carried) in map[..len].iter_mut().zip(&slack[..walk.pad]) {
                *byte &= carried;
            }
        }
        self.map[walk.pad + len..][..walk.pad].fill(0xff);
    }

    /// Gives a position to each prime whose square is about to enter.
    fn activate(&mut self, walk: &mut Walk, len: usize, stop: &AtomicBool) -> Result<(), Stopped> {
        const PRIMES_BETWEEN_CHECKS: usize = 1 << 16;
        let end = walk.byte + len as u64;
        let entering = |&prime: &u32| u64::from(prime) * u64::from(prime / 30) < end;
        let (ready, waiting) = walk.waiting.split_at(walk.waiting.partition_point(entering));
        walk.waiting = waiting;
        for primes in ready.chunks(PRIMES_BETWEEN_CHECKS) {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            for &prime in primes {
                self.place(prime, walk);
            }
        }
        Ok(())
    }

    fn place(&mut self, prime: u32, walk: &Walk) {
        let p = u64::from(prime);
        let start = p * (walk.byte / p).max(u64::from(prime / 30));
        if prime > walk.stride {
            let position = start as i64 - walk.byte as i64;
            return self.buckets.push(prime, position);
        }
        let position = (start + walk.front() as u64 - walk.byte) as u32;
        if prime <= BLOCK_PRIME {
            self.near.push(prime, position);
        } else {
            self.far.push(prime, position);
        }
    }

    fn strike(&mut self, walk: &Walk, len: usize, stop: &AtomicBool) -> Result<(), Stopped> {
        let mut origin = walk.pad - walk.front();
        let end = walk.pad + len;
        self.far.strike(&mut self.map[origin..], end - origin);
        if walk.has_buckets {
            let (segment, _) = self.map[walk.pad..].split_first_chunk_mut().expect("a segment is in the map");
            self.buckets.strike(segment);
        }
        let mut block_end = walk.pad;
        while block_end < end {
            block_end = (block_end + BLOCK).min(end);
            self.near.strike(&mut self.map[origin..], block_end - origin);
            origin = block_end;
        }
        if walk.lone.is_empty() {
            return Ok(());
        }
        let map = &mut self.map[walk.pad..end];
        lone::strike(map, walk.byte, walk.lone, &mut self.hits, self.level, stop)
    }
}

/// Where a run stands.
struct Walk<'a> {
    /// The sieving primes whose squares are still ahead.
    waiting: &'a [u32],
    /// The sieving primes beyond, which are placed anew in each segment.
    lone: &'a [u32],
    /// The number of the segment's first byte.
    byte: u64,
    segment: usize,
    stride: u32,
    pad: usize,
    is_first: bool,
    has_buckets: bool,
}

impl Walk<'_> {
    /// How far before the segment positions begin: only first periods start before it.
    fn front(&self) -> usize {
        if self.is_first { self.pad } else { 0 }
    }
}
