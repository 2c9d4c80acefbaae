//! Durations in fixed buckets, which add up exactly.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Ten bounds a decade: the preferred numbers R10 of ISO 3. The largest step is that from 1.25 to 1.60.
const R10: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
/// Range of the bounds: from 1 ms to 10,000,000 s, some 115 days.
const DECADES: usize = 10;

/// Upper bounds of the buckets in microseconds, each part of its bucket: 1 ms, 1.25 ms, 1.6 ms and so on to 10,000,000 s.
/// A longer duration is in the bucket [`BEYOND_US`].
pub const BOUNDS_US: [u64; DECADES * 10 + 1] = bounds();
/// Name of the bucket of durations above the last of [`BOUNDS_US`].
pub const BEYOND_US: u64 = i64::MAX.unsigned_abs();

const fn bounds() -> [u64; DECADES * 10 + 1] {
    let mut bounds = [0; DECADES * 10 + 1];
    // In hundredths of a millisecond.
    let (mut place, mut scale) = (0, 10);
    while place < bounds.len() {
        bounds[place] = R10[place % 10] * scale;
        if place % 10 == 9 {
            scale *= 10;
        }
        place += 1;
    }
    bounds
}

/// Counts of durations by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Sum of the durations in microseconds.
    pub sum_us: u64,
    /// Number of durations in each non-empty bucket, by the bucket's upper bound in microseconds.
    pub buckets: BTreeMap<u64, u64>,
}

impl Durations {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Number of counted durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(BEYOND_US).min(BEYOND_US);
        let place = BOUNDS_US.partition_point(|&bound| bound < us);
        *self.buckets.entry(BOUNDS_US.get(place).copied().unwrap_or(BEYOND_US)).or_default() += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds the counts of another value.
    pub fn add(&mut self, other: &Self) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        for (&bound, &count) in &other.buckets {
            *self.buckets.entry(bound).or_default() += count;
        }
    }

    /// The duration that `share` of the counted ones do not exceed, within 13.2 %: the geometric mean of its bucket's bounds. 1
    /// ms in the first bucket, and the last bound beyond it. `None` if nothing is counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rank beyond 2^53 is not told apart from its neighbour")]
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        for (&bound, &count) in &self.buckets {
            below += count;
            if below >= rank {
                return Some(middle(bound));
            }
        }
        None
    }
}

/// The duration that stands for a bucket.
fn middle(bound: u64) -> Duration {
    let (first, last) = (BOUNDS_US[0], BOUNDS_US[BOUNDS_US.len() - 1]);
    if bound <= first || bound > last {
        return Duration::from_micros(bound.clamp(first, last));
    }
    let lower = BOUNDS_US[BOUNDS_US.partition_point(|&other| other < bound) - 1];
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    Duration::from_secs_f64((lower as f64 * bound as f64).sqrt() / 1e6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_the_preferred_numbers_r10_from_a_millisecond_to_ten_million_seconds() {
        assert_eq!(BOUNDS_US[..11], [1000, 1250, 1600, 2000, 2500, 3150, 4000, 5000, 6300, 8000, 10_000]);
        assert_eq!(BOUNDS_US.last(), Some(&10_000_000_000_000));
        assert!(BOUNDS_US.is_sorted());
    }

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        for (us, bound) in [
            (0, 1000),
            (1000, 1000),
            (1001, 1250),
            (1250, 1250),
            (1251, 1600),
            (10_000_000_000_000, 10_000_000_000_000),
            (10_000_000_000_001, BEYOND_US),
        ] {
            let mut durations = Durations::default();
            durations.record(Duration::from_micros(us));
            assert_eq!(durations, Durations { sum_us: us, buckets: [(bound, 1)].into() });
        }
    }

    #[test]
    fn nothing_counted_has_no_quantile_and_extremes_have_the_outer_bounds() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        durations.record(Duration::from_micros(3));
        assert_eq!(durations.quantile(0.5), Some(Duration::from_millis(1)));
        durations.record(Duration::MAX);
        assert_eq!(durations.quantile(1.0), Some(Duration::from_secs(10_000_000)));
        assert_eq!(durations.quantile(0.0), Some(Duration::from_millis(1)));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_stated_error_of_the_sorted_list(
            mut list in proptest::collection::vec(1000_u64..10_000_000_000_000, 1..200),
            share in 0.0..=1.0_f64,
            cut in 0..200_usize,
        ) {
            let (mut durations, mut rest) = (Durations::default(), Durations::default());
            for (place, &us) in list.iter().enumerate() {
                if place < cut { &mut durations } else { &mut rest }.record(Duration::from_micros(us));
            }
            durations.add(&rest);
            list.sort_unstable();
            prop_assert_eq!((durations.count(), durations.sum_us), (list.len() as u64, list.iter().sum::<u64>()));
            let rank = ((list.len() as f64 * share).ceil() as usize).max(1);
            let exact = list[rank - 1] as f64 / 1e6;
            let found = durations.quantile(share).expect("something is counted").as_secs_f64();
            prop_assert!((found / exact - 1.0).abs() <= 0.132, "{} for {}", found, exact);
        }
    }
}
