//! `divvy statistics`.

mod chart;
#[cfg(feature = "kafka")]
mod replay;

use std::io::{IsTerminal, stdout};

use api::client::{Client, Query};
use api::{DurationFigures, StatisticsPage, TaskStartsPage, csv_lines};
use jiff::Timestamp;
use model::Grain;

use crate::arguments::{Statistics, StatisticsFormat};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line, print_table, print_text, tell};
use crate::table::{Cell, Table, Tone, is_dumb};
use crate::words::{figure, span_of_seconds};

/// The most rows that are shown: they are all in memory until they are printed.
const MAX_ROWS: usize = 100_000;

pub(crate) async fn run(arguments: &Statistics) -> Result<(), Failure> {
    let grid = arguments.url.client()?;
    #[cfg(feature = "kafka")]
    if arguments.replay_from_kafka {
        return replay::run(&grid, arguments, arguments.brokers.as_deref()).await;
    }
    let query = query(arguments, Timestamp::now());
    if arguments.tasks { show_tasks(&grid, arguments.output, query).await } else { show(&grid, arguments, query).await }
}

fn query(arguments: &Statistics, now: Timestamp) -> Query {
    let mut query = vec![("grain", arguments.grain.as_str().to_owned())];
    for (name, moment) in [("from", arguments.from), ("to", arguments.to)] {
        query.extend(moment.map(|moment| (name, moment.resolve(now).to_string())));
    }
    query.extend(arguments.kind.map(|kind| ("kind", kind.to_string())));
    query.extend(arguments.fill.then(|| ("fill", "true".to_owned())));
    query
}

/// The query of the next page.
fn of_page(query: &Query, token: Option<String>) -> Query {
    query.iter().cloned().chain(token.map(|token| ("page_token", token))).collect()
}

async fn show(grid: &Client, arguments: &Statistics, query: Query) -> Result<(), Failure> {
    let mut all = StatisticsPage { grain: arguments.grain, periods: Vec::new(), next_page_token: None };
    loop {
        let wanted = of_page(&query, all.next_page_token.take());
        let page = patiently(async || grid.statistics(&wanted).await).await?;
        all.periods.extend(page.periods);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_none() || all.periods.len() >= MAX_ROWS {
            break;
        }
    }
    match arguments.output {
        StatisticsFormat::Json => return print_json(&all),
        StatisticsFormat::Csv => {
            let head = StatisticsPage::COLUMNS.map(str::to_owned).to_vec();
            print_text(&csv_lines(std::iter::once(head).chain(all.records())))?;
        }
        StatisticsFormat::Table => {
            print_table(&period_table(&all))?;
            print_chart(&all)?;
        }
    }
    tell_of_more(all.next_page_token.as_ref());
    Ok(())
}

/// Prints a chart below the table, on a terminal that can show it.
fn print_chart(page: &StatisticsPage) -> Result<(), Failure> {
    if !stdout().is_terminal() || is_dumb() || page.periods.is_empty() {
        return Ok(());
    }
    let columns = ratatui::crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
    print_line(&format!("\n{}", chart::tasks_succeeded(page, columns)))
}

async fn show_tasks(grid: &Client, format: StatisticsFormat, query: Query) -> Result<(), Failure> {
    let mut all: Option<TaskStartsPage> = None;
    loop {
        let token = all.as_mut().and_then(|all| all.next_page_token.take());
        let wanted = of_page(&query, token);
        let page = patiently(async || grid.task_statistics(&wanted).await).await?;
        let so_far =
            all.get_or_insert_with(|| TaskStartsPage { grain: page.grain, tasks: Vec::new(), next_page_token: None });
        so_far.tasks.extend(page.tasks);
        so_far.next_page_token = page.next_page_token;
        if so_far.next_page_token.is_none() || so_far.tasks.len() >= MAX_ROWS {
            break;
        }
    }
    let Some(all) = all else { return Ok(()) };
    match format {
        StatisticsFormat::Json => return print_json(&all),
        StatisticsFormat::Csv => {
            let head = TaskStartsPage::COLUMNS.map(str::to_owned).to_vec();
            print_text(&csv_lines(std::iter::once(head).chain(all.records())))?;
        }
        StatisticsFormat::Table => print_table(&task_table(&all))?,
    }
    tell_of_more(all.next_page_token.as_ref());
    Ok(())
}

