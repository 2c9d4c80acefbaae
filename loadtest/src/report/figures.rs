//! The figures that every output shows of a run.

use crate::measured::Latency;
use crate::report::Report;

/// A figure of a run.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: fn(&Report) -> Option<f64>,
    pub(crate) better: Better,
    /// Shown large at the top of the page.
    pub(crate) headline: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// Every figure that `report` has.
pub(crate) fn figures(report: &Report) -> impl Iterator<Item = &'static Figure> {
    RAMP_FIGURES.iter().filter(|_| report.ramp.is_some()).chain(&FIGURES)
}

const fn less(name: &'static str, headline: bool, value: fn(&Report) -> Option<f64>) -> Figure {
    Figure { name, value, better: Better::Less, headline }
}

const fn more(name: &'static str, headline: bool, value: fn(&Report) -> Option<f64>) -> Figure {
    Figure { name, value, better: Better::More, headline }
}

static RAMP_FIGURES: [Figure; 1] = [more("highest rate, QPS", true, |r| r.ramp.as_ref()?.highest_rate_qps)];

static FIGURES: [Figure; 9] = [
    less("p50, ms", true, |r| latency(r, |l| l.p50)),
    less("p90, ms", false, |r| latency(r, |l| l.p90)),
    less("p99, ms", true, |r| latency(r, |l| l.p99)),
    less("p99.9, ms", false, |r| latency(r, |l| l.p99_9)),
    less("max, ms", true, |r| latency(r, |l| l.max)),
    more("right answers/s", true, |r| Some(r.measured.throughput_qps)),
    less("failed requests", true, |r| Some(r.measured.failed_count() as f64)),
    less("missed sends", true, |r| Some(r.measured.missed as f64)),
    less("late sends", false, |r| Some(r.measured.late as f64)),
];

fn latency(report: &Report, pick: fn(&Latency) -> f64) -> Option<f64> {
    report.measured.latency_ms.as_ref().map(pick)
}

/// Three digits after the point below 1, none from 1000 on, a dash where there is nothing.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.fract() == 0.0 || value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 100.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}
