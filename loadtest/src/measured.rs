//! Figures of samples.
//!
//! Latencies count the right answers, and the requests that timed out with the time they waited; other failures are fast
//! and would flatter the percentiles, so they only count as failed.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::outcome::{FailureKind, RequestOutcome, Sample, WRONG_ANSWER};

/// A send that leaves later than this after its time is reported as late: the client is short of CPU.
pub(crate) const LATE_AFTER: Duration = Duration::from_millis(5);
/// Most time slices in a chart.
const SLICES_MAX: f64 = 60.0;
/// Failures told in full.
const EXAMPLES_MAX: usize = 10;
/// Points of the percentile curve from one nine to the next.
const POINTS_PER_NINE: u32 = 16;
/// One hour in microseconds, the longest distinct latency.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// The figures of one run at one rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) rate_qps: f64,
    /// To the end of the schedule or the last outcome, whichever is later.
    pub(crate) elapsed_s: f64,
    pub(crate) planned: u64,
    pub(crate) sent: u64,
    pub(crate) missed: u64,
    pub(crate) late: u64,
    pub(crate) late_max_ms: f64,
    pub(crate) correct: u64,
    /// Requests that left and failed, by kind.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Failed and missed requests as a share of the planned ones.
    pub(crate) failed_share: f64,
    /// Right answers per second.
    pub(crate) throughput_qps: f64,
    /// Absent when nothing was answered.
    pub(crate) latency_ms: Option<Latency>,
    pub(crate) percentiles: Vec<Percentile>,
    pub(crate) slices: Vec<Slice>,
    /// The first different failures in words.
    pub(crate) failure_examples: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

/// A point of the latency distribution.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Percentile {
    /// 0 to below 100.
    pub(crate) percentile: f64,
    pub(crate) latency_ms: f64,
}

/// A slice of the run's time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Middle of the slice, from the start of the run.
    pub(crate) at_s: f64,
    pub(crate) length_s: f64,
    /// Right answers a second that arrived in this slice.
    pub(crate) answered_qps: f64,
    /// Requests a second planned in this slice that were missed or failed.
    pub(crate) failed_qps: f64,
    /// Latencies of the requests planned in this slice.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

impl Measured {
    /// The figures of a run of `samples` at `rate_qps`.
    pub(crate) fn new(rate_qps: f64, samples: &[Sample]) -> Self {
        let planned = samples.len() as u64;
        let schedule_s = samples.len() as f64 / rate_qps;
        let elapsed_s = samples.iter().map(|s| (s.intended + s.latency).as_secs_f64()).fold(schedule_s, f64::max);
        let missed = samples.iter().filter(|s| s.outcome == RequestOutcome::Missed).count() as u64;
        let correct = samples.iter().filter(|s| s.outcome == RequestOutcome::Correct).count() as u64;
        let latencies = histogram(samples);
        Self {
            rate_qps,
            elapsed_s,
            planned,
            sent: planned - missed,
            missed,
            late: samples.iter().filter(|s| s.late > LATE_AFTER).count() as u64,
            late_max_ms: samples.iter().map(|s| s.late.as_secs_f64() * 1e3).fold(0.0, f64::max),
            correct,
            failed: failed_by_kind(samples),
            failed_share: (planned - correct) as f64 / planned.max(1) as f64,
            throughput_qps: if elapsed_s > 0.0 { correct as f64 / elapsed_s } else { 0.0 },
            latency_ms: latency(&latencies),
            percentiles: percentile_curve(&latencies),
            slices: slices(samples, rate_qps, elapsed_s),
            failure_examples: failure_examples(samples),
        }
    }

    /// Requests that left and did not get the right answer.
    pub(crate) fn failed_count(&self) -> u64 {
        self.failed.values().sum()
    }

    pub(crate) fn wrong_answers(&self) -> u64 {
        self.failed.get(WRONG_ANSWER).copied().unwrap_or(0)
    }
}

fn failures(samples: &[Sample]) -> impl Iterator<Item = (FailureKind, &str)> {
    samples.iter().filter_map(|sample| match &sample.outcome {
        RequestOutcome::Failed(failure) => Some((failure.kind, failure.detail.as_str())),
        RequestOutcome::Correct | RequestOutcome::Missed => None,
    })
}

fn failed_by_kind(samples: &[Sample]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (kind, _) in failures(samples) {
        *counts.entry(kind.to_string()).or_insert(0) += 1;
    }
    counts
}

fn failure_examples(samples: &[Sample]) -> Vec<String> {
    let mut examples = Vec::new();
    for (kind, detail) in failures(samples) {
        let example = format!("{kind}: {detail}");
        if examples.len() < EXAMPLES_MAX && !examples.contains(&example) {
            examples.push(example);
        }
    }
    examples
}

fn counts_as_latency(sample: &Sample) -> bool {
    match &sample.outcome {
        RequestOutcome::Correct => true,
        RequestOutcome::Failed(failure) => failure.kind == FailureKind::Timeout,
        RequestOutcome::Missed => false,
    }
}

fn histogram<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds and digits are in range");
    for sample in samples.into_iter().filter(|sample| counts_as_latency(sample)) {
        histogram.saturating_record(sample.latency.as_micros().try_into().unwrap_or(u64::MAX));
    }
    histogram
}

fn at_quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

