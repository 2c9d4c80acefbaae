//! Charts of the report: latency over time, latency by percentile, rates, and the ramp.

use maud::{Markup, html};

use crate::measured::{Measured, Slice};
use crate::report::chart::{Axis, Layer, Point, chart};
use crate::report::figures::number;
use crate::report::{RampResult, Report};

/// A run and the color class it has on the page.
type Series<'a> = (&'static str, &'a Measured);

/// The charts of one rate, with the baseline's beside it.
pub(crate) fn at_one_rate(run: &Report, baseline: Option<&Report>) -> Markup {
    let mut series: Vec<Series<'_>> = vec![("run", &run.measured)];
    series.extend(baseline.map(|baseline| ("base", &baseline.measured)));
    let key = |words: &str| key(words, run, baseline);
    html! {
        @if run.measured.latency_ms.is_some() {
            figure {
                figcaption { h2 { "Latency over time" } (key("line: median, shade: up to the slowest")) }
                (over_time(&series))
            }
            figure {
                figcaption { h2 { "Latency by percentile" } (key("share of the requests that were at least as fast")) }
                (by_percentile(&series))
            }
        }
        figure {
            figcaption {
                h2 { "Rate" }
                (key("right answers"))
                span.key.plan { "planned" }
                @if series.iter().any(|(_, m)| m.failed_share > 0.0) { span.key.fail { "failed or missed" } }
            }
            (rates(&series))
        }
    }
}

/// p99 against the rate of each step.
pub(crate) fn ramp(found: &str, run: &Report, ramp: &RampResult, baseline: Option<&Report>) -> Markup {
    let limit = run.scenario.limits.p99_limit_ms;
    let mut series = vec![("run", ramp)];
    series.extend(baseline.and_then(|baseline| baseline.ramp.as_ref()).map(|ramp| ("base", ramp)));
    let points = |ramp: &RampResult, missed_only: bool| -> Vec<Point> {
        let steps = ramp.steps.iter().filter(|step| !(missed_only && step.kept));
        let mut points: Vec<Point> = steps.filter_map(|step| rate_point(&step.measured)).collect();
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
        points
    };
    let all: Vec<Point> = series.iter().flat_map(|(_, ramp)| points(ramp, false)).collect();
    let (rate_low, rate_high) = bounds(all.iter().map(|point| point.x));
    let (low, high) = bounds(all.iter().map(|point| point.y).chain([limit]));
    let mut layers = Vec::new();
    for (class, ramp) in series {
        layers.push(Layer::Line { class, points: points(ramp, false) });
        layers.push(Layer::Dots { class, points: points(ramp, false) });
        layers.push(Layer::Dots { class: "fail", points: points(ramp, true) });
    }
    layers.push(Layer::Rule { y: limit, label: format!("limit {limit} ms") });
    let (x, y) = (Axis::log("rate, QPS", rate_low, rate_high), Axis::log("p99, ms", low, high));
    html! {
        figure {
            figcaption { h2 { (found) } (key("p99 of each step", run, baseline)) span.key.fail { "limits missed" } }
            (chart("p99 latency against the rate", &x, &y, &layers))
        }
    }
}

fn rate_point(measured: &Measured) -> Option<Point> {
    let p99 = measured.latency_ms?.p99;
    let tip = format!("{} QPS: p99 {} ms", number(Some(measured.rate_qps)), number(Some(p99)));
    Some(Point { x: measured.rate_qps, y: p99, tip })
}

fn key(words: &str, run: &Report, baseline: Option<&Report>) -> Markup {
    html! {
        @if let Some(baseline) = baseline {
            span.key.run { (run.label) } span.key.base { (baseline.label) } span.words { (words) }
        } @else {
            span.key.run { (words) }
        }
    }
}

