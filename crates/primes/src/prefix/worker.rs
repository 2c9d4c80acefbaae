//! Computes parts of prefix sums.

use std::num::Wrapping;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::hard::Hard;
use super::instance::Instance;
use super::pairs::Pairs;
use super::parameters::Parameters;
use super::plan::{Part, Plan, Quantity};
use super::table::PrimeTable;
use super::weight::{Numbers, Ones, Total, Weight, pairs, total};
use super::{easy, far_bytes, ordinary};
use crate::level::Level;
use crate::sieve::{Sieve, Stopped};

/// Computes parts of [plans](Plan), keeping tables and the place of the last part from call to call.
///
/// Meant to live as long as its thread, like a [`Sieve`]. Its memory grows with the cube root of x: some 5 MB at 10^12,
/// 45 MB at 10^18, 120 MB at 2^64. The tables are shared by all of a process that compute the same
/// quantity up to the same x.
#[derive(Debug)]
pub struct Prefix {
    level: Level,
    work: Option<Work>,
}

#[derive(Debug)]
enum Work {
    Sum(Calculator<Numbers>),
    Count(Calculator<Ones>),
}

impl Default for Prefix {
    fn default() -> Self {
        Self::new()
    }
}

impl Prefix {
    /// A worker without tables; a plan that needs them makes them.
    pub fn new() -> Self {
        Self::with_level(Level::best())
    }

    /// A worker that uses the instructions of `level`, or the best of the CPU if those are lower.
    pub fn with_level(level: Level) -> Self {
        Self { level: level.supported(), work: None }
    }

    /// The sum of the values of these parts modulo 2^128. The values of all parts of a plan add up to its result.
    ///
    /// A call whose first part is the one after the last part of the call before goes on with its work; any other starts
    /// at a cost of some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Stopped`] within about 20 ms after `stop` became true.
    ///
    /// # Panics
    ///
    /// If the plan has no such parts.
    pub fn parts(&mut self, plan: &Plan, parts: Range<u64>, stop: &AtomicBool) -> Result<u128, Stopped> {
        let parts = &plan.parts[parts.start as usize..parts.end as usize];
        // Tables of another sum are gone before those of this one are made.
        let mut work = match self.work.take().filter(|work| work.is_for(plan)) {
            Some(work) => work,
            None => Work::new(plan, self.level, stop)?,
        };
        let value = work.parts(parts, stop)?;
        self.work = Some(work);
        Ok(value.0)
    }
}

impl Work {
    fn new(plan: &Plan, level: Level, stop: &AtomicBool) -> Result<Self, Stopped> {
        Ok(match plan.quantity() {
            Quantity::Sum => Self::Sum(Calculator::new(plan, level, stop)?),
            Quantity::Count => Self::Count(Calculator::new(plan, level, stop)?),
        })
    }

    fn is_for(&self, plan: &Plan) -> bool {
        match self {
            Self::Sum(calculator) => plan.quantity() == Quantity::Sum && calculator.is_for(plan),
            Self::Count(calculator) => plan.quantity() == Quantity::Count && calculator.is_for(plan),
        }
    }

    fn parts(&mut self, parts: &[Part], stop: &AtomicBool) -> Result<Total, Stopped> {
        match self {
            Self::Sum(calculator) => calculator.parts(parts, stop),
            Self::Count(calculator) => calculator.parts(parts, stop),
        }
    }
}

/// Computes parts of one plan.
#[derive(Debug)]
struct Calculator<W> {
    x: u64,
    segment: usize,
    level: Level,
    sieve: Sieve,
    instance: Option<Arc<Instance<W>>>,
    hard: Option<Hard<W>>,
    pairs: Option<Pairs<W>>,
    far: PrimeTable<W>,
}

impl<W: Weight> Calculator<W> {
    fn new(plan: &Plan, level: Level, stop: &AtomicBool) -> Result<Self, Stopped> {
        let mut sieve = Sieve::with_level(level);
        let instance = plan.parameters.map(|parameters| W::shared().get(parameters, &mut sieve, stop)).transpose()?;
        Ok(Self::with_instance(plan, level, sieve, instance))
    }

    fn with_instance(plan: &Plan, level: Level, sieve: Sieve, instance: Option<Arc<Instance<W>>>) -> Self {
        let (hard, pairs, far) = (None, None, PrimeTable::default());
        Self { x: plan.x(), segment: plan.segment, level, sieve, instance, hard, pairs, far }
    }

