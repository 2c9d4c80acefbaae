//! Charts over time as SVG. Colors are placeholders that the style sheet replaces, so that one drawing suits light and dark.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

/// Placeholders: `style.css` names the same values.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const TONES: [RGBColor; 4] = [RGBColor(3, 3, 3), RGBColor(4, 4, 4), RGBColor(5, 5, 5), RGBColor(6, 6, 6)];

const SIZE: (u32, u32) = (520, 180);

/// Values over time, in the order of time.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Index of the series' color and dashes: 0 to 2, and 3 for failures.
    pub(crate) tone: usize,
    /// Places on the horizontal axis and the values there.
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy)]
pub(crate) struct VerticalAxis {
    /// Writes the label of a value.
    pub(crate) label: fn(f64) -> String,
    /// The unit for the highest value: the labels are round numbers of it.
    pub(crate) unit: fn(f64) -> f64,
    /// The least that it ends at.
    pub(crate) least_top: f64,
}

pub(crate) struct Chart<'a> {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The text alternative of the chart.
    pub(crate) summary: &'a str,
    /// The ends of the horizontal axis, about how many labels it has, and what they say.
    pub(crate) x: Range<f64>,
    pub(crate) x_labels: usize,
    pub(crate) x_label: &'a dyn Fn(f64) -> String,
    pub(crate) y: VerticalAxis,
    /// Points further apart than this are not joined.
    pub(crate) gap: f64,
    pub(crate) series: &'a [Series],
}

pub(crate) fn chart(chart: &Chart<'_>) -> Markup {
    let svg = draw(chart).map(|svg| fluid(&svg)).unwrap_or_default();
    let caption = format!("{}-caption", chart.id);
    html! {
        figure.chart id=(chart.id) {
            figcaption id=(caption) {
                strong { (chart.title) }
                @if chart.series.len() > 1 {
                    @for series in chart.series { span class=(format!("key tone-{}", series.tone)) { (series.name) } }
                }
            }
            div role="img" aria-label=(format!("{}: {}", chart.title, chart.summary)) { (PreEscaped(svg)) }
            p.summary { (chart.summary) }
        }
    }
}

/// A drawing takes the width of its place.
fn fluid(svg: &str) -> String {
    let body = svg.find('>').map_or("", |end| &svg[end + 1..]);
    let (width, height) = SIZE;
    format!("<svg viewBox=\"0 0 {width} {height}\" aria-hidden=\"true\">{body}")
}

