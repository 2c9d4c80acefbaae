//! What `sum-of-primes` and `count-primes` share: a range of numbers that divides into tasks, searched in stripes.

use std::fmt::Debug;
use std::num::NonZeroU64;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::{InvalidJob, NumberRange, Order, Split};
use primes::{Sieve, Stopped};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::execute::{Execute, ExecuteError, parse_work};
use crate::workload::{Accepted, Combined, InvalidReport, Parsed, Profile, Report, Workload, parse_params, raw};

/// What is found of the primes in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    Sum,
    Count,
}

/// Parameters of both kinds, for the API's description; [`NumberRange`] is what reads them.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the parameters")]
pub(crate) struct RangeParams {
    /// The first number.
    a: u64,
    /// The last number, at least `a`.
    b: u64,
}

/// A range that is part of a longer one, as a lease carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stretch {
    /// The first number.
    a: u64,
    /// The last number.
    b: u64,
    /// The number up to which the slot's next leases will probably go on, at least `b`.
    horizon: u64,
}

#[derive(Clone, Copy, Debug)]
struct PrimeRange {
    find: Find,
    split: Split,
}

pub(crate) fn parse(find: Find, params: &RawValue, chunk_size: NonZeroU64) -> Result<Parsed, InvalidJob> {
    let workload = restore(find, params, chunk_size)?;
    Ok(Parsed { workload, shown: params.to_owned(), payloads: Vec::new() })
}

pub(crate) fn restore(find: Find, shown: &RawValue, chunk_size: NonZeroU64) -> Result<Arc<dyn Workload>, InvalidJob> {
    let range: NumberRange = parse_params(shown)?;
    Ok(Arc::new(PrimeRange { find, split: Split::new(range, chunk_size) }))
}

impl PrimeRange {
    fn max_value(&self, tasks: &Range<u64>) -> u128 {
        let numbers = self.split.numbers(tasks);
        match self.find {
            Find::Sum => numbers.max_sum(),
            Find::Count => numbers.len(),
        }
    }
}

impl Workload for PrimeRange {
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
            ..Profile::default()
        }
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
        let most = self.max_value(tasks);
        let value = match report.value {
            Some(value) => Some(value),
            None => sum_of_strings(&report.results, tasks.end - tasks.start),
        };
        match value.filter(|value| *value <= most) {
            Some(value) => Ok(Accepted { value, results: Vec::new() }),
            None => {
                let count = tasks.end - tasks.start;
                Err(InvalidReport(format!("must hold {count} decimal strings, each no larger than its numbers allow")))
            }
        }
    }

    fn combine(&self, total: u128) -> Combined {
        let (range, name) = (
            self.split.range(),
            match self.find {
                Find::Sum => "sum",
                Find::Count => "count",
            },
        );
        Combined::Result(raw(format!(r#"{{"a":{},"b":{},"{name}":"{total}"}}"#, range.a(), range.b())))
    }
}

/// A pulling worker reports one decimal string a task.
fn sum_of_strings(results: &[Box<RawValue>], tasks: u64) -> Option<u128> {
    if results.len() as u64 != tasks {
        return None;
    }
    let parsed = |result: &RawValue| serde_json::from_str::<String>(result.get()).ok()?.parse::<u128>().ok();
    results.iter().try_fold(0_u128, |sum, result| sum.checked_add(parsed(result)?))
}

/// Searches with a sieve that stays where the last lease ended.
pub(crate) struct Searcher {
    find: Find,
    sieve: Sieve,
}

impl Searcher {
    pub(crate) fn new(find: Find) -> Self {
        Self { find, sieve: Sieve::new() }
    }

    fn search(&mut self, numbers: RangeInclusive<u64>, horizon: u64, stop: &AtomicBool) -> Result<u128, Stopped> {
        match self.find {
            Find::Sum => self.sieve.sum_towards(numbers, horizon, stop),
            Find::Count => self.sieve.count_towards(numbers, horizon, stop).map(u128::from),
        }
    }
}

impl Execute for Searcher {
    fn run(&mut self, work: &RawValue, _: &Range<u64>, stop: &AtomicBool) -> Result<Report, ExecuteError> {
        let Stretch { a, b, horizon } = parse_work(work)?;
        let value = self.search(a..=b, horizon, stop).map_err(|Stopped| ExecuteError::Stopped)?;
        Ok(Report { value: Some(value), results: Vec::new() })
    }
}

/// What a worker pays before the first number of a range that ends at `b`: it finds the first multiple in the range of
/// each prime up to √b, at some 25 ns each as measured on a server core of 2024.
fn setup_estimate(b: u64) -> Duration {
    let root = f64::from(u32::try_from(b.isqrt()).expect("a root of 64 bits has 32")).max(2.0);
    // About π(√b), by the prime number theorem.
    let primes = root / root.ln();
    Duration::from_secs_f64(primes * 25e-9)
}

/// What a worker takes for `numbers` numbers up to `b`: some 0.05 ns each up to 10^9 and four times that for each factor
/// of a thousand above, as measured on a server core of 2024.
fn sieve_estimate(numbers: u64, b: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
    let (numbers, magnitude) = (numbers as f64, (b as f64 / 1e9).max(1.0));
    Duration::from_secs_f64(numbers * 0.05e-9 * magnitude.powf(0.2))
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

    fn work(find: Find) -> Arc<dyn Workload> {
        let params = raw(r#"{"a":10,"b":3700000}"#.to_owned());
        restore(find, &params, NonZeroU64::new(2_500_000).expect("not zero")).expect("a range")
    }

    #[test]
    fn the_worked_example_is_two_tasks_whose_parts_add_up() {
        let work = work(Find::Sum);
        assert_eq!(work.tasks(), 2);
        let mut searcher = Searcher::new(Find::Sum);
        let mut total = 0;
        for task in 0..2 {
            let tasks = task..task + 1;
            let report = searcher.run(&work.lease(&tasks, 2), &tasks, &AtomicBool::new(false)).expect("computed");
            total += work.accept(&tasks, report).expect("an honest report").value;
        }
        let Combined::Result(result) = work.combine(total) else { panic!("a sum") };
        assert_eq!(result.get(), r#"{"a":10,"b":3700000,"sum":"468476582935"}"#);
    }

    #[test]
    fn a_report_above_what_the_numbers_allow_is_refused() {
        let work = work(Find::Count);
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
