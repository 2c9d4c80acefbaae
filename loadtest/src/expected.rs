//! The right answers, by a plain sieve that shares nothing with the service under test.
//!
//! Bounded memory; one pass from 0 to the largest end serves a whole plan. Source: the segmented sieve of Eratosthenes
//! (Bays and Hudson, 1977), odd numbers only.

/// Odd numbers in one segment: a byte each, so that a segment stays in the L1 cache.
const SEGMENT_ODDS: u64 = 1 << 15;

/// The sum of all primes up to and including each of `ends`, which ascend strictly; `None` if `is_stopped` says so before the end.
pub(crate) fn prefix_sums(ends: &[u64], is_stopped: impl Fn() -> bool) -> Option<Vec<u128>> {
    let Some(&last) = ends.last() else {
        return Some(Vec::new());
    };
    let mut sieve = OddSieve::up_to(last);
    let mut sums = Vec::with_capacity(ends.len());
    let mut sum: u128 = 0;
    let mut pending = ends.iter().copied().peekable();
    while pending.peek().is_some_and(|&end| end < 2) {
        pending.next();
        sums.push(0);
    }
    sum += 2;
    while pending.peek().is_some() {
        if is_stopped() {
            return None;
        }
        let first = sieve.next_segment();
        let past = first + 2 * SEGMENT_ODDS;
        let mut number = first;
        while let Some(end) = pending.next_if(|&end| end < past) {
            sum += sieve.sum(first, number, end);
            number = number.max((end + 1) | 1);
            sums.push(sum);
        }
        sum += sieve.sum(first, number, past - 1);
    }
    Some(sums)
}

/// Odd numbers from 1 on, segment by segment.
struct OddSieve {
    /// Each odd prime up to the root of the last number, and its next odd multiple to cross off.
    primes: Vec<(u64, u64)>,
    composite: Vec<bool>,
    next_first: u64,
}

impl OddSieve {
    fn up_to(last: u64) -> Self {
        let primes = (3..=last.isqrt()).step_by(2).filter(|&n| is_prime(n)).map(|p| (p, p * p)).collect();
        Self { primes, composite: vec![false; SEGMENT_ODDS as usize], next_first: 1 }
    }

    /// Sieves the next segment and returns its first number.
    fn next_segment(&mut self) -> u64 {
        let first = self.next_first;
        let past = first + 2 * SEGMENT_ODDS;
        self.next_first = past;
        self.composite.fill(false);
        self.composite[0] = first == 1;
        for (prime, multiple) in &mut self.primes {
            if *prime * *prime >= past {
                break;
            }
            while *multiple < past {
                self.composite[((*multiple - first) / 2) as usize] = true;
                *multiple += 2 * *prime;
            }
        }
        first
    }

    /// The sum of the primes in `from..=to`, `from` odd, both in the segment that starts at `first`.
    fn sum(&self, first: u64, from: u64, to: u64) -> u128 {
        if from > to {
            return 0;
        }
        let flags = &self.composite[((from - first) / 2) as usize..=((to - first) / 2) as usize];
        let sum: u64 = (from..).step_by(2).zip(flags).map(|(n, &composite)| if composite { 0 } else { n }).sum();
        u128::from(sum)
    }
}

fn is_prime(odd: u64) -> bool {
    (3..).step_by(2).take_while(|d| d * d <= odd).all(|d| !odd.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn prefix_sums_match_the_published_table() {
        let ends = [10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000];
        let published = [17, 1060, 76_127, 5_736_396, 454_396_537, 37_550_402_023, 3_203_324_994_356];
        assert_eq!(prefix_sums(&ends, || false).expect("not stopped"), published);
    }

    #[test]
    fn sums_that_take_long_end_when_they_are_told_to() {
        let asked = Cell::new(0);
        let third_time = || asked.replace(asked.get() + 1) == 2;
        assert_eq!(prefix_sums(&[10_000_000_000], third_time), None);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn every_small_end_and_every_segment_edge_is_exact() {
        let trial = |n: u64| n == 2 || (n > 2 && n % 2 == 1 && is_prime(n));
        let ends: Vec<u64> = (0..200).chain(65_500..65_600).chain(131_000..131_100).collect();
        let mut sum: u128 = 0;
        let by_trial: Vec<u128> = (0..=131_100)
            .map(|n| {
                sum += if trial(n) { u128::from(n) } else { 0 };
                sum
            })
            .collect();
        let expected: Vec<u128> = ends.iter().map(|&end| by_trial[end as usize]).collect();
        assert_eq!(prefix_sums(&ends, || false).expect("not stopped"), expected);
    }
}
