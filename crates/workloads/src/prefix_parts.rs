//! A range of primes as the difference of two sums over all primes up to a number, each divided into parts of similar
//! cost: tasks are parts, first those of the upper end, then those of the number before the lower end.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::{Algorithm, Labels, NumberRange, Order, Requirements};
use primes::{Plan, Prefix, Quantity, Stopped};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::prime_range::Find;
use crate::sieved::sum_of_strings;
use crate::workload::{Accepted, Combined, Contradiction, InvalidReport, Profile, Report, Workload, raw};

/// The ability to compute parts: parts add up only if all are of one version of the plan.
const ABILITY: &str = "divvy.prime-plan";

/// No worker has less memory than this for each of its slots.
const LEAST_MEMORY: u64 = 16 << 20;

/// Parts of one sum, as a lease carries them.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Parts {
    /// The last number of the sum.
    x: u64,
    /// The first part.
    first: u64,
    /// The part after the last one.
    beyond: u64,
    /// The version of the plan.
    plan: u32,
}

/// The abilities of this program, as labels that a worker announces.
pub(crate) fn abilities() -> Labels {
    Labels::from([(ABILITY.to_owned(), Plan::VERSION.to_string())])
}

/// The work of a job that subtracts two sums.
#[derive(Clone, Debug)]
pub(crate) struct PrefixParts {
    find: Find,
    range: NumberRange,
    /// Made at the first use, unless [`Self::divide`] comes before: a job that is only looked at needs none.
    plans: OnceLock<Plans>,
}

#[derive(Clone, Debug)]
struct Plans {
    upper: Plan,
    /// None where no prime is below the range.
    lower: Option<Plan>,
}

impl PrefixParts {
    pub(crate) fn new(find: Find, range: NumberRange) -> Self {
        Self { find, range, plans: OnceLock::new() }
    }

    fn plans(&self) -> &Plans {
        self.plans.get_or_init(|| {
            let plan = |x| Plan::new(self.find.quantity(), x);
            let below = self.range.a().checked_sub(1).filter(|below| *below >= 2);
            Plans { upper: plan(self.range.b()), lower: below.map(plan) }
        })
    }

    /// Makes the plans, which takes some milliseconds near 2^64.
    pub(crate) fn divide(&self) {
        self.plans();
    }

    /// The estimated nanoseconds of one thread for the whole.
    pub(crate) fn cost(&self) -> f64 {
        let Plans { upper, lower } = self.plans();
        upper.total_cost() + lower.as_ref().map_or(0.0, Plan::total_cost)
    }

    /// Whether a sieve from 0 is all that this would be.
    pub(crate) fn is_sieve(&self) -> bool {
        self.plans().upper.is_sieve()
    }

    /// The plan that tasks of one section are parts of, and which parts.
    fn section(&self, tasks: &Range<u64>) -> (&Plan, Range<u64>) {
        let Plans { upper, lower } = self.plans();
        let before = upper.parts();
        match lower {
            Some(lower) if tasks.start >= before => (lower, tasks.start - before..tasks.end - before),
            Some(_) | None => (upper, tasks.clone()),
        }
    }

    fn is_lower(&self, tasks: &Range<u64>) -> bool {
        tasks.start >= self.plans().upper.parts()
    }
}

impl Workload for PrefixParts {
    fn tasks(&self) -> u64 {
        let Plans { upper, lower } = self.plans();
        upper.parts() + lower.as_ref().map_or(0, Plan::parts)
    }

    fn profile(&self) -> Profile {
        let nanoseconds = |cost: f64| Duration::from_secs_f64(cost * 1e-9);
        #[expect(clippy::cast_precision_loss, reason = "there are two thousand parts at most")]
        let tasks = self.tasks() as f64;
        Profile {
            order: Order::Stripes,
            setup: setup_estimate(self.range.b()),
            task_estimate: Some(nanoseconds(self.cost() / tasks)),
            ..Profile::default()
        }
    }

    fn algorithm(&self) -> Option<Algorithm> {
        Some(Algorithm::Combinatorial)
    }

    fn requires(&self) -> Requirements {
        let memory = self.plans().upper.memory_bytes().next_power_of_two();
        // A power of two: jobs whose workers are the same stand in one queue.
        let slot_memory_bytes = (memory > LEAST_MEMORY).then_some(memory);
        Requirements { labels: abilities(), slot_memory_bytes, ..Requirements::default() }
    }

