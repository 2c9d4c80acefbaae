//! Line charts as inline SVG: two axes, and lines, bands and limits on them. Colors come from the page's style sheet.

use maud::{Markup, html};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// An axis: the scale from values to its length, and the places of its labels.
pub(crate) struct Axis {
    title: &'static str,
    scale: fn(f64) -> f64,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

/// A layer of a chart; `class` names its color in the style sheet.
pub(crate) enum Layer {
    Line {
        class: &'static str,
        points: Vec<Point>,
    },
    /// The area between two lines over the same positions.
    Band {
        class: &'static str,
        points: Vec<(f64, f64, f64)>,
    },
    /// Marks without a line.
    Dots {
        class: &'static str,
        points: Vec<Point>,
    },
    /// A limit across the whole chart.
    Rule {
        y: f64,
        label: String,
    },
}

/// A point with the words shown when it is pointed at.
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) tip: String,
}

impl Axis {
    /// Zero to a round number at or above `high`.
    pub(crate) fn linear(title: &'static str, high: f64) -> Self {
        let step = round_step(high, 5.0);
        Self::even(title, (high / step - 1e-9).ceil().max(1.0) * step, step)
    }

    /// Zero to `high` itself.
    pub(crate) fn span(title: &'static str, high: f64) -> Self {
        Self::even(title, high, round_step(high, 10.0))
    }

    fn even(title: &'static str, high: f64, step: f64) -> Self {
        let ticks = (0..=(high / step + 1e-9) as u32).map(|i| f64::from(i) * step);
        Self { title, scale: |value| value, low: 0.0, high, ticks: ticks.map(|tick| (tick, label(tick))).collect() }
    }

    /// Logarithmic, from the 1, 2 or 5 at or below `low` to the one at or above `high`.
    pub(crate) fn log(title: &'static str, low: f64, high: f64) -> Self {
        let (low, high) = (low.max(1e-3), high.max(low).max(1e-3));
        let steps: Vec<f64> = (-4..=9).flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power))).collect();
        let first = steps.iter().rposition(|&step| step <= low * 1.000_001).unwrap_or(0);
        let last = steps.iter().position(|&step| step >= high * 0.999_999).unwrap_or(steps.len() - 1).max(first + 1);
        let shown = &steps[first..=last];
        let crowded = shown.len() > 10;
        let ticks = shown.iter().filter(|&&step| !crowded || step.log10().fract().abs() < 1e-9);
        let ticks = ticks.map(|&step| (step, label(step))).collect();
        Self { title, scale: f64::log10, low: steps[first], high: steps[last], ticks }
    }

    /// Percentiles spread by their nines: 50, 90, 99, 99.9 … up to `high` percent.
    pub(crate) fn percentiles(title: &'static str, high: f64) -> Self {
        let ticks: Vec<(f64, String)> = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
            .into_iter()
            .filter(|&tick| tick <= high + 1e-9)
            .map(|tick| (tick, tick.to_string()))
            .collect();
        Self { title, scale: nines, low: 0.0, high: high.max(50.0), ticks }
    }

    /// The place of `value` on the axis, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let at = self.scale;
        let share = (at(value.clamp(self.low, self.high)) - at(self.low)) / (at(self.high) - at(self.low));
        if share.is_finite() { share } else { 0.0 }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The smallest 1, 2 or 5 times a power of ten that divides `length` into at most `parts`.
fn round_step(length: f64, parts: f64) -> f64 {
    let least = (length / parts).max(1e-6);
    let magnitude = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|&step| step >= least * 0.999_999).unwrap_or(least)
}

fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

fn label(tick: f64) -> String {
    let rounded = (tick * 1e4).round() / 1e4;
    if rounded >= 1e4 { format!("{}k", rounded / 1e3) } else { rounded.to_string() }
}

/// The whole chart; `summary` is its text alternative.
pub(crate) fn chart(summary: &str, x: &Axis, y: &Axis, layers: &[Layer]) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(summary) {
            (grid(x, y))
            @for layer in layers { (draw(layer, x, y)) }
        }
    }
}

fn grid(x: &Axis, y: &Axis) -> Markup {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    html! {
        @for (tick, label) in &y.ticks {
            @let at = y.y(*tick);
            line.grid x1=(LEFT) x2=(right) y1=(px(at)) y2=(px(at)) {}
            text.tick x=(LEFT - 8.0) y=(px(at + 4.0)) text-anchor="end" { (label) }
        }
        @for (tick, label) in &x.ticks {
            @let at = x.x(*tick);
            line.tickmark x1=(px(at)) x2=(px(at)) y1=(bottom) y2=(bottom + 5.0) {}
            text.tick x=(px(at)) y=(bottom + 19.0) text-anchor="middle" { (label) }
        }
        line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
        text.title x=((LEFT + right) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (x.title) }
        text.title transform=(format!("translate(13 {}) rotate(-90)", f64::midpoint(TOP, bottom))) text-anchor="middle" {
            (y.title)
        }
    }
}

fn draw(layer: &Layer, x: &Axis, y: &Axis) -> Markup {
    match layer {
        Layer::Line { class, points } => html! {
            path class=(format!("line {class}")) d=(path(points.iter().map(|p| (x.x(p.x), y.y(p.y))))) {}
            (marks("hover", class, points, x, y))
        },
        Layer::Band { class, points } => {
            let there = points.iter().map(|&(at, low, _)| (x.x(at), y.y(low)));
            let back = points.iter().rev().map(|&(at, _, high)| (x.x(at), y.y(high)));
            html! { path class=(format!("band {class}")) d=(path(there.chain(back))) {} }
        }
        Layer::Dots { class, points } => marks("dot", class, points, x, y),
        Layer::Rule { y: value, label } => {
            let at = px(y.y(*value));
            html! {
                line.limit x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at) y2=(at) {}
                text.limit x=(LEFT + 8.0) y=(px(y.y(*value) - 6.0)) { (label) }
            }
        }
    }
}

fn marks(kind: &str, class: &str, points: &[Point], x: &Axis, y: &Axis) -> Markup {
    html! {
        @for point in points {
            circle class=(format!("{kind} {class}")) cx=(px(x.x(point.x))) cy=(px(y.y(point.y))) r="5" {
                title { (point.tip) }
            }
        }
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut commands = String::new();
    for (x, y) in points {
        commands.push(if commands.is_empty() { 'M' } else { 'L' });
        commands.push_str(&format!("{} {}", px(x), px(y)));
    }
    commands
}

/// A tenth of a pixel is finer than the eye.
fn px(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<f64> {
        axis.ticks.iter().map(|&(tick, _)| tick).collect()
    }

    #[test]
    fn linear_axes_end_at_a_round_number_above_the_data() {
        assert_eq!(ticks(&Axis::linear("", 15.4)), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(ticks(&Axis::linear("", 100.0)), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    }

    #[test]
    fn log_axes_enclose_the_data_and_stay_readable() {
        assert_eq!(ticks(&Axis::log("", 3.0, 70.0)), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(ticks(&Axis::log("", 1.0, 9000.0)), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(ticks(&Axis::log("", 5.0, 5.0)).len(), 2);
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let axis = Axis::percentiles("", 99.9);
        let (two, three) = (axis.x(99.0) - axis.x(90.0), axis.x(99.9) - axis.x(99.0));
        assert!((two - three).abs() < 1e-6);
    }
}
