//! A prefix sum as parts whose values add up to it, and what they cost.

use std::ops::Range;

use super::parameters::{Parameters, cube_root};
use super::price::{self, Price};
use super::{counted, far_bytes};

/// The quantity that is computed over the primes up to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// The sum of the primes.
    Sum,
    /// The number of the primes.
    Count,
}

/// A prefix sum or count, divided into parts.
///
/// A function of quantity and x alone, made in microseconds for small x and in a few milliseconds at 2^64, so that those
/// two numbers stand for it on a wire: every machine finds the same parts, if its version of this crate is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    quantity: Quantity,
    x: u64,
    /// None where a sieve takes less.
    pub(super) parameters: Option<Parameters>,
    /// Bytes of a segment of the hard leaves.
    pub(super) segment: usize,
    pub(super) parts: Vec<Part>,
    /// Nanoseconds of the parts before each one, and of all at the end.
    costs: Vec<f64>,
}

/// The terms that one part sums up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All primes up to x by a sieve.
    Sieve,
    /// Segments of the hard leaves.
    Hard(Range<u64>),
    /// Easy leaves by x/(p q), in bytes of thirty numbers.
    Far(Range<u64>),
    /// Easy leaves by p, the primes above the start and up to the end.
    Near(Range<u64>),
    /// Numbers with two large prime factors p < q, by the x/p.
    Pairs(Range<u64>),
    /// Everything else.
    Closed,
}

/// Below this the sieve is faster.
const LEAST: u64 = 20_000_000;

impl Plan {
    /// Grows when the same quantity and x give other parts: parts of plans of different versions do not add up.
    pub const VERSION: u32 = 1;

    /// The plan for all primes up to `x`.
    pub fn new(quantity: Quantity, x: u64) -> Self {
        if x < LEAST {
            let costs = vec![0.0, x as f64 * 0.05 + 1000.0];
            return Self { quantity, x, parameters: None, segment: 0, parts: vec![Part::Sieve], costs };
        }
        let [y, z] = limits(x);
        let parameters = Parameters::new(x, y, z);
        let bytes = x / parameters.z / 30 + 1;
        let segment = (bytes / 64).next_power_of_two().clamp(4 << 10, LONGEST_SEGMENT as u64);
        Self::divided(quantity, parameters, segment as usize, None)
    }

    /// The plan with these limits, in parts of about `most` nanoseconds if that is given.
    pub(super) fn divided(quantity: Quantity, parameters: Parameters, segment: usize, most: Option<f64>) -> Self {
        let price = Price::new(quantity, &parameters, segment);
        let cells = cells(&parameters, segment, &price);
        let total: f64 = cells.iter().flatten().map(|(_, cost)| cost).sum();
        let most = most.unwrap_or_else(|| (total / 32.0).min(LONGEST_PART).max(total / 512.0));
        let mut plan =
            Self { quantity, x: parameters.x, parameters: Some(parameters), segment, parts: vec![], costs: vec![0.0] };
        for cells in cells {
            plan.merge(cells, most);
        }
        plan.add(Part::Closed, price.closed(&parameters));
        plan
    }

    /// The quantity that is computed.
    pub fn quantity(&self) -> Quantity {
        self.quantity
    }

    /// The primes up to here, included.
    pub fn x(&self) -> u64 {
        self.x
    }

    /// The number of parts, numbered from 0: 1 to 1000, of similar cost.
    pub fn parts(&self) -> u64 {
        self.parts.len() as u64
    }

    /// The estimated nanoseconds for one thread to compute these parts, on AMD Zen 4. A run that does not go on with the
    /// last one costs a few milliseconds more.
    ///
    /// # Panics
    ///
    /// If there are no such parts.
    pub fn cost(&self, parts: Range<u64>) -> f64 {
        self.costs[parts.end as usize] - self.costs[parts.start as usize]
    }

    /// Whether the only part is a sieve over all numbers up to x.
    pub fn is_sieve(&self) -> bool {
        self.parameters.is_none()
    }

