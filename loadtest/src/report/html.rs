//! The report as one page that needs nothing but itself.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::check::Check;
use crate::measured::{LATE_AFTER, Measured};
use crate::report::figures::{Better, Figure, figures, number};
use crate::report::plots;
use crate::report::{RampResult, Report};
use crate::scenario::Load;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(run: &Report, baseline: Option<&Report>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (run.scenario.name) " · " (run.label) " · load test" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (heading(run, baseline))
                    (tiles(run, baseline))
                    @if let Some(ramp) = &run.ramp { (steps(run, ramp, baseline)) }
                    (plots::at_one_rate(run, baseline))
                    (comparison(run, baseline))
                    @if !run.checks.is_empty() { (limits(&run.checks)) }
                    (failures(&run.measured))
                    (conditions(run, baseline))
                }
            }
        }
    };
    page.into_string()
}

fn heading(run: &Report, baseline: Option<&Report>) -> Markup {
    let (class, verdict) = match (run.partial, run.passed) {
        (true, _) => ("bad", "Partial: interrupted before its end"),
        (false, true) => ("good", "All limits kept"),
        (false, false) => ("bad", "Limit missed"),
    };
    html! {
        header {
            p.kind { "Load test · " (run.scenario.name) }
            h1 { (run.scenario.title) }
            p.runs {
                span.key.run { (run.label) }
                @if let Some(baseline) = baseline { span { "against" } span.key.base { (baseline.label) } }
            }
            p { span.verdict.(class) { (verdict) } }
            @if baseline.is_some_and(|baseline| baseline.partial) {
                p.warning { "The baseline was interrupted: its figures are of its beginning." }
            }
            @if baseline.is_some_and(|baseline| !run.same_requests(baseline)) {
                p.warning { "The baseline asked other requests or at another rate: compare with care." }
            }
        }
    }
}

fn tiles(run: &Report, baseline: Option<&Report>) -> Markup {
    let tile = |figure: &Figure| {
        let value = (figure.value)(run);
        let earlier = baseline.map(|baseline| (figure.value)(baseline));
        html! {
            div.tile {
                span.name { (figure.name) }
                span.value { (number(value)) }
                @if let Some(earlier) = earlier { span.earlier { "baseline " (number(earlier)) } }
            }
        }
    };
    html! { section.tiles { @for figure in figures(run).filter(|figure| figure.headline) { (tile(figure)) } } }
}

fn steps(run: &Report, ramp: &RampResult, baseline: Option<&Report>) -> Markup {
    let found = match ramp.highest_rate_qps {
        Some(rate) => format!("Highest rate that keeps the limits: {} QPS", number(Some(rate))),
        None if run.partial => "No rate was measured to its end".to_owned(),
        None => "No rate kept the limits".to_owned(),
    };
    html! {
        (plots::ramp(&found, run, ramp, baseline))
        section {
            h2 { "Steps in the order they were tried" }
            table {
                thead { tr { th { "rate, QPS" } th { "p50, ms" } th { "p99, ms" } th { "answers/s" } th { "failed or missed" } th { "limits" } } }
                tbody {
                    @for step in &ramp.steps {
                        @let m = &step.measured;
                        tr {
                            td { (number(Some(m.rate_qps))) }
                            td { (number(m.latency_ms.map(|l| l.p50))) }
                            td { (number(m.latency_ms.map(|l| l.p99))) }
                            td { (number(Some(m.throughput_qps))) }
                            td { (m.planned - m.correct) }
                            td { @if run.is_step_whole(step) { (kept(step.kept)) } @else { "interrupted" } }
                        }
                    }
                }
            }
            p.note {
                "The figures below are those of " (number(Some(run.measured.rate_qps))) " QPS"
                @if let Some(baseline) = baseline {
                    ", the baseline's those of " (number(Some(baseline.measured.rate_qps))) " QPS"
                }
                "."
            }
        }
    }
}

