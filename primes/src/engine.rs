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
const BLOCK_PRIME: u32 = 14_000;
const BLOCK: usize = 24 << 10;

/// The segment's bytes by the largest sieving prime. Up to `stride` a prime's period fits into the slack; beyond, it
/// goes into buckets.
struct Layout {
    largest: u32,
    segment: usize,
    stride: u32,
}

const LAYOUTS: [Layout; 3] = [
    Layout { largest: 48_000, segment: 96 << 10, stride: 48_000 },
    Layout { largest: 1 << 20, segment: 1 << 20, stride: 1 << 20 },
    Layout { largest: bucket::LARGEST, segment: bucket::SEGMENT, stride: bucket::SEGMENT as u32 },
];

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
            let len = walk.segment.min(usize::try_from(span.last_byte - walk.byte + 1).unwrap_or(usize::MAX));
            self.prepare(&walk, len);
            self.activate(&mut walk, len);
            self.strike(&walk, len, stop)?;
            let map = &mut self.map[walk.pad..walk.pad + len];
            if walk.byte == span.first_byte {
                map[0] &= span.first_bits;
            }
            if walk.byte + len as u64 > span.last_byte {
                map[len - 1] &= span.last_bits;
            }
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
        let layout = LAYOUTS
            .iter()
            .find(|layout| largest <= layout.largest && (lone.is_empty() || layout.segment == lone::LONGEST))
            .expect("the last layout holds every sieving prime");
        let (segment, stride) = (layout.segment, layout.stride);
        let pad = largest.clamp(BLOCK_PRIME, stride) as usize;
        self.map.resize(self.map.len().max(pad + segment + pad), 0);
        self.near.clear();
        self.far.clear();
        if largest > stride {
            self.buckets.reset(largest, bytes);
        }
        Walk {
            waiting,
            lone,
            byte: span.first_byte,
            segment,
            stride,
            pad,
            is_first: true,
            has_buckets: largest > stride,
        }
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
    fn activate(&mut self, walk: &mut Walk, len: usize) {
        let end = walk.byte + len as u64;
        while let Some((&prime, waiting)) = walk.waiting.split_first() {
            let (p, quotient) = (u64::from(prime), u64::from(prime / 30));
            if p * quotient >= end {
                break;
            }
            let start = p * (walk.byte / p).max(quotient);
            if prime > walk.stride {
                self.buckets.push(prime, start as i64 - walk.byte as i64);
            } else {
                let position = start + walk.front() as u64 - walk.byte;
                let striders = if prime <= BLOCK_PRIME { &mut self.near } else { &mut self.far };
                striders.push(prime, position as u32);
            }
            walk.waiting = waiting;
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
    /// The sieving primes that need no position, for there is one segment only.
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
