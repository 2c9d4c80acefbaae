//! Crossing off multiples, one loop for each residue class of primes modulo 30.
//!
//! The eight multiples `p · (30 k + s)` of one period `k` lie at offsets that depend only on `p / 30` and `p % 30`.
//! A loop compiled for one class clears all eight without a wheel position; a period that passes the end of the map
//! writes on into slack behind it.

use crate::wheel::{CARRY, KEEP, RESIDUES, class_of};

/// A sieving prime `30 quotient + residue` and the byte at which its next period starts.
#[derive(Clone, Copy, Debug)]
struct Strider {
    quotient: u32,
    position: u32,
}

/// Sieving primes with their positions, one list for each residue class.
#[derive(Debug, Default)]
pub(crate) struct Striders {
    classes: [Vec<Strider>; 8],
}

impl Striders {
    pub(crate) fn clear(&mut self) {
        for class in &mut self.classes {
            class.clear();
        }
    }

    /// Adds `prime`, whose next period starts at byte `position` of the map of the next [`Striders::strike`].
    pub(crate) fn push(&mut self, prime: u32, position: u32) {
        let class = class_of(u64::from(prime)).expect("a sieving prime is coprime to 30");
        let quotient = prime / 30;
        self.classes[class].push(Strider { quotient, position });
    }

    /// Clears the multiples of every prime in all periods that start before `end`, and moves the origin there.
    ///
    /// `map` holds at least the largest prime's number of bytes behind `end`.
    pub(crate) fn strike(&mut self, map: &mut [u8], end: usize) {
        let [c0, c1, c2, c3, c4, c5, c6, c7] = &mut self.classes;
        strike_class::<0>(map, c0, end);
        strike_class::<1>(map, c1, end);
        strike_class::<2>(map, c2, end);
        strike_class::<3>(map, c3, end);
        strike_class::<4>(map, c4, end);
        strike_class::<5>(map, c5, end);
        strike_class::<6>(map, c6, end);
        strike_class::<7>(map, c7, end);
    }
}

#[expect(unsafe_code, reason = "bounds checks on the eight writes cost a sixth of the time up to 1e9")]
fn strike_class<const CLASS: usize>(map: &mut [u8], striders: &mut [Strider], end: usize) {
    let slack = map.len() - end;
    let start = map.as_mut_ptr();
    for strider in striders {
        let quotient = strider.quotient as usize;
        let prime = 30 * quotient + usize::from(RESIDUES[CLASS]);
        assert!(prime <= slack, "a period fits behind the end");
        let offsets: [usize; 8] = std::array::from_fn(|s| quotient * usize::from(RESIDUES[s]));
        let mut position = strider.position as usize;
        while position < end {
            for s in 0..8 {
                let byte = position + offsets[s] + usize::from(CARRY[CLASS][s]);
                // SAFETY: the offset and the carry together are below `prime`, `position` is below `end`, and `prime`
                // bytes follow `end` in the map.
                unsafe { *start.add(byte) &= KEEP[CLASS][s] };
            }
            position += prime;
        }
        strider.position = (position - end) as u32;
    }
}
