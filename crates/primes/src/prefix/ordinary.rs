//! The ordinary leaves: numbers n up to z, for which φ(x/n, 7) has a closed form.

use std::num::Wrapping;
use std::sync::atomic::{AtomicBool, Ordering};

use super::factors::Factors;
use super::instance::Instance;
use super::tiny;
use super::weight::{Total, Weight, total};
use crate::sieve::Stopped;

/// Codes above this are those of numbers that the first seven primes do not divide.
const LAST_OF_FIRST_PRIMES: u16 = 17;

/// The sum of μ(n) f(n) φ(x/n, 7) over the n up to z that the first seven primes do not divide.
pub(crate) fn ordinary<W: Weight>(instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
    const CODES_BETWEEN_CHECKS: usize = 1 << 16;
    let x = instance.parameters.x;
    // The number 1, whose code is not that of a leaf.
    let mut value = tiny::phi::<W>(x);
    let indices = 1..=Factors::index_up_to(instance.parameters.z);
    let codes = &instance.factors.codes()[indices.clone()];
    for (piece, first) in codes.chunks(CODES_BETWEEN_CHECKS).zip(indices.step_by(CODES_BETWEEN_CHECKS)) {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        for (&code, index) in piece.iter().zip(first..).filter(|(code, _)| **code > LAST_OF_FIRST_PRIMES) {
            let n = Factors::number(index);
            let term = total(W::of(n)) * tiny::phi::<W>(x / n);
            value += if code % 2 == 1 { Wrapping(0) - term } else { term };
        }
    }
    Ok(value)
}
