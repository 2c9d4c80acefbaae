//! Estimated cost of the parts of a prefix sum, in nanoseconds as measured on AMD Zen 4.
//!
//! Estimates divide the work, so they use no function whose last digit may differ from machine to machine.

use super::parameters::Parameters;
use super::plan::Quantity;

/// The cost of each kind of work, with its part that depends on the limits alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    /// Cost of a segment of the hard leaves without leaves.
    segment: f64,
    /// Cost of all hard leaves, divided by the logarithm of their place.
    hard_leaves: f64,
    /// The first segment with hard leaves.
    first: u64,
    easy_leaf: f64,
    sieved: f64,
    looked_up: f64,
    ordinary: f64,
}

impl Price {
    pub(super) fn new(quantity: Quantity, parameters: &Parameters, segment: usize) -> Self {
        let (cleared, hard, easy_leaf, looked_up) = match quantity {
            Quantity::Sum => (1.08, 15.0, 4.0, 40.0),
            Quantity::Count => (0.93, 11.0, 2.7, 25.0),
        };
        let &Parameters { x, z, root_of_z, fourth_root, .. } = parameters;
        let numbers = 30.0 * segment as f64;
        let clearing = numbers * 0.35 * cleared;
        let stages = primes(fourth_root) * 20.0;
        let hard_leaves = 0.5 * z as f64 * root_of_z as f64 / (log(root_of_z) * log(root_of_z));
        let span = log(z).max(1.0) / 2.0;
        Self {
            segment: clearing + stages,
            hard_leaves: hard_leaves * hard / span,
            first: (x / (z * root_of_z)).min(z) / (30 * segment as u64),
            easy_leaf,
            sieved: 0.08,
            looked_up,
            ordinary: 0.1 * 15.0,
        }
    }

    /// The cost of a segment of the hard leaves, which lie evenly by the logarithm.
    pub(super) fn hard(&self, index: u64) -> f64 {
        self.segment + if index < self.first { 0.0 } else { self.hard_leaves / (index as f64 + 1.0) }
    }

    /// The far leaves with x/(p q) in a range.
    pub(super) fn far(&self, parameters: &Parameters, start: u64, end: u64) -> f64 {
        let &Parameters { x, cube_root, fourth_root, .. } = parameters;
        let (u, x) = (start.max(30) as f64, x as f64);
        let least = (fourth_root as f64).max(x / (u * u));
        let most = (cube_root as f64).min((x / u).sqrt());
        let log_of_q = log((x / u / most) as u64).max(1.0);
        let rows = (most - least).max(1.0) / log(most as u64).max(1.0);
        let logs = (log(most as u64) - log(least as u64)).max(0.1) / log(most as u64).max(1.0) / log_of_q;
        let leaves = (x / u - x / end as f64) * logs;
        1.8 * leaves * self.easy_leaf + rows * 25.0 + (end - start) as f64 * 0.15
    }

    /// The near leaves of the primes in a range.
    pub(super) fn near(&self, parameters: &Parameters, low: u64, high: u64) -> f64 {
        let &Parameters { x, y, easy_from, .. } = parameters;
        let p = u64::midpoint(low, high).max(2);
        let quotient = x / p;
        let least = quotient / (y + 1);
        let (least, most) =
            if p > easy_from { (least.max(p), quotient.isqrt()) } else { (least.max(p).max(quotient / (p * p)), y) };
        let rows = ((high - low) as f64 / log(p)).max(1.0);
        let leaves = (primes(most) - primes(least.min(most))).max(0.0);
        rows * (30.0 + leaves * self.easy_leaf)
    }

    /// The pairs of primes above y with x/p in a range.
    pub(super) fn pairs(&self, parameters: &Parameters, start: u64, end: u64) -> f64 {
        let x = parameters.x as f64;
        let primes = (x / start as f64 - x / end as f64) / log((x / end as f64) as u64).max(1.0);
        (end - start) as f64 * self.sieved + primes * self.looked_up
    }

    pub(super) fn closed(&self, parameters: &Parameters) -> f64 {
        parameters.z as f64 * self.ordinary + 20_000.0
    }
}

/// About as many primes as there are up to `n`.
fn primes(n: u64) -> f64 {
    n as f64 / log(n).max(1.0)
}

/// The natural logarithm, too small by up to 0.06.
pub(super) fn log(n: u64) -> f64 {
    let n = n.max(1);
    let power = n.ilog2();
    let fraction = n as f64 / (1u64 << power) as f64 - 1.0;
    (f64::from(power) + fraction) * std::f64::consts::LN_2
}
