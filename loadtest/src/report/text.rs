//! The summary on stdout.

use std::fmt::Write;
use std::path::Path;

use crate::measured::{LATE_AFTER, Measured};
use crate::report::figures::{Figure, figures, number};
use crate::report::{RampResult, Report};

/// The summary of a run, for a terminal.
pub(crate) fn summary(report: &Report, baseline: Option<&Report>, directory: &Path) -> String {
    let mut out = String::new();
    write_summary(&mut out, report, baseline, directory).expect("a String takes every write");
    out
}

fn write_summary(
    out: &mut String,
    report: &Report,
    baseline: Option<&Report>,
    directory: &Path,
) -> Result<(), std::fmt::Error> {
    let Measured { planned, sent, rate_qps, elapsed_s, .. } = &report.measured;
    writeln!(out, "{}: {}, seed {}", report.scenario.name, report.label, report.seed)?;
    if report.partial {
        writeln!(out, "PARTIAL: the run was interrupted, the figures are of what was sent until then")?;
    }
    if let Some(ramp) = &report.ramp {
        write_ramp(out, report, ramp)?;
    }
    writeln!(out, "{planned} requests at {} QPS, {sent} sent, over after {elapsed_s:.1} s", number(Some(*rate_qps)))?;
    writeln!(out, "latency from the intended send; a send is late after {} ms\n", LATE_AFTER.as_millis())?;
    write_rows(out, report, baseline)?;
    for (kind, count) in &report.measured.failed {
        writeln!(out, "  {:<24} {count:>14}", format!("failed, {kind}"))?;
    }
    for example in &report.measured.failure_examples {
        writeln!(out, "  {example}")?;
    }
    writeln!(out)?;
    for check in &report.checks {
        let verdict = if check.kept { "kept" } else { "MISSED" };
        writeln!(
            out,
            "  {verdict:<6} {} {}, measured {}",
            check.limit,
            number(Some(check.allowed)),
            number(check.measured)
        )?;
    }
    writeln!(out, "\n{}", directory.join("report.html").display())
}

fn write_rows(out: &mut String, report: &Report, baseline: Option<&Report>) -> std::fmt::Result {
    if let Some(baseline) = baseline {
        writeln!(out, "  the baseline is {}", baseline.label)?;
        writeln!(out, "  {:<24} {:>14} {:>14}", "", "this run", "baseline")?;
    }
    for Figure { name, value, .. } in figures(report) {
        write!(out, "  {:<24} {:>14}", name, number(value(report)))?;
        if let Some(baseline) = baseline {
            write!(out, " {:>14}", number(value(baseline)))?;
        }
        writeln!(out)?;
    }
    if baseline.is_some_and(|baseline| baseline.partial) {
        writeln!(out, "  The baseline was interrupted: its figures are of its beginning.")?;
    }
    if baseline.is_some_and(|baseline| !baseline.same_requests(report)) {
        writeln!(out, "  The baseline asked other requests or at another rate.")?;
    }
    Ok(())
}

fn write_ramp(out: &mut String, report: &Report, ramp: &RampResult) -> std::fmt::Result {
    for step in &ramp.steps {
        let verdict = match (step.kept, report.is_step_whole(step)) {
            (true, _) => "limits kept",
            (false, true) => "limits missed",
            (false, false) => "interrupted",
        };
        let p99 = number(step.measured.latency_ms.map(|latency| latency.p99));
        let failed = step.measured.failed_count() + step.measured.missed;
        writeln!(
            out,
            "  {:>8} QPS  p99 {p99:>8} ms  {failed:>5} failed  {verdict}",
            number(Some(step.measured.rate_qps))
        )?;
    }
    match ramp.highest_rate_qps {
        Some(rate) => {
            writeln!(out, "highest rate that keeps the limits: {} QPS, whose figures follow", number(Some(rate)))
        }
        None if report.partial => writeln!(out, "no rate was measured to its end; the figures of the first follow"),
        None => writeln!(out, "no rate kept the limits; the figures of the first follow"),
    }
}
