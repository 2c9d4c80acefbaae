//! A range of primes by a sieve: tasks are runs of numbers, searched in stripes.

use std::num::NonZeroU64;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::{Algorithm, NumberRange, Order, Split};
use primes::{Sieve, Stopped};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::prime_range::Find;
use crate::workload::{Accepted, Combined, InvalidReport, Profile, Report, Workload, raw};

/// A range that is part of a longer one, as a lease carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    /// The first number.
    a: u64,
    /// The last number.
    b: u64,
    /// The number up to which the slot's next leases will probably go on, at least `b`.
    horizon: u64,
}

impl Stretch {
    /// Whether the sieve may take large memory.
    pub(crate) fn is_far(&self) -> bool {
        Sieve::may_be_large(self.horizon.max(self.b))
    }
}

/// The work of a job that sieves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sieved {
    find: Find,
    split: Split,
}

impl Sieved {
    pub(crate) fn new(find: Find, range: NumberRange, chunk_size: NonZeroU64) -> Self {
        Self { find, split: Split::new(range, chunk_size) }
    }
}

impl Workload for Sieved {
    fn tasks(&self) -> u64 {
        self.split.tasks()
    }

    fn profile(&self) -> Profile {
        let last = self.split.range().b();
        let numbers = u64::try_from(self.split.numbers(&(0..1)).len()).unwrap_or(u64::MAX);
        Profile {
            order: Order::Stripes,
            setup: setup_estimate(last),
            task_estimate: Some(sieve_estimate(numbers, last)),
            rise: rise_estimate(self.split.range()),
            ..Profile::default()
        }
    }

    fn algorithm(&self) -> Option<Algorithm> {
        Some(Algorithm::Sieve)
    }

