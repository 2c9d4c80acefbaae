//! Sieving primes beyond the segment: their hits in the next few segments, the window, are found at once, and each
//! segment has a list of them.
//!
//! Nothing is kept from window to window but the primes. Placing a prime anew costs about a nanosecond in vectors, less
//! than the many segments' worth of reading and writing a position.
//!
//! Source of the idea of lists by segment: T. Oliveira e Silva, "Fast implementation of the segmented sieve of
//! Eratosthenes", 2002.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::level::Level;
use crate::lone;
use crate::sieve::Stopped;
use crate::wheel::Hit;

/// Bytes in a segment; no prime here is smaller.
pub(crate) const SEGMENT: usize = 1 << 20;

/// A hit counts bits from the start of the window; those below this are the place in the segment.
const SEGMENT_BITS: u32 = SEGMENT.trailing_zeros() + 3;

/// The hits in the segments of a window.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// A list for each segment from the present one on, the last segment first.
    ahead: Vec<Vec<Hit>>,
    /// Empty lists, kept for their memory.
    spare: Vec<Vec<Hit>>,
    /// The number of the first byte behind the window.
    end: u64,
}

/// The most segments of a window.
pub(crate) const MOST_SEGMENTS: usize = 32;

impl Window {
    /// Forgets the hits of a walk that may not have come to the end of the window.
    pub(crate) fn reset(&mut self) {
        while !self.ahead.is_empty() {
            self.advance();
        }
        self.end = 0;
    }

    /// Whether the segment that starts with a byte is behind the window.
    pub(crate) fn is_over(&self, byte: u64) -> bool {
        byte >= self.end
    }

    /// Starts a window of so many segments with room for so many hits in each.
    pub(crate) fn open(&mut self, byte: u64, segments: u64, hits: f64) {
        assert!(segments as usize <= MOST_SEGMENTS, "a window is short");
        self.reset();
        for _ in 0..segments {
            let mut list = self.spare.pop().unwrap_or_default();
            list.reserve_exact(hits as usize);
            self.ahead.push(list);
        }
        self.end = byte + segments * SEGMENT as u64;
    }

    /// Adds hits, which count from the start of the window and are in it, before any segment is struck.
    #[expect(unsafe_code, reason = "a third of the time of a push is that of bounds checks and of lengths in memory")]
    pub(crate) fn push(&mut self, hits: &[Hit]) {
        let mut ends = [std::ptr::null_mut(); MOST_SEGMENTS];
        let segments = self.ahead.len();
        for (end, list) in ends.iter_mut().zip(self.ahead.iter_mut().rev()) {
            list.reserve(hits.len());
            // SAFETY: the end of a vector is inside its allocation or just behind it.
            *end = unsafe { list.as_mut_ptr().add(list.len()) };
        }
        for &hit in hits {
            let segment = (hit >> SEGMENT_BITS) as usize;
            assert!(segment < segments, "a hit is in the window");
            let end = &mut ends[segment % MOST_SEGMENTS];
            // SAFETY: each list of the window has room for all the hits.
            unsafe {
                end.write(hit);
                *end = end.add(1);
            }
        }
        for (end, list) in ends.iter().zip(self.ahead.iter_mut().rev()) {
            // SAFETY: the hits up to the new end were written, in the same allocation.
            unsafe {
                let len = end.offset_from(list.as_ptr()) as usize;
                list.set_len(len);
            }
        }
    }

    /// Clears the multiples in the present segment, and makes the next one the present.
    pub(crate) fn strike(&mut self, map: &mut [u8; SEGMENT]) {
        for &hit in self.ahead.last().into_iter().flatten() {
            map[(hit >> 3) as usize % SEGMENT] &= !(1 << (hit % 8));
        }
        self.advance();
    }

    fn advance(&mut self) {
        if let Some(mut list) = self.ahead.pop() {
            list.clear();
            self.spare.push(list);
        }
    }
}

/// The hits in a segment of the primes above `from` and up to `to`, about.
pub(crate) fn hits_of_a_segment(from: u32, to: u32) -> f64 {
    8.0 * SEGMENT as f64 * (f64::from(to).ln() / f64::from(from).ln()).ln()
}

/// The primes beyond the segment that are kept.
#[derive(Debug, Default)]
pub(crate) struct Windowed {
    window: Window,
    found: Vec<Hit>,
}

/// Segments of a window: of 8 MiB, of which the hits take 60 to 90 MB.
pub(crate) const SEGMENTS: u64 = 8;

impl Windowed {
    pub(crate) fn reset(&mut self) {
        self.window.reset();
    }

    /// Clears the multiples of `primes` in a segment, whose first byte is byte `byte` of the numbers, of a walk to before
    /// byte `end`.
    pub(crate) fn strike(
        &mut self,
        map: &mut [u8; SEGMENT],
        byte: u64,
        end: u64,
        primes: &[u32],
        level: Level,
        stop: &AtomicBool,
    ) -> Result<(), Stopped> {
        if self.window.is_over(byte) {
            let left = (end - byte).div_ceil(SEGMENT as u64);
            let segments = left.div_ceil(left.div_ceil(SEGMENTS));
            let (first, last) = (primes.first().copied().unwrap_or(2), primes.last().copied().unwrap_or(2));
            self.window.open(byte, segments, 1.05 * hits_of_a_segment(first, last));
            let len = (segments as usize * SEGMENT).min((end - byte) as usize);
            for primes in lone::reached(primes, byte + len as u64).chunks(PRIMES_BETWEEN_CHECKS) {
                if stop.load(Ordering::Relaxed) {
                    return Err(Stopped);
                }
                self.found.clear();
                lone::find(primes, byte, len, &mut self.found, level);
                self.window.push(&self.found);
            }
        }
        self.window.strike(map);
        Ok(())
    }
}

/// Bound by which the primes and their hits stay in the first caches.
const PRIMES_BETWEEN_CHECKS: usize = 1024;