fn latency(latencies: &Histogram<u64>) -> Option<Latency> {
    (!latencies.is_empty()).then(|| Latency {
        p50: at_quantile(latencies, 0.5),
        p90: at_quantile(latencies, 0.9),
        p99: at_quantile(latencies, 0.99),
        p99_9: at_quantile(latencies, 0.999),
        max: at_quantile(latencies, 1.0),
    })
}

/// Evenly spaced in the number of nines, up to the last one that as many answers can tell.
fn percentile_curve(latencies: &Histogram<u64>) -> Vec<Percentile> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let nines_max = (latencies.len() as f64).log10();
    let steps = (0..).map(|step| f64::from(step) / f64::from(POINTS_PER_NINE));
    let curve = steps.take_while(|&nines| nines < nines_max).map(|nines| {
        let quantile = 1.0 - 10f64.powf(-nines);
        Percentile { percentile: quantile * 100.0, latency_ms: at_quantile(latencies, quantile) }
    });
    let slowest = 100.0 * (1.0 - 10f64.powf(-nines_max));
    curve.chain([Percentile { percentile: slowest, latency_ms: at_quantile(latencies, 1.0) }]).collect()
}

/// Each slice spans the same whole number of sends; the last one also takes the rest.
fn slices(samples: &[Sample], rate_qps: f64, elapsed_s: f64) -> Vec<Slice> {
    // A run that was interrupted at once.
    if samples.is_empty() {
        return Vec::new();
    }
    let width_s = (elapsed_s * rate_qps / SLICES_MAX).ceil() / rate_qps;
    let count = ((elapsed_s / width_s) as usize).max(1);
    let index = |at: Duration| ((at.as_secs_f64() / width_s) as usize).min(count - 1);
    let mut planned: Vec<Vec<&Sample>> = vec![Vec::new(); count];
    let mut answered = vec![0u32; count];
    for sample in samples {
        planned[index(sample.intended)].push(sample);
        if sample.outcome == RequestOutcome::Correct {
            answered[index(sample.intended + sample.latency)] += 1;
        }
    }
    let slice = |(index, (planned, answered)): (usize, (Vec<&Sample>, u32))| {
        let start_s = index as f64 * width_s;
        let length_s = if index + 1 == count { elapsed_s - start_s } else { width_s };
        let failed = planned.iter().filter(|sample| sample.outcome != RequestOutcome::Correct).count();
        let latency = latency(&histogram(planned));
        Slice {
            at_s: start_s + length_s / 2.0,
            length_s,
            answered_qps: f64::from(answered) / length_s,
            failed_qps: failed as f64 / length_s,
            p50_ms: latency.map(|latency| latency.p50),
            max_ms: latency.map(|latency| latency.max),
        }
    };
    planned.into_iter().zip(answered).enumerate().map(slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    fn sample(index: u64, latency_ms: u64, outcome: RequestOutcome) -> Sample {
        let (intended, latency) = (Duration::from_millis(index), Duration::from_millis(latency_ms));
        Sample { intended, late: Duration::ZERO, latency, outcome }
    }

    fn failed(kind: FailureKind) -> RequestOutcome {
        RequestOutcome::Failed(Failure { kind, detail: "told".to_owned() })
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let samples: Vec<Sample> = (1..=1000).map(|i| sample(i, i, RequestOutcome::Correct)).collect();
        let latency = Measured::new(1000.0, &samples).latency_ms.expect("answers");
        for (measured, exact) in [
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p99_9, 999.0),
            (latency.max, 1000.0),
        ] {
            assert!((measured - exact).abs() <= exact / 1000.0, "{measured} for {exact}");
        }
    }

    #[test]
    fn fast_failures_do_not_flatter_the_latency_and_timeouts_do_not_hide() {
        let mut samples: Vec<Sample> = (0..90).map(|i| sample(i, 100, RequestOutcome::Correct)).collect();
        samples.extend((90..95).map(|i| sample(i, 0, failed(FailureKind::HttpStatus(503)))));
        samples.extend((95..98).map(|i| sample(i, 5000, failed(FailureKind::Timeout))));
        samples.extend((98..100).map(|i| sample(i, 0, RequestOutcome::Missed)));
        let measured = Measured::new(1000.0, &samples);
        let latency = measured.latency_ms.expect("answers");
        assert!((latency.p50 - 100.0).abs() < 0.2 && latency.p99 >= 4990.0, "{latency:?}");
        assert_eq!((measured.planned, measured.sent, measured.missed, measured.correct), (100, 98, 2, 90));
        assert_eq!(measured.failed, BTreeMap::from([("http_503".to_owned(), 5), ("timeout".to_owned(), 3)]));
        assert!((measured.failed_share - 0.1).abs() < 1e-9);
    }

    #[test]
    fn slices_add_up_to_the_run() {
        let samples: Vec<Sample> = (0..500).map(|i| sample(i, i / 5, RequestOutcome::Correct)).collect();
        let measured = Measured::new(1000.0, &samples);
        let total = |part: fn(&Slice) -> f64| measured.slices.iter().map(part).sum::<f64>();
        assert!(measured.slices.len() <= SLICES_MAX as usize);
        assert!((total(|slice| slice.length_s) - measured.elapsed_s).abs() < 1e-6);
        assert!((total(|slice| slice.answered_qps * slice.length_s) - 500.0).abs() < 1e-6);
    }

    #[test]
    fn a_run_without_answers_has_no_latency() {
        let measured = Measured::new(10.0, &[sample(0, 1, failed(FailureKind::Connect))]);
        assert!(measured.latency_ms.is_none() && measured.percentiles.is_empty());
    }
}