    fn weight(&self, tasks: &Range<u64>) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share: 53 bits are plenty")]
        let (tasks, all) = ((tasks.end - tasks.start) as f64, self.tasks() as f64);
        primes::sieve_cost(self.split.range().into()) * tasks / all
    }

    fn lease(&self, tasks: &Range<u64>, horizon: u64) -> Box<RawValue> {
        let (part, whole) = (self.split.numbers(tasks), self.split.numbers(&(tasks.start..horizon)));
        let (a, b, horizon) = (part.a(), part.b(), whole.b());
        raw(format!(r#"{{"a":{a},"b":{b},"horizon":{horizon}}}"#))
    }

    fn payload(&self, task: u64) -> Option<Box<RawValue>> {
        let numbers = self.split.numbers(&(task..task + 1));
        Some(raw(format!(r#"{{"a":{},"b":{}}}"#, numbers.a(), numbers.b())))
    }

    fn numbers(&self, tasks: &Range<u64>) -> Option<NumberRange> {
        Some(self.split.numbers(tasks))
    }

    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
        let (most, count) = (self.find.most(self.split.numbers(tasks)), tasks.end - tasks.start);
        let value = report.value.or_else(|| sum_of_strings(&report.results, count, u128::checked_add));
        match value.filter(|value| *value <= most) {
            Some(value) => Ok(Accepted { value, ..Accepted::default() }),
            None => {
                Err(InvalidReport(format!("must hold {count} decimal strings, each no larger than its numbers allow")))
            }
        }
    }

    fn combine(&self, total: u128) -> Combined {
        self.find.result(self.split.range(), total)
    }
}

/// A pulling worker reports one decimal string a task.
pub(crate) fn sum_of_strings(
    results: &[Box<RawValue>],
    tasks: u64,
    add: fn(u128, u128) -> Option<u128>,
) -> Option<u128> {
    if results.len() as u64 != tasks {
        return None;
    }
    let parsed = |result: &RawValue| serde_json::from_str::<String>(result.get()).ok()?.parse::<u128>().ok();
    results.iter().try_fold(0, |sum, result| add(sum, parsed(result)?))
}

/// Sieves a lease with a sieve that stays where the last one ended.
pub(crate) fn search(find: Find, sieve: &mut Sieve, stretch: Stretch, stop: &AtomicBool) -> Result<u128, Stopped> {
    let Stretch { a, b, horizon } = stretch;
    let numbers: RangeInclusive<u64> = a..=b;
    match find {
        Find::Sum => sieve.sum_towards(numbers, horizon, stop),
        Find::Count => sieve.count_towards(numbers, horizon, stop).map(u128::from),
    }
}

/// The cost before the first number of a range that ends at `b`: the worker finds the first multiple in the range of each prime
/// up to √b, at some 25 ns each as measured on a server core of 2024.
fn setup_estimate(b: u64) -> Duration {
    let root = f64::from(u32::try_from(b.isqrt()).expect("a root of 64 bits has 32")).max(2.0);
    // About π(√b), by the prime number theorem.
    let primes = root / root.ln();
    Duration::from_secs_f64(primes * 25e-9)
}

/// The time for `numbers` numbers up to `b`: some 0.05 ns each up to 10^9 and four times that for each factor of a thousand
/// above, as measured on a server core of 2024.
fn sieve_estimate(numbers: u64, b: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
    let (numbers, magnitude) = (numbers as f64, (b as f64 / 1e9).max(1.0));
    Duration::from_secs_f64(numbers * 0.05e-9 * magnitude.powf(0.2))
}

/// The rise of the time for a number from `a` to `b`, by the times of the two halves. On server cores of 2025 the second half took
/// 1.13 to 1.22 times as long as the first for [10, 5e7], 1.16 to 1.17 for [10, 2e8], 1.14 to 1.15 for [10, 7.5e8], 1.17 for
/// [10, 1e10], 1.05 for [1e8, 3e8] and 1.00 for a range of 2e8 at 1e12.
fn rise_estimate(range: NumberRange) -> f64 {
    /// About the power of the middle of a half that its time grows with.
    const POWER: f64 = 0.14;
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
    let (a, b) = (range.a() as f64, range.b() as f64);
    let ratio = ((a + 3.0 * b) / (3.0 * a + b).max(1.0)).max(1.0).powf(POWER);
    4.0 * (ratio - 1.0) / (ratio + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_up_grows_with_the_primes_up_to_the_root_of_the_end() {
        let setup_ms = |b| setup_estimate(b).as_secs_f64() * 1e3;
        assert!(setup_ms(0) < 0.001);
        // π(10^6) = 78,498 and π(2^32) = 203,280,221.
        assert!((1.7..2.5).contains(&setup_ms(1_000_000_000_000)), "{}", setup_ms(1_000_000_000_000));
        assert!((4_700.0..6_000.0).contains(&setup_ms(u64::MAX)), "{}", setup_ms(u64::MAX));
    }

    #[test]
    fn the_estimate_for_a_chunk_is_near_what_was_measured_near_and_far() {
        let chunk_ms = |b| sieve_estimate(2_500_000, b).as_secs_f64() * 1e3;
        assert!((0.1..0.15).contains(&chunk_ms(1_000)), "{}", chunk_ms(1_000));
        assert!((0.4..0.6).contains(&chunk_ms(1_000_000_000_000)), "{}", chunk_ms(1_000_000_000_000));
        assert!((7.0..17.0).contains(&chunk_ms(u64::MAX)), "{}", chunk_ms(u64::MAX));
    }

    #[test]
    fn the_rise_is_near_what_was_measured_near_and_none_far_out() {
        let rise = |a, b| rise_estimate(NumberRange::new(a, b).expect("a is below b"));
        // The second half took 1.13 to 1.24 times as long as the first.
        for b in [50_000_000, 200_000_000, 750_000_000, 3_000_000_000, 10_000_000_000] {
            assert!((0.24..0.34).contains(&rise(10, b)), "{b}: {}", rise(10, b));
        }
        // Measured: 0.10.
        assert!((0.05..0.15).contains(&rise(100_000_000, 300_000_000)));
        assert!((0.0..0.001).contains(&rise(1_000_000_000_000, 1_000_200_000_000)));
        for (a, b) in [(0, 0), (0, 1), (0, u64::MAX), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert!((0.0..0.34).contains(&rise(a, b)), "[{a}, {b}]: {}", rise(a, b));
        }
    }

    #[test]
    fn a_report_above_what_the_numbers_allow_is_refused() {
        let range = NumberRange::new(10, 3_700_000).expect("10 is below");
        let work = Sieved::new(Find::Count, range, model::DEFAULT_CHUNK_SIZE);
        let report = |value| Report { value: Some(value), results: Vec::new() };
        assert!(work.accept(&(0..1), report(2_500_001)).is_ok());
        assert!(work.accept(&(0..1), report(2_500_002)).is_err());
        let strings =
            |strings: &[&str]| Report { value: None, results: strings.iter().map(|s| raw((*s).to_owned())).collect() };
        assert_eq!(work.accept(&(0..2), strings(&[r#""7""#, r#""8""#])).expect("two strings").value, 15);
        assert!(work.accept(&(0..2), strings(&[r#""7""#])).is_err());
        assert!(work.accept(&(0..1), strings(&["7"])).is_err());
    }
}
