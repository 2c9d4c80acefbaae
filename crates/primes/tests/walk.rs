//! Walks in steps of any length, with horizons that are right or wrong, against whole calls and a slow method.

mod reference;

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

use primes::{Level, Sieve, Stopped};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

static NEVER: AtomicBool = AtomicBool::new(false);

/// A number of any size up to `bits`.
fn magnitude(bits: u32) -> impl Strategy<Value = u64> {
    (any::<u64>(), 64 - bits..64).prop_map(|(n, shift)| n >> shift)
}

#[derive(Clone, Debug)]
struct Step {
    /// The numbers of the step, less one.
    len: u64,
    /// Distance of the horizon from the end of the step.
    reach: u64,
    /// First number of an unrelated call before the step, if there is one.
    foreign: Option<u64>,
    is_count: bool,
}

fn step(bits: u32) -> impl Strategy<Value = Step> {
    let reach = prop_oneof![Just(0), magnitude(bits + 2), magnitude(bits + 5)];
    (magnitude(bits), reach, option::weighted(0.1, magnitude(64)), any::<bool>())
        .prop_map(|(len, reach, foreign, is_count)| Step { len, reach, foreign, is_count })
}

/// Takes the steps from `first` on, as far as there are numbers, and holds each against a call of its own.
fn take(steps: &[Step], mut first: u64, level: Level) -> Result<(), TestCaseError> {
    let mut sieve = Sieve::with_level(level);
    for step in steps {
        if let Some(place) = step.foreign {
            let range = place..=place.saturating_add(100);
            prop_assert_eq!(sieve.sum(range.clone(), &NEVER), Ok(reference::sum(range)));
        }
        let last = first.saturating_add(step.len);
        let (range, horizon) = (first..=last, last.saturating_add(step.reach));
        if step.is_count {
            let count = sieve.count_towards(range.clone(), horizon, &NEVER);
            prop_assert_eq!(count, Ok(primes::count(range)), "{}..={}, {:?}", first, last, level);
        } else {
            let sum = sieve.sum_towards(range.clone(), horizon, &NEVER);
            prop_assert_eq!(sum, Ok(primes::sum(range)), "{}..={}, {:?}", first, last, level);
        }
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn steps_are_right_wherever_a_range_is_cut(first in magnitude(64), steps in vec(step(20), 1..20)) {
        for level in Level::ALL {
            take(&steps, first, level)?;
        }
    }

    #[test]
    fn steps_of_a_few_numbers_are_those_of_the_slow_method(
        first in magnitude(64),
        lens in vec(0..70u64, 1..30),
        reach in magnitude(24),
        level in prop::sample::select(&Level::ALL[..]),
    ) {
        let mut sieve = Sieve::with_level(level);
        let mut next = Some(first);
        for len in lens {
            let Some(first) = next else { break };
            let last = first.saturating_add(len);
            let sum = sieve.sum_towards(first..=last, first.saturating_add(reach), &NEVER);
            prop_assert_eq!(sum, Ok(reference::sum(first..=last)), "{}..={}", first, last);
            next = last.checked_add(1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn steps_over_many_segments_are_right(
        first in magnitude(58),
        steps in vec(step(26), 1..6),
        level in prop::sample::select(&Level::ALL[..]),
    ) {
        take(&steps, first, level)?;
    }

    #[test]
    fn walk_with_one_horizon_has_the_sum_of_the_whole(
        first in magnitude(64),
        lens in vec(magnitude(25), 1..12),
        level in prop::sample::select(&Level::ALL[..]),
    ) {
        let horizon = lens.iter().fold(first, |last, len| last.saturating_add(*len));
        let mut sieve = Sieve::with_level(level);
        let (mut sum, mut next) = (0, first);
        for len in &lens[1..] {
            let last = next.saturating_add(*len);
            if last < horizon {
                sum += sieve.sum_towards(next..=last, horizon, &NEVER).expect("nothing stops it");
                next = last + 1;
            }
        }
        sum += sieve.sum_towards(next..=horizon, horizon, &NEVER).expect("nothing stops it");
        prop_assert_eq!(sum, primes::sum(first..=horizon), "{}..={}, {:?}", first, horizon, level);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    /// A long walk is sieved by all primes; its steps alone are too short for that and are proven number by number.
    #[test]
    fn steps_of_a_long_walk_far_out_are_those_of_lone_calls(
        first in 1u64 << 53..1 << 59,
        lens in vec(magnitude(23), 1..8),
        level in prop::sample::select(&Level::ALL[..]),
    ) {
        let horizon = first + 3_000_000_000;
        let mut sieve = Sieve::with_level(level);
        let mut next = first;
        for len in lens {
            let step = next..=next + len;
            let sum = sieve.sum_towards(step.clone(), horizon, &NEVER);
            prop_assert_eq!(sum, Ok(primes::sum(step.clone())), "{:?}, {:?}", step, level);
            next += len + 1;
        }
    }
}

/// Divides `range` into steps whose lengths are those of `lens` in turn.
fn steps_of(range: RangeInclusive<u64>, lens: &[u64]) -> impl Iterator<Item = RangeInclusive<u64>> {
    let (mut first, end) = range.into_inner();
    let mut is_done = false;
    lens.iter().cycle().map_while(move |len| {
        let last = first.saturating_add(len - 1).min(end);
        let step = (!is_done).then_some(first..=last);
        is_done = last == end;
        first = last.saturating_add(1);
        step
    })
}

#[test]
fn walk_in_uneven_steps_has_the_published_sum() {
    for level in Level::ALL {
        for horizon in [100_000_000, 1 << 40, u64::MAX] {
            let mut sieve = Sieve::with_level(level);
            let steps = steps_of(0..=100_000_000, &[1, 30, 2_500_001, 29, 2_949_120, 7, 5_000_011]);
            let sum: u128 = steps.map(|step| sieve.sum_towards(step, horizon, &NEVER).expect("nothing stops it")).sum();
            assert_eq!(sum, 279_209_790_387_276, "{level:?} towards {horizon}");
        }
    }
}

/// Counts by primesieve 12.16, which shares no code with this crate.
#[test]
fn walks_far_out_have_the_counts_of_primesieve() {
    let far: [(RangeInclusive<u64>, u64); 4] = [
        (1_000_000_000_000..=1_000_000_000_000 + 100_000_000, 3_618_282),
        (1_000_000_000_000_000..=1_000_000_000_000_000 + 200_000_000, 5_788_545),
        (1_000_000_000_000_000_000..=1_000_000_000_000_000_000 + 2_500_000, 60_592),
        (u64::MAX - 1_000_000..=u64::MAX, 22_475),
    ];
    for (range, published) in far {
        for level in Level::ALL {
            let end = *range.end();
            for horizon in [end, end.saturating_add(2_500_000_000)] {
                let mut sieve = Sieve::with_level(level);
                let steps = steps_of(range.clone(), &[250_001, 17, 10_000_019]);
                let count: u64 =
                    steps.map(|step| sieve.count_towards(step, horizon, &NEVER).expect("nothing stops it")).sum();
                assert_eq!(count, published, "{range:?} towards {horizon}, {level:?}");
            }
        }
    }
}

#[test]
fn range_is_taken_up_to_its_end_if_the_horizon_is_inside() {
    let mut sieve = Sieve::new();
    assert_eq!(sieve.sum_towards(1..=100, 0, &NEVER), Ok(1060));
    assert_eq!(sieve.count_towards(101..=1_000_000, 500, &NEVER), Ok(78_498 - 25));
}

#[test]
fn horizon_may_come_near_and_go_far_again() {
    const SEGMENTS: u64 = 2 * 30 * (1 << 20);
    for level in Level::ALL {
        for start in [0, 1_000_000_007, 1_000_000_000_000, 1_000_000_000_000_000] {
            let far = start + 8 * SEGMENTS;
            let [a, b, c] = [start + 100, start + SEGMENTS + 1_234_567, start + 2 * SEGMENTS];
            let mut sieve = Sieve::with_level(level);
            let steps = [(start..=a, far), (a + 1..=b, b + 777), (b + 1..=b + 500, far), (b + 501..=c, far)];
            let count: u64 = steps
                .map(|(step, horizon)| sieve.count_towards(step, horizon, &NEVER).expect("nothing stops it"))
                .iter()
                .sum();
            assert_eq!(count, primes::count(start..=c), "{start}, {level:?}");
        }
    }
}

#[test]
fn walk_goes_on_exactly_after_a_stop() {
    let (start, horizon) = (1_000_000_000_000_000, 1_000_000_300_000_000);
    for stop_at in [start + 1_000_001, start + 50_000_000] {
        let mut sieve = Sieve::new();
        let before = sieve.count_towards(start..=stop_at, horizon, &NEVER).expect("nothing stops it");
        assert_eq!(sieve.count_towards(stop_at + 1..=horizon, horizon, &AtomicBool::new(true)), Err(Stopped));
        let behind = sieve.count_towards(stop_at + 1..=start + 200_000_000, horizon, &NEVER);
        assert_eq!(behind.map(|behind| before + behind), Ok(5_788_545));
    }
}

#[test]
fn step_may_repeat_or_go_back() {
    let mut sieve = Sieve::new();
    for range in [0..=1000, 0..=1000, 1001..=5000, 900..=1000, 1001..=5000, 5000..=5000, 5001..=5003, 5003..=5003] {
        assert_eq!(sieve.sum_towards(range.clone(), 1 << 33, &NEVER), Ok(reference::sum(range.clone())), "{range:?}");
    }
}
