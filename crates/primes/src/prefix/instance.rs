//! The tables that all parts of one prefix sum share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::Duration;

use super::factors::Factors;
use super::parameters::Parameters;
use super::table::{PrimeTable, wheel_primes};
use super::weight::{Ones, Total, Weight, total};
use crate::base::collect;
use crate::sieve::{Sieve, Stopped};

/// The tables that were made last, as long as somebody has them.
#[derive(Debug, Default)]
pub(crate) struct Shared<W>(Mutex<Weak<Instance<W>>>);

impl<W> Shared<W> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }
}

impl<W: Weight> Shared<W> {
    /// The tables for these limits, which one thread makes while others wait for them.
    pub(crate) fn get(
        &self,
        parameters: Parameters,
        sieve: &mut Sieve,
        stop: &AtomicBool,
    ) -> Result<Arc<Instance<W>>, Stopped> {
        let mut last = loop {
            match self.0.try_lock() {
                Ok(last) => break last,
                Err(TryLockError::Poisoned(poisoned)) => break PoisonError::into_inner(poisoned),
                Err(TryLockError::WouldBlock) if stop.load(Ordering::Relaxed) => return Err(Stopped),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        };
        if let Some(instance) = last.upgrade().filter(|instance| instance.parameters == parameters) {
            return Ok(instance);
        }
        let instance = Arc::new(Instance::new(parameters, sieve, stop)?);
        *last = Arc::downgrade(&instance);
        Ok(instance)
    }
}

/// Memory grows with y and z, which are some multiple of ∛x.
#[derive(Debug)]
pub(crate) struct Instance<W> {
    pub(crate) parameters: Parameters,
    /// The primes up to y, 0 in front: the first one has number 1.
    pub(crate) primes: Vec<u32>,
    /// π up to y.
    pub(crate) pi: PrimeTable<Ones>,
    /// The prime sums up to y.
    pub(crate) sums: PrimeTable<W>,
    pub(crate) factors: Factors,
}

impl<W: Weight> Instance<W> {
    pub(crate) fn new(parameters: Parameters, sieve: &mut Sieve, stop: &AtomicBool) -> Result<Self, Stopped> {
        let Parameters { y, z, .. } = parameters;
        let mut primes = vec![0, 2, 3, 5];
        let (mut pi, mut sums) = (PrimeTable::default(), PrimeTable::default());
        pi.restart(0, wheel_primes::<Ones>());
        sums.restart(0, wheel_primes::<W>());
        // The sieve ends at a whole byte, since a table may be asked for any number of its last byte.
        sieve.visit(0..=z / 30 * 30 + 29, stop, |map, first_byte| {
            let within = (y / 30 + 1).saturating_sub(first_byte).min(map.len() as u64) as usize;
            pi.push(&map[..within]);
            sums.push(&map[..within]);
            collect(map, first_byte, |prime| primes.push(prime as u32));
            Ok(())
        })?;
        let factors = Factors::new(z, y, &primes, stop)?;
        primes.truncate(primes.partition_point(|&prime| u64::from(prime) <= y));
        primes.shrink_to_fit();
        Ok(Self { parameters, primes, pi, sums, factors })
    }

    /// The number of primes up to `number`, at most y.
    #[inline(always)]
    pub(crate) fn index(&self, number: u64) -> usize {
        if number < 5 { [0, 0, 1, 2, 2][number as usize] } else { 3 + self.pi.within(number) as usize }
    }

    /// The sum over the primes up to `number`, at most y.
    pub(crate) fn sum_up_to(&self, number: u64) -> Total {
        match number {
            0 | 1 => total(0),
            2 => total(W::of(2)),
            3 | 4 => total(W::of(2)) + total(W::of(3)),
            _ => self.sums.up_to(number),
        }
    }

    /// The primes above `low` and up to `high`, at most y.
    #[inline(always)]
    pub(crate) fn primes_between(&self, low: u64, high: u64) -> &[u32] {
        if low >= high { &[] } else { &self.primes[self.index(low) + 1..=self.index(high)] }
    }
}