fn draw(chart: &Chart<'_>) -> Result<String, Box<dyn std::error::Error>> {
    let highest = chart.series.iter().flat_map(|series| &series.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let highest = highest.max(chart.y.least_top);
    let unit = (chart.y.unit)(highest);
    let (top, steps) = round_top(highest / unit);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut plot = ChartBuilder::on(&area)
            .margin_top(10)
            .margin_right(18)
            .x_label_area_size(26)
            .y_label_area_size(label_width(chart, top * unit, steps))
            .build_cartesian_2d(chart.x.clone(), 0.0..top)?;
        let label = ("sans-serif", 15).into_font().color(&INK);
        plot.configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(GRID)
            .x_labels(chart.x_labels)
            .y_labels(steps + 1)
            .x_label_formatter(&|place: &f64| (chart.x_label)(*place))
            .y_label_formatter(&|value: &f64| (chart.y.label)((*value * unit * 1e6).round() / 1e6))
            .label_style(label)
            .draw()?;
        for series in chart.series {
            let color = TONES[series.tone % TONES.len()];
            for part in series.points.chunk_by(|one, next| next.0 - one.0 <= chart.gap) {
                let part: Vec<_> = part.iter().map(|(place, value)| (*place, value / unit)).collect();
                if chart.series.len() == 1 {
                    plot.draw_series(AreaSeries::new(part.clone(), 0.0, color.mix(0.14)))?;
                }
                // A line needs two points.
                if let [alone] = part[..] {
                    plot.draw_series([Circle::new(alone, 2, color.filled())])?;
                }
                plot.draw_series(LineSeries::new(part, color.stroke_width(2)))?;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

/// Room for the longest label of the vertical axis, also where a narrow page draws labels larger.
fn label_width(chart: &Chart<'_>, top: f64, steps: usize) -> u32 {
    #[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
    let labels = (0..=steps).map(|step| (chart.y.label)(top * step as f64 / steps as f64).chars().count());
    let longest = labels.max().unwrap_or(0).clamp(3, 12);
    u32::try_from(longest).unwrap_or(12) * 9 + 14
}

/// The unit of plain numbers.
pub(crate) fn ones(_: f64) -> f64 {
    1.0
}

/// The unit of seconds up to a value: seconds, minutes, hours or days.
pub(crate) fn unit_of_seconds(highest: f64) -> f64 {
    [86_400.0, 3_600.0, 60.0].into_iter().find(|unit| highest > *unit).unwrap_or(1.0)
}

/// A label of an axis that ends now.
pub(crate) fn minutes_ago(minutes: f64) -> String {
    let ago = -minutes.round();
    if ago == 0.0 { "now".to_owned() } else { format!("−{ago:.0} min") }
}

/// A round value at or above `highest` that seldom changes, and the lines below it.
fn round_top(highest: f64) -> (f64, usize) {
    if highest == 0.0 {
        return (1.0, 5);
    }
    let magnitude = 10f64.powf(highest.max(0.001).log10().floor());
    for (factor, steps) in [(1.0, 5), (2.0, 4), (5.0, 5), (10.0, 5)] {
        if highest <= factor * magnitude {
            return (factor * magnitude, steps);
        }
    }
    (10.0 * magnitude, 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vertical_axis_ends_at_a_round_value() {
        let tops = [1.0, 1.1, 4.0, 5.1, 99.0, 1_001.0].map(|highest| round_top(highest).0);
        assert_eq!(tops, [1.0, 2.0, 5.0, 10.0, 100.0, 2_000.0]);
        assert_eq!(round_top(0.0), (1.0, 5));
    }

    #[test]
    fn an_axis_of_times_has_round_ones() {
        let series = [Series { name: "p50", tone: 0, points: vec![(0.0, 354.0), (1.0, 2.0)] }];
        let times = Chart {
            id: "c",
            title: "Run time",
            summary: "",
            x: 0.0..1.0,
            x_labels: 2,
            x_label: &|_| String::new(),
            y: VerticalAxis {
                label: |seconds| crate::words::span(std::time::Duration::from_secs_f64(seconds)),
                unit: unit_of_seconds,
                least_top: 0.0,
            },
            gap: 2.0,
            series: &series,
        };
        let html = chart(&times).into_string();
        for label in ["10 min", "8 min", "6 min", "4 min", "2 min"] {
            assert!(html.lines().any(|line| line.trim() == label), "{label} in {html}");
        }
        assert_eq!([0.5, 60.0, 61.0, 3_601.0, 1e6].map(unit_of_seconds), [1.0, 1.0, 60.0, 3_600.0, 86_400.0]);
    }

    #[test]
    fn a_chart_has_its_axes_and_says_in_words_what_it_shows() {
        let series = [Series { name: "tasks", tone: 0, points: vec![(-10.0, 3.0), (-9.0, 7.0)] }];
        let figure = Chart {
            id: "c",
            title: "Rate",
            summary: "7 now",
            x: -60.0..0.0,
            x_labels: 5,
            x_label: &minutes_ago,
            y: VerticalAxis { label: crate::words::short, unit: ones, least_top: 0.0 },
            gap: 2.0,
            series: &series,
        };
        let html = chart(&figure).into_string();
        for part in ["aria-label=\"Rate: 7 now\"", "−60 min", "now", "viewBox=\"0 0 520 180\""] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("style="), "the page's policy refuses styles in elements");
    }
}
