//! Statistics by minute, hour, day, week or month, as charts and as tables.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};
use model::{Counts, Durations, Grain, JobKind};

use crate::chart::{Chart, Series, VerticalAxis, chart, ones, unit_of_seconds};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::words::{count, counted, short, span};

/// The figures of one period.
#[derive(Clone, Debug)]
pub struct Period {
    /// Start of the period.
    pub start: Timestamp,
    /// Counts of the period.
    pub counts: Counts,
}

/// Figures over some time.
#[derive(Debug)]
pub struct Statistics<'a> {
    /// Length of the periods.
    pub grain: Grain,
    /// Only jobs of this kind; none for all.
    pub kind: Option<JobKind>,
    /// All periods in order of time, also those without events.
    pub periods: &'a [Period],
    /// The sums over all periods, by kind.
    pub by_kind: &'a [(JobKind, Counts)],
}

const GRAINS: [(Grain, &str); 5] = [
    (Grain::Minute, "by minute"),
    (Grain::Hour, "by hour"),
    (Grain::Day, "by day"),
    (Grain::Week, "by week"),
    (Grain::Month, "by month"),
];

/// The page at `/statistics`.
#[must_use]
pub fn statistics_page(viewer: &Viewer, shown: &Statistics<'_>) -> Markup {
    let content = html! {
        div.title { h1 { "Statistics" } (grains(shown)) p.quiet { "times in UTC" } }
        (kinds(shown))
        // Weeks and months are sums of many days, and differ little from one second to the next.
        div.charts data-slow=[matches!(shown.grain, Grain::Week | Grain::Month).then_some("")] {
            (amounts(shown, "tasks-done", "Tasks", |counts| [counts.tasks_succeeded, counts.tasks_failed]))
            (amounts(shown, "jobs-done", "Jobs", |counts| [counts.jobs_succeeded, counts.jobs_failed]))
            (percentiles(shown, "waiting", "Waiting time of jobs", |counts| &counts.waiting))
            (percentiles(shown, "running", "Run time of jobs", |counts| &counts.running))
        }
        section { h2 { "By kind" } (by_kind(shown.by_kind)) }
        section { h2 { "By period, in UTC" } (by_period(shown)) }
    };
    page(&Page { title: "Statistics", place: NavigationPage::Statistics, is_live: true, viewer }, &content)
}

fn path(grain: Grain, kind: Option<JobKind>) -> String {
    let kind = kind.map(|kind| format!("&kind={kind}")).unwrap_or_default();
    format!("/statistics?grain={}{kind}", grain.as_str())
}

fn grains(shown: &Statistics<'_>) -> Markup {
    html! {
        nav.choices aria-label="Length of the periods" {
            @for (grain, name) in GRAINS {
                a href=(path(grain, shown.kind)) aria-current=[(grain == shown.grain).then_some("true")] { (name) }
            }
        }
    }
}

fn kinds(shown: &Statistics<'_>) -> Markup {
    html! {
        nav.kinds aria-label="Kind of job" {
            a href=(path(shown.grain, None)) aria-current=[shown.kind.is_none().then_some("true")] { "all kinds" }
            @for kind in workloads::KINDS {
                @let name = kind.name();
                a href=(path(shown.grain, Some(name))) aria-current=[(shown.kind == Some(name)).then_some("true")] { (name) }
            }
        }
    }
}

/// The start of a period as short as its length allows.
fn label(grain: Grain, start: Timestamp) -> String {
    let form = match grain {
        Grain::Minute | Grain::Hour => "%H:%M",
        Grain::Day | Grain::Week => "%-d %b",
        Grain::Month => "%b %Y",
    };
    start.strftime(form).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
fn place(index: usize) -> f64 {
    index as f64
}

fn figure(
    shown: &Statistics<'_>,
    id: &'static str,
    title: &'static str,
    summary: &str,
    y: VerticalAxis,
    series: &[Series],
) -> Markup {
    let x_label = |place: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place from 0 to the last period"
        )]
        let index = place.round() as usize;
        shown.periods.get(index).map_or_else(String::new, |period| label(shown.grain, period.start))
    };
    // The names of months are long.
    let x_labels = if shown.grain == Grain::Month { 4 } else { 6 };
    let last = place(shown.periods.len().saturating_sub(1)).max(1.0);
    chart(&Chart { id, title, summary, x: 0.0..last, x_labels, x_label: &x_label, y, gap: 1.0, series })
}

fn amounts(shown: &Statistics<'_>, id: &'static str, title: &'static str, of: impl Fn(&Counts) -> [u64; 2]) -> Markup {
    let sums = shown.periods.iter().map(|period| of(&period.counts));
    let [done, failed] = sums.fold([0, 0], |[done, failed], [more, lost]| [done + more, failed + lost]);
    let line = |which: usize| {
        #[expect(clippy::cast_precision_loss, reason = "a drawing")]
        let points =
            shown.periods.iter().enumerate().map(|(index, period)| (place(index), of(&period.counts)[which] as f64));
        points.collect()
    };
    let summary = format!("{} succeeded, {} failed", count(done), count(failed));
    let series =
        [Series { name: "succeeded", tone: 0, points: line(0) }, Series { name: "failed", tone: 3, points: line(1) }];
    // Steps of less than a whole task say nothing.
    figure(shown, id, title, &summary, VerticalAxis { label: short, unit: ones, least_top: 5.0 }, &series)
}