fn comparison(run: &Report, baseline: Option<&Report>) -> Markup {
    html! {
        section {
            h2 { "Figures" }
            table {
                @if let Some(baseline) = baseline {
                    thead {
                        tr {
                            th { "" }
                            th { span.key.run { (run.label) } }
                            th { span.key.base { (baseline.label) } }
                            th { "change" }
                        }
                    }
                }
                tbody {
                    @for figure in figures(run) {
                        @let value = (figure.value)(run);
                        tr {
                            th scope="row" { (figure.name) }
                            td { (number(value)) }
                            @if let Some(baseline) = baseline {
                                @let earlier = (figure.value)(baseline);
                                td { (number(earlier)) }
                                td { (change(figure, value, earlier)) }
                            }
                        }
                    }
                }
            }
            p.note {
                "Latency counts from the time a request was meant to leave. A send is late after " (LATE_AFTER.as_millis())
                " ms and missed when " (run.scenario.request.outstanding_max) " requests are still without an answer."
            }
        }
    }
}

/// The change of a figure against the baseline, colored by whether it is better.
fn change(figure: &Figure, value: Option<f64>, earlier: Option<f64>) -> Markup {
    let (Some(value), Some(earlier)) = (value, earlier) else {
        return html! { "–" };
    };
    let ratio = value / earlier;
    if value == earlier || (ratio - 1.0).abs() < 0.005 {
        return html! { "same" };
    }
    let better = (value < earlier) == (figure.better == Better::Less);
    let moved = match ratio {
        ratio if !ratio.is_finite() => format!("+{}", number(Some(value))),
        ratio if ratio >= 10.0 => format!("× {ratio:.0}"),
        ratio if ratio > 1.0 => format!("+{:.0} %", (ratio - 1.0) * 100.0),
        ratio => format!("−{:.0} %", (1.0 - ratio) * 100.0),
    };
    html! { span.(if better { "good" } else { "bad" }) { (moved) } }
}

fn limits(checks: &[Check]) -> Markup {
    html! {
        section {
            h2 { "Limits" }
            table {
                thead { tr { th { "" } th { "allowed" } th { "measured" } th { "" } } }
                tbody {
                    @for check in checks {
                        tr {
                            th scope="row" { code { (check.limit) } }
                            td { (number(Some(check.allowed))) }
                            td { (number(check.measured)) }
                            td { (kept(check.kept)) }
                        }
                    }
                }
            }
        }
    }
}

fn kept(kept: bool) -> Markup {
    html! { @if kept { span.good { "kept" } } @else { span.bad { "missed" } } }
}

fn failures(measured: &Measured) -> Markup {
    html! {
        @if !measured.failed.is_empty() {
            section {
                h2 { "Failures" }
                table {
                    thead { tr { th { "kind" } th { "requests" } } }
                    tbody { @for (kind, count) in &measured.failed { tr { th scope="row" { code { (kind) } } td { (count) } } } }
                }
                ul.examples { @for example in &measured.failure_examples { li { (example) } } }
            }
        }
    }
}

fn conditions(run: &Report, baseline: Option<&Report>) -> Markup {
    let runs = [Some(run), baseline];
    html! {
        section {
            h2 { "Conditions" }
            @for (run, class) in runs.into_iter().flatten().zip(["run", "base"]) {
                h3 { span class=(format!("key {class}")) { (run.label) } }
                dl {
                    dt { "Started" } dd { (run.started_at) }
                    dt { "Command" } dd { code { (run.command) } }
                    dt { "Machine" } dd { (run.machine) }
                    dt { "Targets" } dd { (run.urls.join(", ")) }
                    dt { "Load" } dd { (load(&run.scenario.load)) ", seed " (run.seed) }
                    dt { "Requests" } dd { (requests(run)) }
                }
            }
        }
    }
}

fn load(load: &Load) -> String {
    match load {
        Load::Steady(steady) => format!("{} QPS for {} s", steady.rate_qps, steady.duration_s),
        Load::Ramp(ramp) => format!(
            "{} to {} QPS by a factor of {}, {} s each",
            ramp.first_rate_qps, ramp.last_rate_qps, ramp.rate_factor, ramp.step_duration_s
        ),
    }
}

fn requests(run: &Report) -> String {
    let spec = run.scenario.request;
    format!(
        "a = {} r, b = {} + {} r, r uniform in 0 to {}, algorithm {}",
        spec.a_step, spec.b_offset, spec.b_step, spec.r_max, spec.algorithm
    )
}
