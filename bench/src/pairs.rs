//! Figures of pairs of measurements.

use std::time::Duration;

/// Two things timed in turn; the first pair only warms up.
#[derive(Debug)]
pub(crate) struct Pairs(Vec<(Duration, Duration)>);

impl Pairs {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, one: Duration, other: Duration) {
        self.0.push((one, other));
    }

    /// Medians of both sides in ms, and the median, least and greatest of the pairs' ratios.
    pub(crate) fn ratio_cells(&self) -> String {
        let counted = if self.0.len() > 1 { &self.0[1..] } else { &self.0[..] };
        let side = |pick: fn(&(Duration, Duration)) -> Duration| {
            quantile(&mut counted.iter().map(|pair| pick(pair).as_secs_f64() * 1e3).collect::<Vec<_>>(), 0.5)
        };
        let mut ratios: Vec<_> = counted.iter().map(|(one, other)| one.as_secs_f64() / other.as_secs_f64()).collect();
        let median = quantile(&mut ratios, 0.5);
        let (least, greatest) = (quantile(&mut ratios, 0.0), quantile(&mut ratios, 1.0));
        let (one, other) = (side(|pair| pair.0), side(|pair| pair.1));
        format!("{one:.1} | {other:.1} | {median:.3} ({least:.3} to {greatest:.3})")
    }
}

/// Median and 99th percentile in µs.
pub(crate) fn percentile_cells(seconds: &mut [f64]) -> String {
    format!("{:.0} | {:.0}", quantile(seconds, 0.5) * 1e6, quantile(seconds, 0.99) * 1e6)
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let index = ((values.len() - 1) as f64 * share).round() as usize;
    values[index]
}
