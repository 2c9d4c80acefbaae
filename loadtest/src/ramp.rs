//! The search for the highest rate that keeps the limits: the next rate follows from the earlier ones' figures.

use crate::scenario::Ramp;

/// State of one search.
pub(crate) struct Search {
    ramp: Ramp,
    highest_kept_qps: Option<f64>,
    lowest_missed_qps: Option<f64>,
    halvings: u32,
}

impl Search {
    pub(crate) fn new(ramp: Ramp) -> Self {
        Self { ramp, highest_kept_qps: None, lowest_missed_qps: None, halvings: 0 }
    }

    /// The rate to try next, none when the search is over.
    pub(crate) fn next_rate_qps(&self) -> Option<f64> {
        match (self.highest_kept_qps, self.lowest_missed_qps) {
            (None, None) => Some(self.ramp.first_rate_qps),
            (None, Some(_)) => None,
            (Some(kept), None) => {
                (kept < self.ramp.last_rate_qps).then(|| (kept * self.ramp.rate_factor).min(self.ramp.last_rate_qps))
            }
            (Some(kept), Some(missed)) => (self.halvings < self.ramp.halvings).then_some(f64::midpoint(kept, missed)),
        }
    }

    /// Takes in whether `rate_qps`, the rate last asked for, kept the limits.
    pub(crate) fn record(&mut self, rate_qps: f64, kept: bool) {
        if self.lowest_missed_qps.is_some() {
            self.halvings += 1;
        }
        if kept {
            self.highest_kept_qps = Some(rate_qps);
        } else {
            self.lowest_missed_qps = Some(rate_qps);
        }
    }

    pub(crate) fn highest_kept_qps(&self) -> Option<f64> {
        self.highest_kept_qps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAMP: Ramp = Ramp {
        first_rate_qps: 10.0,
        rate_factor: 2.0,
        last_rate_qps: 100.0,
        halvings: 3,
        step_duration_s: 1.0,
        rate_floor_qps: 0.0,
    };

    fn tried(capacity_qps: f64) -> (Vec<f64>, Option<f64>) {
        let mut search = Search::new(RAMP);
        let mut rates = Vec::new();
        while let Some(rate) = search.next_rate_qps() {
            rates.push(rate);
            search.record(rate, rate <= capacity_qps);
        }
        (rates, search.highest_kept_qps())
    }

    #[test]
    fn a_search_doubles_and_then_halves_the_gap() {
        assert_eq!(tried(33.0), (vec![10.0, 20.0, 40.0, 30.0, 35.0, 32.5], Some(32.5)));
    }

    #[test]
    fn a_search_ends_at_the_last_rate() {
        assert_eq!(tried(1000.0), (vec![10.0, 20.0, 40.0, 80.0, 100.0], Some(100.0)));
    }

    #[test]
    fn a_search_that_misses_at_once_finds_nothing() {
        assert_eq!(tried(5.0), (vec![10.0], None));
    }
}
