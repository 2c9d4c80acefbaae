//! The overview: what the grid does now, and what it did over the last hour.

use api::{Job, Stats, WorkerSummary};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::attention::attention;
use crate::chart::{Chart, Series, VerticalAxis, chart, minutes_ago, ones};
use crate::columns::{bar, job_name, progress};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::words::{count, counted, short, span};

/// Span of the charts in minutes.
const MINUTES: f64 = 60.0;

/// Samples further apart than this are not joined: the coordinator was away.
const GAP_MINUTES: f64 = 0.5;

/// The grid at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Time of the sample.
    pub at: Timestamp,
    /// Tasks done a second.
    pub tasks_per_second: f64,
    /// Tasks that wait for a worker.
    pub waiting: u64,
    /// Tasks with workers.
    pub running: u64,
}

/// Jobs of a kind that failed for one reason.
#[derive(Clone, Debug)]
pub struct Failures {
    /// The job that failed last.
    pub newest: Job,
    /// The number of further entries.
    pub others: u64,
    /// Whether there may be more.
    pub is_more: bool,
}

/// The contents of the overview.
#[derive(Debug)]
pub struct Overview<'a> {
    /// Counts and rates; none while no coordinator leads.
    pub stats: Option<&'a Stats>,
    /// The last hour, in order of time.
    pub history: &'a [Sample],
    /// Jobs that run.
    pub running: &'a [Job],
    /// Jobs that no worker can run as things are, one of each sort.
    pub stuck: &'a [Job],
    /// Failures of the last hour by their reason, the newest first.
    pub failed: &'a [Failures],
    /// Slots of the present workers, also of simulated ones: busy slots, and all.
    pub slots: (u64, u64),
    /// Workers that are set aside.
    pub suspended: &'a [&'a WorkerSummary],
}

/// The page at `/`.
#[must_use]
pub fn overview_page(viewer: &Viewer, overview: &Overview<'_>) -> Markup {
    let content = html! {
        h1 { "Overview" }
        (attention(overview, viewer.now))
        @if let Some(stats) = overview.stats {
            (tiles(stats, overview.slots))
            div.charts { (throughput(overview, stats, viewer.now)) (queue(overview, stats, viewer.now)) }
        }
        section {
            h2 { "Running jobs" }
            (running(overview))
        }
        @if let Some(stats) = overview.stats {
            div.columns {
                section { h2 { "Tasks by state" } (tasks(stats)) }
                section { h2 { "Waiting tasks by priority" } (priorities(stats)) }
            }
        }
    };
    page(&Page { title: "Overview", place: NavigationPage::Overview, is_live: true, viewer }, &content)
}

