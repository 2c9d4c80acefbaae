//! The easy leaves: pairs of primes p < q whose sum φ(x/(p q), π(p) − 1) is a sum of primes up to x/(p q) ≤ √x.
//!
//! Leaves with x/(p q) ≤ y are near: the tables that each run has answer, and the primes p divide the work. The others are far: a
//! table of each interval of x/(p q) is made, and the intervals divide the work.
//!
//! Source: X. Gourdon, 2001, the terms A and C. For p > x^(1/4) the pairs with q > √(x/p) are those with smaller ones
//! mirrored, so that the latter count twice where x/(p q) ≤ y.

use std::num::Wrapping;
use std::sync::atomic::{AtomicBool, Ordering};

use super::instance::Instance;
use super::table::PrimeTable;
use super::weight::{Total, Weight, total};
use crate::sieve::Stopped;

/// Primes p between two looks at the stop flag.
const PRIMES_BETWEEN_CHECKS: usize = 64;

/// The primes q of one prime p.
struct Row {
    /// x / p.
    quotient: u64,
    /// q is above this and at most that.
    above: u64,
    most: u64,
    is_mirrored: bool,
}

impl Row {
    #[inline(always)]
    fn new<W: Weight>(instance: &Instance<W>, prime: u64) -> Self {
        let parameters = &instance.parameters;
        let quotient = parameters.x / prime;
        let is_mirrored = prime > parameters.easy_from;
        if is_mirrored {
            Self { quotient, above: prime, most: quotient.isqrt(), is_mirrored }
        } else {
            let hard = quotient / (prime * prime);
            Self { quotient, above: prime.max(hard), most: parameters.y, is_mirrored }
        }
    }
}

/// The sum of the near leaves of the primes p above `low` and up to `high`.
pub(crate) fn near<W: Weight>(
    instance: &Instance<W>,
    low: u64,
    high: u64,
    stop: &AtomicBool,
) -> Result<Total, Stopped> {
    let nearest = instance.parameters.y + 1;
    let mut value = Wrapping(0);
    for &prime in instance.primes_between(low, high) {
        // A row takes some milliseconds where y is large.
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        let row = Row::new(instance, prime.into());
        let qs = instance.primes_between(row.above.max(row.quotient / nearest), row.most);
        let sum = sum_over(qs, row.quotient, &instance.sums);
        value += total(W::of(prime.into())) * if row.is_mirrored { sum + sum } else { sum };
    }
    Ok(value)
}

/// The sum of the far leaves with x/(p q) in `table`, from `low` to before `high`.
pub(crate) fn far<W: Weight>(
    instance: &Instance<W>,
    table: &PrimeTable<W>,
    low: u64,
    high: u64,
    stop: &AtomicBool,
) -> Result<Total, Stopped> {
    let mut value = Wrapping(0);
    let parameters = &instance.parameters;
    // q ≤ y and, where pairs are mirrored, q² ≤ x/p.
    let least = (parameters.x / high / parameters.y).min(parameters.x / high / high).max(parameters.root_of_z);
    let most = parameters.cube_root.min((parameters.x / low).isqrt());
    for primes in instance.primes_between(least, most).chunks(PRIMES_BETWEEN_CHECKS) {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        for &prime in primes {
            let row = Row::new(instance, prime.into());
            let (above, most) = (row.above.max(row.quotient / high), row.most.min(row.quotient / low));
            value += total(W::of(prime.into())) * sum_over(instance.primes_between(above, most), row.quotient, table);
        }
    }
    Ok(value)
}

/// The sum of f(q) times that of the primes up to `quotient / q`, which is in `table`, over the primes q.
#[inline(always)]
fn sum_over<W: Weight>(qs: &[u32], quotient: u64, table: &PrimeTable<W>) -> Total {
    let (mut within, mut factors) = (Wrapping(0), Wrapping(0));
    for &q in qs {
        let f = total(W::of(q.into()));
        within += f * total(table.within(quotient / u64::from(q)));
        factors += f;
    }
    within + factors * table.before()
}

/// The terms of all easy leaves that depend on prime sums up to y alone, not on sums of primes up to x/(p q).
pub(crate) fn closed<W: Weight>(instance: &Instance<W>, stop: &AtomicBool) -> Result<Total, Stopped> {
    let parameters = &instance.parameters;
    let sum = |number| instance.sum_up_to(number);
    let y = parameters.y;
    let mut value = Wrapping(0);
    for primes in instance.primes_between(parameters.root_of_z, parameters.cube_root).chunks(PRIMES_BETWEEN_CHECKS) {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        for &prime in primes {
            let p = u64::from(prime);
            let Row { quotient, above, most: root, is_mirrored } = Row::new(instance, p);
            let f = total(W::of(p));
            if !is_mirrored {
                value += f * (total(1) - sum(p - 1)) * (sum(y) - sum(above.min(y)));
                continue;
            }
            let most = y.min(quotient / p);
            let mirrored = sum(p) * (sum(most) - sum(root)) - sum(root) * (sum(root) - sum(p));
            let beyond = root.min(quotient / (y + 1));
            let cut = if beyond > p { sum(y) * (sum(beyond) - sum(p)) } else { total(0) };
            value += f * (mirrored + cut - sum(p - 1) * (sum(most) - sum(p)));
        }
    }
    // φ has 1 beside the primes, in the pairs above `easy_from` up to y as well as in those below.
    let ones = sum(y) - sum(parameters.easy_from);
    let squares = instance.primes_between(parameters.easy_from, y).iter();
    let squares = squares.fold(total(0), |sum, &prime| sum + super::weight::pairs(total(W::of(prime.into()))));
    Ok(value + super::weight::pairs(ones) - squares)
}