    fn is_for(&self, plan: &Plan) -> bool {
        let parameters = self.instance.as_ref().map(|instance| instance.parameters);
        (self.x, self.segment, parameters) == (plan.x(), plan.segment, plan.parameters)
    }

    fn parts(&mut self, parts: &[Part], stop: &AtomicBool) -> Result<Total, Stopped> {
        let mut value = Wrapping(0);
        for part in parts {
            value += match &self.instance {
                Some(instance) => self.part(&Arc::clone(instance), part, stop)?,
                None => self.sieved(self.x, stop)?,
            };
        }
        Ok(value)
    }

    fn part(&mut self, instance: &Instance<W>, part: &Part, stop: &AtomicBool) -> Result<Total, Stopped> {
        match part {
            Part::Sieve => self.sieved(self.x, stop),
            Part::Hard(segments) => self.hard(instance, segments, stop),
            Part::Far(bytes) => self.far(instance, bytes, stop),
            Part::Near(primes) => easy::near(instance, primes.start, primes.end, stop),
            Part::Pairs(range) => self.pairs(&instance.parameters, range, stop),
            Part::Closed => self.closed(instance, stop),
        }
    }

    fn sieved(&mut self, x: u64, stop: &AtomicBool) -> Result<Total, Stopped> {
        if W::IS_SUM { self.sieve.sum(0..=x, stop).map(Wrapping) } else { self.sieve.count(0..=x, stop).map(total) }
    }

    fn hard(&mut self, instance: &Instance<W>, segments: &Range<u64>, stop: &AtomicBool) -> Result<Total, Stopped> {
        let mut hard = match self.hard.take().filter(|hard| hard.next() == segments.start) {
            Some(hard) => hard,
            None => Hard::new(instance, self.segment, segments.start, self.level, stop)?,
        };
        let value = hard.run(instance, segments.end, stop)?;
        self.hard = Some(hard);
        Ok(value)
    }

    fn far(&mut self, instance: &Instance<W>, bytes: &Range<u64>, stop: &AtomicBool) -> Result<Total, Stopped> {
        let mut value = Wrapping(0);
        let mut start = bytes.start;
        while start < bytes.end {
            let before = if self.far.end_byte() == start && start > 0 {
                self.far.end_total()
            } else {
                self.up_to(30 * start - 1, stop)?
            };
            let end = bytes.end.min(start + far_bytes());
            let table = &mut self.far;
            table.restart(start, before);
            self.sieve.visit(30 * start..=30 * end - 1, stop, |map, _| {
                table.push(map);
                Ok(())
            })?;
            let low = (30 * start).max(instance.parameters.y + 1);
            value += easy::far(instance, table, low, 30 * end, stop)?;
            start = end;
        }
        Ok(value)
    }

    fn pairs(&mut self, parameters: &Parameters, range: &Range<u64>, stop: &AtomicBool) -> Result<Total, Stopped> {
        let mut pairs = match self.pairs.take().filter(|pairs| pairs.next() == range.start) {
            Some(pairs) => pairs,
            None => Pairs::new(parameters, range.start, self.up_to(range.start - 1, stop)?, self.level),
        };
        let value = pairs.run(parameters, range.end, stop)?;
        self.pairs = Some(pairs);
        Ok(Wrapping(0) - value)
    }

    fn closed(&mut self, instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
        let up_to_y = instance.sum_up_to(instance.parameters.y);
        let up_to_root = self.up_to(instance.parameters.root, stop)?;
        let leaves = ordinary::ordinary(instance, stop)? + easy::closed(instance, stop)?;
        Ok(leaves + up_to_y - total(1) + pairs(up_to_root) - pairs(up_to_y))
    }

    /// The prefix sum of a smaller x.
    fn up_to(&mut self, x: u64, stop: &AtomicBool) -> Result<Total, Stopped> {
        let quantity = if W::IS_SUM { Quantity::Sum } else { Quantity::Count };
        let plan = Plan::new(quantity, x);
        let Some(parameters) = plan.parameters else {
            return self.sieved(x, stop);
        };
        // Not the shared tables: those are of the whole.
        let mut sieve = Sieve::with_level(self.level);
        let instance = Arc::new(Instance::new(parameters, &mut sieve, stop)?);
        Self::with_instance(&plan, self.level, sieve, Some(instance)).parts(&plan.parts, stop)
    }
}