fn seconds(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { span(Duration::try_from_secs_f64(value).unwrap_or_default()) }
}

const PERCENTILES: [(f64, &str, usize); 3] = [(0.5, "p50", 0), (0.9, "p90", 1), (0.99, "p99", 2)];

fn percentiles(
    shown: &Statistics<'_>,
    id: &'static str,
    title: &'static str,
    of: impl Fn(&Counts) -> &Durations,
) -> Markup {
    let series = PERCENTILES.map(|(share, name, tone)| {
        let known =
            |(index, period): (usize, &Period)| Some((place(index), of(&period.counts).quantile(share)?.as_secs_f64()));
        Series { name, tone, points: shown.periods.iter().enumerate().filter_map(known).collect() }
    });
    let mut all = Durations::default();
    shown.periods.iter().for_each(|period| all.add(of(&period.counts)));
    let figures = PERCENTILES.map(|(share, name, _)| format!("{name} {}", percentile(&all, share)));
    let summary = format!("{} of {}", figures.join(", "), counted(all.count(), "job", "jobs"));
    figure(shown, id, title, &summary, VerticalAxis { label: seconds, unit: unit_of_seconds, least_top: 0.0 }, &series)
}

fn percentile(durations: &Durations, share: f64) -> String {
    durations.quantile(share).map_or_else(|| "–".to_owned(), span)
}

fn head(first: &str) -> Markup {
    html! {
        thead { tr {
            th { (first) } th.num { "Jobs done" } th.num { "Failed" } th.num { "Tasks done" } th.num.wide { "Failed" }
            th.num { "Waiting p50" } th.num.wide { "p90" } th.num { "p99" } th.num { "Running p50" } th.num.wide { "p90" } th.num { "p99" }
            th.num.wide { "Computed" }
        } }
    }
}

fn cells(counts: &Counts) -> Markup {
    html! {
        td.num data-label="jobs done" { (count(counts.jobs_succeeded)) }
        td.num data-label="jobs failed" { (count(counts.jobs_failed)) }
        td.num data-label="tasks done" { (count(counts.tasks_succeeded)) }
        td.num.wide { (count(counts.tasks_failed)) }
        @for (what, durations) in [("waiting", &counts.waiting), ("running", &counts.running)] {
            td.num data-label=(format!("{what} p50")) { (percentile(durations, 0.5)) }
            td.num.wide { (percentile(durations, 0.9)) }
            td.num data-label=(format!("{what} p99")) { (percentile(durations, 0.99)) }
        }
        td.num.wide { (span(Duration::from_micros(counts.computing.sum_us))) }
    }
}

fn by_kind(kinds: &[(JobKind, Counts)]) -> Markup {
    html! {
        @if kinds.is_empty() { p.empty #kinds-none { "Nothing happened in this time." } } @else {
            div.scrolls #by-kind tabindex="0" role="region" aria-label="Figures by kind" {
                table.stack.figures {
                    (head("Kind"))
                    tbody data-rows="" { @for (kind, counts) in kinds {
                        tr id=(format!("kind-{kind}")) { th scope="row" { (kind) } (cells(counts)) }
                    } }
                }
            }
        }
    }
}

fn by_period(shown: &Statistics<'_>) -> Markup {
    let form = match shown.grain {
        Grain::Minute | Grain::Hour => "%Y-%m-%d %H:%M",
        Grain::Day | Grain::Week | Grain::Month => "%Y-%m-%d",
    };
    let filled = || shown.periods.iter().rev().filter(|period| !period.counts.is_empty());
    html! {
        @if filled().next().is_none() { p.empty #periods-none { "Nothing happened in this time." } } @else {
            div.scrolls #by-period tabindex="0" role="region" aria-label="Figures by period" {
                table.stack.figures {
                    (head("From"))
                    tbody data-rows="" { @for period in filled() {
                        tr id=(format!("period-{}", period.start.as_second())) {
                            th.num scope="row" { (period.start.strftime(form)) }
                            (cells(&period.counts))
                        }
                    } }
                }
            }
            p.quiet { "Periods in which nothing happened are left out. The same as CSV and JSON: " code { "GET /v1/statistics" } "." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn weeks_and_months_are_asked_for_more_seldom_than_shorter_periods() {
        let is_slow = |grain| {
            let shown = Statistics { grain, kind: None, periods: &[], by_kind: &[] };
            statistics_page(&samples::viewer(), &shown).0.contains("data-slow")
        };
        let grains = GRAINS.map(|(grain, _)| is_slow(grain));
        assert_eq!(grains, [false, false, false, true, true]);
    }
}