fn tell_of_more(token: Option<&String>) {
    if token.is_some() {
        tell("there are more: choose a later --from, an earlier --to or a longer --grain");
    }
}

/// The start of a period, as short as the grain allows.
fn start(grain: Grain, at: Timestamp) -> String {
    let format = match grain {
        Grain::Minute | Grain::Hour => "%Y-%m-%d %H:%M",
        Grain::Day | Grain::Week => "%Y-%m-%d",
        Grain::Month => "%Y-%m",
    };
    at.strftime(format).to_string()
}

/// A count of unexpected events: empty at 0, so that a column without any is left out.
fn rare(count: u64, tone: Tone) -> Cell {
    Cell::number(if count == 0 { String::new() } else { count.to_string() }).toned(tone)
}

fn quantile(seconds: Option<f64>) -> Cell {
    Cell::number(seconds.map(span_of_seconds).unwrap_or_default())
}

fn period_table(page: &StatisticsPage) -> Table<20> {
    let mut table = Table::new([
        "START (UTC)",
        "KIND",
        "JOBS",
        "DONE",
        "FAILED",
        "CANCELED",
        "RETRIED",
        "OPEN",
        "TASKS",
        "DONE",
        "FAILED",
        "CANCELED",
        "OPEN",
        "ATTEMPTS",
        "FAILED",
        "WAIT p50",
        "p99",
        "RUN p50",
        "p99",
        "COMPUTE",
    ]);
    for period in &page.periods {
        let (jobs, tasks) = (&period.jobs, &period.tasks);
        let DurationFigures { p50_seconds: waited, p99_seconds: waited_most, .. } = period.waiting;
        let DurationFigures { p50_seconds: ran, p99_seconds: ran_most, .. } = period.running;
        table.push([
            Cell::new(start(page.grain, period.start)),
            Cell::new(period.kind.as_str()),
            Cell::number(jobs.submitted),
            Cell::number(jobs.succeeded),
            rare(jobs.failed, Tone::Bad),
            rare(jobs.canceled, Tone::Faint),
            rare(jobs.retried, Tone::Waiting),
            Cell::number(jobs.pending),
            Cell::number(tasks.submitted),
            Cell::number(tasks.succeeded),
            rare(tasks.failed, Tone::Bad),
            rare(tasks.canceled, Tone::Faint),
            Cell::number(tasks.pending),
            Cell::number(period.attempts.ended),
            rare(period.attempts.failed, Tone::Bad),
            quantile(waited),
            quantile(waited_most),
            quantile(ran),
            quantile(ran_most),
            Cell::number(format!("{}s", figure(period.compute_seconds))),
        ]);
    }
    table
}

fn task_table(page: &TaskStartsPage) -> Table<4> {
    let mut table = Table::new(["START (UTC)", "KIND", "TASK", "STARTS"]);
    for row in &page.tasks {
        table.push([
            Cell::new(start(page.grain, row.start)),
            Cell::new(row.kind.as_str()),
            Cell::new(&row.task),
            Cell::number(row.starts),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use api::PeriodStatistics;
    use model::{Counts, JobKind};
    use std::time::Duration;

    use super::*;

    #[test]
    fn columns_of_what_did_not_happen_are_left_out() {
        let mut counts = Counts { jobs_submitted: 3, tasks_failed: 2, jobs_pending: 1, ..Counts::default() };
        counts.waiting.record(Duration::from_secs(90));
        let at: Timestamp = "2026-03-21T10:00:00Z".parse().expect("a time");
        let periods = vec![PeriodStatistics::new(Grain::Hour, at, JobKind::SLEEP, &counts)];
        let page = StatisticsPage { grain: Grain::Hour, periods, next_page_token: None };
        let text = period_table(&page).render(false);
        let [head, row] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(!head.contains("CANCELED") && head.contains("FAILED") && head.contains("WAIT p50"), "{head}");
        assert!(row.starts_with("2026-03-21 10:00  sleep     3     0     1"), "{row}");
        // Within 13.2 % of 90 s.
        assert!(row.contains("1m 29s"), "{row}");
    }
}
