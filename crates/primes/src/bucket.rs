//! Sieving primes beyond the segment: what they will cross off is kept in one list for each segment ahead.
//!
//! A prime is looked at once a period, in the segment where the period starts. Its eight multiples go as hits of four
//! bytes into the lists of their segments, and the prime itself into that of its next period.
//!
//! Source of the idea of lists by segment: T. Oliveira e Silva, "Fast implementation of the segmented sieve of
//! Eratosthenes", 2002.

use crate::ring::Ring;
use crate::wheel::{CARRY, HITS, Hit, RESIDUES, class_of};

/// Bytes in a segment; no prime here is smaller.
pub(crate) const SEGMENT: usize = 1 << 20;

const SEGMENT_BITS: u32 = SEGMENT.trailing_zeros();

/// Primes below this have hits that fit 32 bits.
pub(crate) const LARGEST: u32 = 1 << 28;

/// A prime `30 quotient + residue` and the byte of a segment at which its next period starts.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    /// Eight times the quotient, and the class of the residue.
    prime: u32,
    position: u32,
}

/// The primes beyond the segment and their hits ahead.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    starts: Ring<Start>,
    hits: Ring<Hit>,
    /// Bytes from the start of the present segment to the end of the walk.
    ahead: u64,
}

impl Buckets {
    /// Empties the lists and makes room for primes up to `largest` and a walk of `bytes`.
    pub(crate) fn reset(&mut self, largest: u32, bytes: u64) {
        assert!(largest < LARGEST, "a hit fits 32 bits");
        let segments = largest as usize / SEGMENT + 2;
        self.starts.reset(segments);
        self.hits.reset(segments);
        self.ahead = bytes;
    }

    /// Adds a prime whose next period starts `position` bytes after the start of the present segment, or before it if
    /// negative, by less than the prime.
    pub(crate) fn push(&mut self, prime: u32, position: i64) {
        let class = class_of(u64::from(prime)).expect("a sieving prime is coprime to 30");
        let quotient = prime / 30;
        let mut next = position;
        if position < 0 {
            self.push_within(quotient, class, position);
            next += i64::from(prime);
        }
        let prime = 8 * quotient + class as u32;
        self.push_start(prime, next as u64);
    }

    fn push_start(&mut self, prime: u32, position: u64) {
        if position < self.ahead {
            let position_in_segment = position as u32 % SEGMENT as u32;
            let start = Start { prime, position: position_in_segment };
            self.starts.push(position as usize >> SEGMENT_BITS, start);
        }
    }

    /// Adds those hits of a period that lie neither before the present segment nor after the walk.
    fn push_within(&mut self, quotient: u32, class: usize, position: i64) {
        for s in 0..8 {
            let offset = quotient * u32::from(RESIDUES[s]) + u32::from(CARRY[class][s]);
            let byte = position + i64::from(offset);
            if (0..self.ahead as i64).contains(&byte) {
                let hit = 8 * byte as Hit + HITS[class][s] % 8;
                self.hits.push(byte as usize >> SEGMENT_BITS, hit);
            }
        }
    }

    /// Clears the multiples in the present segment, and makes the next one the present.
    pub(crate) fn strike(&mut self, map: &mut [u8; SEGMENT]) {
        let starts = self.starts.take();
        for block in starts.blocks() {
            for &start in block {
                self.expand(start);
            }
        }
        self.starts.recycle(starts);
        let hits = self.hits.take();
        for block in hits.blocks() {
            for &hit in block {
                map[(hit >> 3) as usize % SEGMENT] &= !(1 << (hit % 8));
            }
        }
        self.hits.recycle(hits);
        self.starts.advance();
        self.hits.advance();
        self.ahead = self.ahead.saturating_sub(SEGMENT as u64);
    }

    fn expand(&mut self, start: Start) {
        let Start { prime, position } = start;
        let (quotient, class) = (prime / 8, prime as usize % 8);
        let next = position + 30 * quotient + u32::from(RESIDUES[class]);
        if u64::from(next) > self.ahead {
            return self.push_within(quotient, class, position.into());
        }
        let pattern = &HITS[class];
        let hits: [Hit; 8] = std::array::from_fn(|s| 8 * (position + quotient * u32::from(RESIDUES[s])) + pattern[s]);
        for hit in hits {
            self.hits.push((hit >> (SEGMENT_BITS + 3)) as usize, hit);
        }
        self.push_start(prime, next.into());
    }
}
