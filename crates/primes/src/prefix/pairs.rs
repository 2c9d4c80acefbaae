//! The numbers up to x with two prime factors above y, by a sieve from √x to x/y.
//!
//! Source: E. Meissel, "Über die Bestimmung der Primzahlenmenge innerhalb gegebener Grenzen", 1870, as the term P2 of
//! Lagarias, Miller and Odlyzko.

use std::num::Wrapping;
use std::sync::atomic::AtomicBool;

use super::parameters::Parameters;
use super::tiny::bits_up_to_number;
use super::weight::{Total, Weight, total};
use crate::base::collect;
use crate::level::Level;
use crate::sieve::{Sieve, Stopped};
use crate::tally::{Count, Sum, Tally};

/// Numbers p among which the primes are found at a time.
const STEP: u64 = 1 << 22;

/// The sieves of a run, which go in opposite directions.
#[derive(Debug)]
pub(crate) struct Pairs<W> {
    sieve: Sieve,
    small: Sieve,
    /// The next number, and the total of the primes before it.
    next: u64,
    before: Total,
    /// The primes p whose x/p come next, ascending, and what they are above.
    primes: Vec<u32>,
    above: u64,
    weight: std::marker::PhantomData<W>,
}

impl<W: Weight> Pairs<W> {
    /// A run from `next` on, which is above 5; the primes before it come to `before`.
    pub(crate) fn new(parameters: &Parameters, next: u64, before: Total, level: Level) -> Self {
        let above = parameters.root.min(parameters.x / next);
        let [sieve, small] = [Sieve::with_level(level), Sieve::with_level(level)];
        Self { sieve, small, next, before, primes: Vec::new(), above, weight: std::marker::PhantomData }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The sum over the primes p with x/p from the next number to before `end` of f(p) times the sum of the primes up to
    /// x/p, and of f(p) (f(p) − 1) / 2. The run is at `end` then.
    pub(crate) fn run(&mut self, parameters: &Parameters, end: u64, stop: &AtomicBool) -> Result<Total, Stopped> {
        let Self { sieve, small, before, primes, above, .. } = self;
        let level = sieve.level();
        let mut value = Wrapping(0);
        let last = parameters.y.max(parameters.x / end);
        sieve.visit(self.next..=end - 1, stop, |map, first_byte| {
            let mut passed = 0;
            let end = 30 * (first_byte + map.len() as u64);
            loop {
                if primes.is_empty() && *above > last {
                    let below = above.saturating_sub(STEP).max(last);
                    small.visit(below + 1..=*above, stop, |map, first_byte| {
                        collect(map, first_byte, |prime| primes.push(prime as u32));
                        Ok(())
                    })?;
                    *above = below;
                    continue;
                }
                let Some(&prime) = primes.last() else { break };
                let up_to = parameters.x / u64::from(prime);
                if up_to >= end {
                    break;
                }
                primes.pop();
                let byte = (up_to / 30 - first_byte) as usize;
                *before += sum_of::<W>(&map[passed..byte], first_byte + passed as u64, level);
                passed = byte;
                let bits = map[byte] & bits_up_to_number(up_to % 30);
                let within = sum_of::<W>(&[bits], first_byte + byte as u64, level);
                value += total(W::of(prime.into())) * (*before + within) + W::pairs(prime.into());
            }
            *before += sum_of::<W>(&map[passed..], first_byte + passed as u64, level);
            Ok(())
        })?;
        self.next = end;
        Ok(value)
    }
}

fn sum_of<W: Weight>(map: &[u8], first_byte: u64, level: Level) -> Total {
    if W::IS_SUM {
        let mut sum = Sum::default();
        sum.add(map, first_byte, level);
        Wrapping(sum.0)
    } else {
        let mut count = Count::default();
        count.add(map, first_byte, level);
        total(count.0)
    }
}
