//! Ranges of numbers and how they divide into tasks.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

/// The split unit: a task runs from `a` to `a + 2,500,000`, both included.
pub const DEFAULT_CHUNK_SIZE: NonZeroU64 = NonZeroU64::new(2_500_000).expect("2.5 million is not zero");

/// All numbers from `a` to `b`, both included, `0 ≤ a ≤ b ≤ 2^64−1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Ends")]
pub struct NumberRange {
    a: u64,
    b: u64,
}

/// The start lies above the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a must not be above b")]
pub struct InvalidRange;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    a: u64,
    b: u64,
}

impl NumberRange {
    /// The range from `a` to `b`.
    ///
    /// # Errors
    /// `a > b`.
    pub fn new(a: u64, b: u64) -> Result<Self, InvalidRange> {
        if a <= b { Ok(Self { a, b }) } else { Err(InvalidRange) }
    }

    /// The first number.
    #[must_use]
    pub fn a(self) -> u64 {
        self.a
    }

    /// The last number.
    #[must_use]
    pub fn b(self) -> u64 {
        self.b
    }

    /// Number of numbers in the range, 1 to 2^64.
    #[must_use]
    pub fn len(self) -> u128 {
        u128::from(self.b - self.a) + 1
    }

    /// Never: a range holds at least one number.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// The largest possible sum of numbers of the range: a bound for a plausible answer.
    #[must_use]
    pub fn max_sum(self) -> u128 {
        self.len().saturating_mul(u128::from(self.b))
    }
}

impl TryFrom<Ends> for NumberRange {
    type Error = InvalidRange;

    fn try_from(ends: Ends) -> Result<Self, Self::Error> {
        Self::new(ends.a, ends.b)
    }
}

impl From<NumberRange> for RangeInclusive<u64> {
    fn from(range: NumberRange) -> Self {
        range.a..=range.b
    }
}

impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.a, self.b)
    }
}

/// A range divided into tasks, numbered from 0. Memory does not grow with the number of tasks.
///
/// A task holds both its ends, so one of chunk size `c` has `c + 1` numbers: `[10, 3700000]` at 2,500,000 becomes
/// `[10, 2500010]` and `[2500011, 3700000]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    range: NumberRange,
    stride: u128,
}

impl Split {
    /// Divides `range` into tasks of `chunk_size`.
    #[must_use]
    pub fn new(range: NumberRange, chunk_size: NonZeroU64) -> Self {
        Self { range, stride: u128::from(chunk_size.get()) + 1 }
    }

    /// The divided range.
    #[must_use]
    pub fn range(self) -> NumberRange {
        self.range
    }

    /// Number of tasks: 1 to 2^63.
    #[must_use]
    pub fn tasks(self) -> u64 {
        u64::try_from(self.range.len().div_ceil(self.stride)).expect("a stride of at least 2 leaves at most 2^63 tasks")
    }

    /// The numbers of a run of consecutive tasks.
    ///
    /// # Panics
    /// If `tasks` is empty or passes the last task.
    #[must_use]
    pub fn numbers(self, tasks: &Range<u64>) -> NumberRange {
        assert!(tasks.start < tasks.end && tasks.end <= self.tasks(), "{tasks:?} is no run of {self:?}");
        let offset = |task: u64| u128::from(self.range.a) + u128::from(task) * self.stride;
        let narrow = |number: u128| u64::try_from(number).expect("within a range of u64");
        let last = (offset(tasks.end) - 1).min(u128::from(self.range.b));
        NumberRange { a: narrow(offset(tasks.start)), b: narrow(last) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(a: u64, b: u64, chunk_size: u64) -> Vec<(u64, u64)> {
        let range = NumberRange::new(a, b).expect("a <= b");
        let split = Split::new(range, NonZeroU64::new(chunk_size).expect("not zero"));
        (0..split.tasks()).map(|task| split.numbers(&(task..task + 1))).map(|part| (part.a, part.b)).collect()
    }

    #[test]
    fn the_worked_example_becomes_its_two_tasks() {
        assert_eq!(split(10, 3_700_000, 2_500_000), [(10, 2_500_010), (2_500_011, 3_700_000)]);
    }

    #[test]
    fn a_range_of_one_number_is_one_task_at_both_ends_of_u64() {
        assert_eq!(split(0, 0, 1), [(0, 0)]);
        assert_eq!(split(u64::MAX, u64::MAX, u64::MAX), [(u64::MAX, u64::MAX)]);
    }

    #[test]
    fn the_whole_of_u64_splits_without_overflow() {
        let whole = NumberRange::new(0, u64::MAX).expect("0 <= max");
        let finest = Split::new(whole, NonZeroU64::MIN);
        assert_eq!(finest.tasks(), 1 << 63);
        assert_eq!(finest.numbers(&(0..1 << 63)), whole);
        assert_eq!(Split::new(whole, NonZeroU64::MAX).tasks(), 1);
    }

    #[test]
    fn a_range_with_swapped_ends_is_refused_on_the_wire_too() {
        assert_eq!(NumberRange::new(2, 1), Err(InvalidRange));
        assert!(serde_json::from_str::<NumberRange>(r#"{"a":2,"b":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn tasks_cover_the_range_without_gap_or_overlap(a: u64, len in 0u64..5_000, chunk_size in 1u64..700) {
            let b = a.saturating_add(len);
            let parts = split(a, b, chunk_size);
            prop_assert_eq!(parts[0].0, a);
            prop_assert_eq!(parts[parts.len() - 1].1, b);
            prop_assert!(parts.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
            prop_assert!(parts.iter().all(|(first, last)| first <= last && last - first <= chunk_size));
        }
    }
}