fn over_time(series: &[Series<'_>]) -> Markup {
    let (low, _) = bounds(slices(series).filter_map(|slice| slice.p50_ms));
    let (_, high) = bounds(slices(series).filter_map(|slice| slice.max_ms));
    let layers: Vec<Layer> = series.iter().flat_map(|(class, measured)| latency_layers(class, measured)).collect();
    let (x, y) = (time_axis(series), Axis::log("latency, ms", low, high));
    chart("Median and slowest latency over the time of the run", &x, &y, &layers)
}

fn latency_layers(class: &'static str, measured: &Measured) -> [Layer; 2] {
    let known = || measured.slices.iter().filter_map(|slice| Some((slice.at_s, slice.p50_ms?, slice.max_ms?)));
    let point = |(x, y, max)| {
        let tip = format!("{x:.1} s: median {} ms, slowest {} ms", number(Some(y)), number(Some(max)));
        Point { x, y, tip }
    };
    [Layer::Band { class, points: known().collect() }, Layer::Line { class, points: known().map(point).collect() }]
}

fn by_percentile(series: &[Series<'_>]) -> Markup {
    let all = || series.iter().flat_map(|(_, measured)| &measured.percentiles);
    let (low, high) = bounds(all().map(|point| point.latency_ms));
    let (_, percentile_high) = bounds(all().map(|point| point.percentile));
    let line = |(class, measured): &Series<'_>| {
        let points = measured.percentiles.iter().map(|point| {
            let tip = format!("{:.4} %: {} ms", point.percentile, number(Some(point.latency_ms)));
            Point { x: point.percentile, y: point.latency_ms, tip }
        });
        Layer::Line { class, points: points.collect() }
    };
    let layers: Vec<Layer> = series.iter().map(line).collect();
    let (x, y) = (Axis::percentiles("percentile", percentile_high), Axis::log("latency, ms", low, high));
    chart("Latency by percentile", &x, &y, &layers)
}

fn rates(series: &[Series<'_>]) -> Markup {
    let line = |class, measured: &Measured, words: &str, rate: fn(&Slice) -> f64| {
        let points = measured.slices.iter().map(|slice| {
            let tip = format!("{:.1} s: {} {words} a second", slice.at_s, number(Some(rate(slice))));
            Point { x: slice.at_s, y: rate(slice), tip }
        });
        Layer::Line { class, points: points.collect() }
    };
    let mut layers = Vec::new();
    for (class, measured) in series {
        layers.push(plan(measured));
        layers.push(line(class, measured, "right answers", |slice| slice.answered_qps));
        if measured.failed_share > 0.0 {
            layers.push(line("fail", measured, "failed or missed", |slice| slice.failed_qps));
        }
    }
    let planned = series.iter().map(|(_, measured)| measured.rate_qps);
    let (_, high) = bounds(slices(series).map(|slice| slice.answered_qps.max(slice.failed_qps)).chain(planned));
    let (x, y) = (time_axis(series), Axis::linear("requests a second", high));
    chart("Planned and answered requests a second over the time of the run", &x, &y, &layers)
}

fn plan(measured: &Measured) -> Layer {
    let (y, end_s) = (measured.rate_qps, measured.planned as f64 / measured.rate_qps);
    let points = [0.0, end_s].map(|x| Point { x, y, tip: format!("{} planned a second", number(Some(y))) });
    Layer::Line { class: "plan", points: points.into() }
}

fn time_axis(series: &[Series<'_>]) -> Axis {
    let (_, high) = bounds(series.iter().map(|(_, measured)| measured.elapsed_s));
    Axis::span("time since the start, s", high)
}

fn slices<'a>(series: &'a [Series<'_>]) -> impl Iterator<Item = &'a Slice> {
    series.iter().flat_map(|(_, measured)| &measured.slices)
}

/// Smallest and largest value, 1 and 1 where there is none.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .map(|value| (value, value))
        .reduce(|(low, high), (value, _)| (low.min(value), high.max(value)))
        .unwrap_or((1.0, 1.0))
}
