//! Sieving primes too many to keep: they are found anew for each window of some segments.
//!
//! A window is at most as long as any of these primes, in bytes, so that a prime has at most one multiple in it for each
//! residue. A small sieve finds the primes in order, a pass over them finds their hits in the window, and each segment
//! has a list of its own. Memory is that of a window's hits, whatever the primes are.
//!
//! Source of the idea of sieving primes that are not stored: primesieve (K. Walisch).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use crate::level::Level;
use crate::sieve::{Sieve, Stopped};
use crate::wheel::Hit;
use crate::window::{MOST_SEGMENTS, SEGMENT, Window, hits_of_a_segment};

/// Primes up to here are kept.
pub(crate) const KEPT: u32 = 1 << 26;

/// Hits of a window, 4 bytes each.
const MOST_HITS: f64 = (24 << 20) as f64;

const _: () = assert!(MOST_SEGMENTS * SEGMENT <= KEPT as usize, "a window is not longer than a prime");

/// The hits of the distant primes in the present window.
#[derive(Debug, Default)]
pub(crate) struct Distant {
    window: Window,
    /// Finds the primes.
    sieve: Option<Box<Sieve>>,
    found: Vec<Hit>,
    primes: Vec<u32>,
}

/// The segments of a window for primes up to `root`.
pub(crate) fn window_segments(root: u32) -> u64 {
    ((MOST_HITS / hits_of_a_segment(KEPT, root)) as u64).clamp(1, MOST_SEGMENTS as u64)
}

impl Distant {
    /// Forgets the window.
    pub(crate) fn reset(&mut self) {
        self.window.reset();
    }

    /// Clears the multiples in a segment, whose first byte is byte `byte` of the numbers, of a walk to before `end`.
    pub(crate) fn strike(
        &mut self,
        map: &mut [u8; SEGMENT],
        byte: u64,
        end: u64,
        level: Level,
        stop: &AtomicBool,
    ) -> Result<(), Stopped> {
        if self.window.is_over(byte) {
            self.open_window(byte, end, level, stop)?;
        }
        self.window.strike(map);
        Ok(())
    }

    /// Finds the hits from `byte` on, in a window that ends before `end`.
    fn open_window(&mut self, byte: u64, end: u64, level: Level, stop: &AtomicBool) -> Result<(), Stopped> {
        let root = |end: u64| end.saturating_mul(30).isqrt() as u32;
        let left = (end - byte).div_ceil(SEGMENT as u64);
        let windows = left.div_ceil(window_segments(root(end)));
        let segments = left.div_ceil(windows);
        let len = segments * SEGMENT as u64;
        let Self { window, sieve, found, primes } = self;
        window.open(byte, segments, 1.05 * hits_of_a_segment(KEPT, root(end)));
        let sieve = sieve.get_or_insert_with(|| Box::new(Sieve::with_level(level)));
        let range = u64::from(KEPT) + 1..=u64::from(root(end.min(byte + len)));
        sieve.visit(range, stop, |map, first_byte| {
            for (piece, first_byte) in map.chunks(PIECE).zip((first_byte..).step_by(PIECE)) {
                primes.clear();
                found.clear();
                find(piece, first_byte, byte..byte + len, primes, found, level);
                window.push(found);
            }
            Ok(())
        })
    }
}

/// Bytes of the primes' map at a time, so that they and their hits stay in the second-level cache.
const PIECE: usize = 16 << 10;

/// Finds the hits in the bytes of `window` of the primes of `map`.
fn find(map: &[u8], first_byte: u64, window: Range<u64>, primes: &mut Vec<u32>, found: &mut Vec<Hit>, level: Level) {
    let len = (window.end - window.start) as u32;
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            avx512::collect(map, first_byte, primes);
            avx512::find(primes, window.start, len, found);
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            portable::collect(map, first_byte, primes);
            avx2::find(primes, window.start, len, found);
        }
        _ => {
            portable::collect(map, first_byte, primes);
            portable::find(primes, window.start, len, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wheel::RESIDUES;

    /// A map of numbers just above `start`, coprime to 30 and not all prime, which makes no difference to hits.
    #[test]
    fn every_level_finds_the_hits_of_the_definition() {
        let len = 3 * SEGMENT as u64;
        let map: Vec<u8> = (0..100u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for first in [KEPT / 30 + 1, 1 << 25, u32::MAX / 30 - 100] {
            for window in [150_119_987_579_016, u64::MAX / 30 - len] {
                let mut expected = Vec::new();
                portable::collect(&map, first.into(), &mut expected);
                let mut expected: Vec<Hit> =
                    expected.iter().flat_map(|&prime| hits_by_definition(prime, window, len)).collect();
                expected.sort_unstable();
                for level in Level::ALL.map(Level::supported) {
                    let mut found = Vec::new();
                    find(&map, first.into(), window..window + len, &mut Vec::new(), &mut found, level);
                    found.sort_unstable();
                    assert!(found == expected, "{first} {window} {level:?}");
                }
            }
        }
    }

    fn hits_by_definition(prime: u32, first_byte: u64, len: u64) -> impl Iterator<Item = Hit> {
        let p = u128::from(prime);
        let (low, high) = (30 * u128::from(first_byte), 30 * u128::from(first_byte + len));
        let multiples = (low.div_ceil(p)..).map(move |factor| factor * p).take_while(move |multiple| *multiple < high);
        multiples.filter_map(move |multiple| {
            let bit = RESIDUES.iter().position(|&residue| u128::from(residue) == multiple % 30)?;
            Some((8 * ((multiple - low) / 30)) as Hit + bit as Hit)
        })
    }
}