    fn sections(&self) -> Vec<u64> {
        let Plans { upper, lower } = self.plans();
        lower.iter().map(|_| upper.parts()).collect()
    }

    fn weight(&self, tasks: &Range<u64>) -> f64 {
        let Plans { upper, lower } = self.plans();
        let before = upper.parts();
        let of = |plan: &Plan, parts: Range<u64>| if parts.is_empty() { 0.0 } else { plan.cost(parts) };
        let below = tasks.start.saturating_sub(before)..tasks.end.saturating_sub(before);
        of(upper, tasks.start.min(before)..tasks.end.min(before)) + lower.as_ref().map_or(0.0, |lower| of(lower, below))
    }

    fn is_uneven(&self) -> bool {
        true
    }

    fn lease(&self, tasks: &Range<u64>, _: u64) -> Box<RawValue> {
        let (plan, Range { start, end }) = self.section(tasks);
        raw(format!(r#"{{"x":{},"first":{start},"beyond":{end},"plan":{}}}"#, plan.x(), Plan::VERSION))
    }

    fn payload(&self, task: u64) -> Option<Box<RawValue>> {
        Some(self.lease(&(task..task + 1), task + 1))
    }

    /// No bound is put to a part: it may be any number modulo 2^128.
    fn accept(&self, tasks: &Range<u64>, report: Report) -> Result<Accepted, InvalidReport> {
        let count = tasks.end - tasks.start;
        let wrapping = |sum: u128, value| Some(sum.wrapping_add(value));
        let value = report.value.or_else(|| sum_of_strings(&report.results, count, wrapping));
        let value = value.ok_or_else(|| InvalidReport(format!("must hold {count} decimal strings below 2^128")))?;
        Ok(Accepted { value: if self.is_lower(tasks) { value.wrapping_neg() } else { value }, ..Accepted::default() })
    }

    fn judge(&self, total: u128, _: u128) -> Result<(), Contradiction> {
        if total <= self.find.most(self.range) {
            return Ok(());
        }
        Err(Contradiction(format!("the parts add up to {total}, which is more than the range {} allows", self.range)))
    }

    fn combine(&self, total: u128) -> Combined {
        self.find.result(self.range, total)
    }
}

/// The cost of a slot before its first part: tables up to some multiple of ∛x, at some 15 ns a number as measured on AMD Zen 4,
/// and the place of the part among the others.
fn setup_estimate(x: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
    let x = x as f64;
    Duration::from_secs_f64(x.cbrt() * 60e-9)
}

/// Computes parts, keeping tables and the plan from lease to lease.
#[derive(Debug, Default)]
pub(crate) struct PartsExecutor {
    prefix: Prefix,
    plan: Option<Plan>,
}

impl PartsExecutor {
    /// Gives the tables of a long sum back.
    pub(crate) fn give_back(&mut self) {
        if self.plan.as_ref().is_some_and(|plan| plan.memory_bytes() > LEAST_MEMORY) {
            *self = Self::default();
        }
    }

    /// The sum of the parts' values modulo 2^128; an error text where this program has no such parts.
    pub(crate) fn run(
        &mut self,
        quantity: Quantity,
        parts: Parts,
        stop: &AtomicBool,
    ) -> Result<Result<u128, Stopped>, String> {
        let Parts { x, first, beyond, plan: version } = parts;
        if version != Plan::VERSION {
            return Err(format!("this worker divides prime sums by plan {}, not {version}", Plan::VERSION));
        }
        let known = self.plan.take().filter(|plan| plan.x() == x && plan.quantity() == quantity);
        let plan = self.plan.insert(known.unwrap_or_else(|| Plan::new(quantity, x)));
        if first >= beyond || beyond > plan.parts() {
            return Err(format!("there are no parts {first} to {beyond}: the sum up to {x} has {}", plan.parts()));
        }
        if plan.is_sieve() {
            // Not a sieve, so that it is worth something as a check of one.
            return Ok(Ok(match quantity {
                Quantity::Sum => primes::lucy::sum_up_to(x),
                Quantity::Count => primes::lucy::count_up_to(x),
            }));
        }
        Ok(self.prefix.parts(plan, first..beyond, stop))
    }
}