fn tiles(stats: &Stats, (busy, slots): (u64, u64)) -> Markup {
    let jobs = |state: &str| stats.jobs.get(state).copied().unwrap_or(0);
    let workers = stats.workers.ready + stats.workers.pulling;
    let aside = stats.workers.suspended + stats.workers.draining;
    html! {
        dl.tiles {
            div {
                dt { "Tasks per second" } dd { (short(stats.tasks_per_second)) }
                dd.more {
                    @if stats.numbers_per_second > 0.0 { (short(stats.numbers_per_second)) " numbers/s" } @else { "over 10 s" }
                }
            }
            div { dt { "Tasks waiting" } dd { (short(to_f64(stats.demand_of_all().runnable))) } dd.more { (count(stats.tasks.running)) " running" } }
            div {
                dt { "Slots busy" } dd { (count(busy)) span.of { " / " (count(slots)) } }
                dd.more.free { (bar(&[(busy, "running")], slots)) span { (count(slots.saturating_sub(busy))) " free" } }
            }
            div {
                dt { "Jobs running" } dd { (count(jobs("running"))) }
                dd.more { (count(jobs("queued"))) " queued · " (count(jobs("paused"))) " paused" }
            }
            div {
                dt { "Workers" } dd { (count(workers)) }
                dd.more {
                    @if aside > 0 { (count(aside)) " set aside" } @else if workers > 0 { "all ready" } @else { "none is there" }
                    @if stats.workers.simulated > 0 { " · " (count(stats.workers.simulated)) " simulated" }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

/// A figure over the sampled time, up to the value that is shown as the present one.
fn over_time(overview: &Overview<'_>, now: Timestamp, value: impl Fn(&Sample) -> f64, present: f64) -> Vec<(f64, f64)> {
    let minutes = |at: Timestamp| now.duration_since(at).as_secs_f64() / -60.0;
    let sampled = overview.history.iter().map(|sample| (minutes(sample.at), value(sample)));
    sampled.filter(|(at, _)| (-MINUTES..0.0).contains(at)).chain([(0.0, present)]).collect()
}

fn throughput(overview: &Overview<'_>, stats: &Stats, now: Timestamp) -> Markup {
    let points = over_time(overview, now, |sample| sample.tasks_per_second, stats.tasks_per_second);
    let most = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let summary = format!("{} now, at most {} in the last hour", short(stats.tasks_per_second), short(most));
    chart(&Chart {
        id: "throughput",
        title: "Tasks per second",
        summary: &summary,
        x: -MINUTES..0.0,
        x_labels: 5,
        x_label: &minutes_ago,
        y: VerticalAxis { label: short, unit: ones, least_top: 0.0 },
        gap: GAP_MINUTES,
        series: &[Series { name: "done", tone: 0, points }],
    })
}

fn queue(overview: &Overview<'_>, stats: &Stats, now: Timestamp) -> Markup {
    let (waits, runs) = (stats.demand_of_all().runnable, stats.tasks.running);
    let waiting = over_time(overview, now, |sample| to_f64(sample.waiting), to_f64(waits));
    let running = over_time(overview, now, |sample| to_f64(sample.running), to_f64(runs));
    let most = waiting.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let summary = format!("{} waiting and {} running now, at most {} waiting", count(waits), count(runs), short(most));
    chart(&Chart {
        id: "queue",
        title: "Tasks in the queue",
        summary: &summary,
        x: -MINUTES..0.0,
        x_labels: 5,
        x_label: &minutes_ago,
        y: VerticalAxis { label: short, unit: ones, least_top: 5.0 },
        gap: GAP_MINUTES,
        series: &[
            Series { name: "waiting", tone: 0, points: waiting },
            Series { name: "running", tone: 1, points: running },
        ],
    })
}

fn running(overview: &Overview<'_>) -> Markup {
    let all = overview.stats.and_then(|stats| stats.jobs.get("running")).copied().unwrap_or(0);
    let more = all.saturating_sub(overview.running.len() as u64);
    html! {
        @if overview.running.is_empty() {
            p.empty #running-none { "No job runs. " a href="/jobs" { "All jobs" } }
        } @else {
            table.stack #running {
                thead { tr { th { "Job" } th.num { "Priority" } th { "Progress" } th.num.wide { "Tasks/s" } th.num { "Time left" } } }
                tbody data-rows="" {
                    @for job in overview.running {
                        tr id=(format!("running-{}", job.id)) {
                            td.job {
                                (job_name(job))
                                @if let Some(notice) = &job.notice { div.why.warns { (notice) } }
                            }
                            td.num data-label="priority" { (job.priority) }
                            td { (progress(job)) }
                            td.num.wide { (job.progress.tasks_per_second.map_or_else(|| "–".to_owned(), short)) }
                            td.num data-label="left" { (time_left(job)) }
                        }
                    }
                }
            }
            @if more > 0 { p.more #running-more { a href="/jobs?state=running" { (counted(more, "more job runs", "more jobs run")) } } }
        }
    }
}

pub(crate) fn time_left(job: &Job) -> String {
    let left = job.progress.seconds_left.and_then(|left| std::time::Duration::try_from_secs_f64(left).ok());
    left.map_or_else(|| "–".to_owned(), span)
}

fn tasks(stats: &Stats) -> Markup {
    let tasks = &stats.tasks;
    html! {
        @if tasks.total == 0 { p.empty #states-none { "No job is open." } } @else {
            table.compact #states {
                tbody {
                    @for (state, number, class) in [
                        (model::TaskState::Pending, tasks.pending, "waiting"),
                        (model::TaskState::Running, tasks.running, "running"),
                        (model::TaskState::Succeeded, tasks.succeeded, "done"),
                        (model::TaskState::Failed, tasks.failed, "lost"),
                    ] {
                        tr {
                            th scope="row" { (marks::task_state(state)) }
                            td.num { (count(number)) }
                            td.bars { (bar(&[(number, class)], tasks.total)) }
                        }
                    }
                }
            }
            p.quiet #states-note { "Of the jobs that are not over." }
        }
    }
}

fn priorities(stats: &Stats) -> Markup {
    let most = stats.queue_depth_by_priority.values().copied().max().unwrap_or(0);
    html! {
        @if most == 0 { p.empty #priorities-none { "No task waits." } } @else {
            table.compact #priorities {
                tbody data-rows="" {
                    @for (priority, waiting) in stats.queue_depth_by_priority.iter().rev() {
                        tr id=(format!("priority-{priority}")) {
                            th scope="row" { "Priority " (priority) }
                            td.num { (count(*waiting)) }
                            td.bars { (bar(&[(*waiting, "waiting")], most)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::KindDemand;

    use super::*;
    use crate::samples;

    #[test]
    fn the_charts_tell_of_the_present_before_the_first_sample() {
        let demand = KindDemand { runnable: 3_832, ..KindDemand::default() };
        let stats = Stats { tasks_per_second: 47.0, demand: [("sleep".to_owned(), demand)].into(), ..Stats::default() };
        let overview = Overview {
            stats: Some(&stats),
            history: &[],
            running: &[],
            stuck: &[],
            failed: &[],
            slots: (0, 3),
            suspended: &[],
        };
        let html = overview_page(&samples::viewer(), &overview).0;
        for expected in ["47 now, at most 47 in the last hour", "at most 3.8k waiting", "<circle", "3 free"] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
    }
}