    /// The estimated memory of one thread that computes parts, in bytes, as measured at 10^12, 10^18 and 2^64.
    pub fn memory_bytes(&self) -> u64 {
        5_000_000 + 40 * cube_root(self.x)
    }

    /// The estimated nanoseconds for one thread to compute the whole.
    pub fn total_cost(&self) -> f64 {
        self.cost(0..self.parts())
    }

    /// The description of a part, for people.
    ///
    /// # Panics
    ///
    /// If there is no such part.
    pub fn describe(&self, part: u64) -> String {
        format!("{:?}", self.parts[part as usize])
    }

    /// Adds cells that follow each other, as parts of about `most` nanoseconds.
    fn merge(&mut self, cells: Vec<Cell>, most: f64) {
        let total: f64 = cells.iter().map(|(_, cost)| cost).sum();
        let share = total / (total / most).ceil().max(1.0);
        let mut cells = cells.into_iter();
        let Some((mut part, mut cost)) = cells.next() else { return };
        for (next, next_cost) in cells {
            if cost + next_cost / 2.0 > share {
                self.add(part, cost);
                (part, cost) = (next, next_cost);
            } else {
                part.extend(next);
                cost += next_cost;
            }
        }
        self.add(part, cost);
    }

    fn add(&mut self, part: Part, cost: f64) {
        self.parts.push(part);
        self.costs.push(self.costs[self.costs.len() - 1] + cost);
    }
}

impl Part {
    /// Goes on to the end of a part that follows.
    fn extend(&mut self, next: Self) {
        match (self, next) {
            (Self::Hard(range), Self::Hard(next))
            | (Self::Far(range), Self::Far(next))
            | (Self::Near(range), Self::Near(next))
            | (Self::Pairs(range), Self::Pairs(next)) => range.end = next.end,
            (part, next) => unreachable!("{next:?} does not follow {part:?}"),
        }
    }
}

const LONGEST_PART: f64 = 100e6;

const LONGEST_SEGMENT: usize = 128 << 10;

const _: () = assert!(LONGEST_SEGMENT <= counted::LONGEST);

/// y and z that were found to take the least time at 10^12, 10^14 and 10^16, on AMD Zen 4.
fn limits(x: u64) -> [u64; 2] {
    let digits = price::log(x) / std::f64::consts::LN_10;
    let beyond = (digits - 7.0).max(0.0);
    let y = cube_root(x) as f64 * (1.0 + 0.08 * beyond * beyond);
    [y as u64, (y * (digits / 2.0 - 5.0).clamp(2.0, 3.0)) as u64]
}

/// A piece of work that is not divided further, and its cost.
type Cell = (Part, f64);

/// All parts but the closed one in small pieces, each kind by itself.
fn cells(parameters: &Parameters, segment: usize, price: &Price) -> [Vec<Cell>; 4] {
    let &Parameters { x, root, cube_root, y, z, root_of_z, .. } = parameters;
    let segments = x / z / (30 * segment as u64) + 1;
    let hard = (0..segments).map(|index| (Part::Hard(index..index + 1), price.hard(index)));
    let far = steps((y + 1) / 30, root / 30 + 1, 32, far_bytes());
    let far = far.map(|bytes| (Part::Far(bytes.clone()), price.far(parameters, 30 * bytes.start, 30 * bytes.end)));
    let near = steps(root_of_z, cube_root, 64, u64::MAX);
    let near = near.map(|range| (Part::Near(range.clone()), price.near(parameters, range.start, range.end)));
    let pairs = steps(root, x / (y + 1) + 1, 64, u64::MAX);
    let pairs = pairs.map(|range| (Part::Pairs(range.clone()), price.pairs(parameters, range.start, range.end)));
    [hard.collect(), far.collect(), near.collect(), pairs.collect()]
}

/// Divides the numbers from `start` to before `end` into steps of a share of where they start, and of `most`.
fn steps(start: u64, end: u64, share: u64, most: u64) -> impl Iterator<Item = Range<u64>> {
    let next = move |from: u64| {
        Some(from..from.saturating_add((from / share).clamp(1, most)).min(end)).filter(|step| !step.is_empty())
    };
    std::iter::successors(next(start), move |step| next(step.end))
}
