//! The requests of a run, drawn from a seed, with their right answers.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::expected::prefix_sums;
use crate::scenario::RequestSpec;

/// A request and the right answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Request {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) sum: u128,
}

/// Draws requests; the same seed draws the same ones.
pub(crate) struct Planner {
    spec: RequestSpec,
    rng: ChaCha8Rng,
}

impl Planner {
    pub(crate) fn new(spec: RequestSpec, seed: u64) -> Self {
        Self { spec, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next `count` requests; none once `is_stopped` says so. Their answers are computed here, before the run, so that checking
    /// takes no CPU from it.
    pub(crate) fn draw(&mut self, count: usize, is_stopped: impl Fn() -> bool) -> Vec<Request> {
        let ranges: Vec<(u64, u64)> = (0..count)
            .map(|_| {
                let r = self.rng.random_range(0..=self.spec.r_max);
                (self.spec.a_step * r, self.spec.b_offset + self.spec.b_step * r)
            })
            .collect();
        let mut ends: Vec<u64> = ranges.iter().flat_map(|&(a, b)| [a.saturating_sub(1), b]).collect();
        ends.sort_unstable();
        ends.dedup();
        let Some(sums) = prefix_sums(&ends, is_stopped) else { return Vec::new() };
        let sum_to = |end: u64| sums[ends.binary_search(&end).expect("every end was put in")];
        ranges.into_iter().map(|(a, b)| Request { a, b, sum: sum_to(b) - sum_to(a.saturating_sub(1)) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::Algorithm;

    use super::*;

    const SPEC: RequestSpec = RequestSpec {
        r_max: 999,
        a_step: 10,
        b_offset: 20_000,
        b_step: 20,
        algorithm: Algorithm::Auto,
        timeout_ms: 1,
        outstanding_max: 1,
    };

    #[test]
    fn a_seed_repeats_its_requests_and_another_draws_others() {
        let draw = |seed| Planner::new(SPEC, seed).draw(50, || false);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn requests_follow_the_formula_and_carry_the_published_sum() {
        for Request { a, b, .. } in Planner::new(SPEC, 7).draw(200, || false) {
            assert!(a <= 9990 && a.is_multiple_of(10));
            assert_eq!(b, 20_000 + 2 * a);
        }
        let to_a_million = RequestSpec { r_max: 0, b_offset: 1_000_000, ..SPEC };
        let drawn = Planner::new(to_a_million, 0).draw(1, || false);
        assert_eq!(drawn, [Request { a: 0, b: 1_000_000, sum: 37_550_402_023 }]);
    }

    #[test]
    fn a_run_that_is_stopped_while_it_is_planned_has_no_requests() {
        assert!(Planner::new(SPEC, 7).draw(50, || true).is_empty());
    }
}
