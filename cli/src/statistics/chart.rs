//! A chart of the tasks that succeeded: a column a period, with its scale.

use std::collections::BTreeMap;

use api::StatisticsPage;
use jiff::Timestamp;

use super::start;
use crate::words::figure;

/// Lines of the chart's columns.
const HEIGHT: u64 = 8;
/// The parts of a line that a column can fill.
const PARTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The latest periods that fit into so many columns of the terminal, all kinds together. Periods in which nothing was
/// counted are empty columns.
pub(super) fn tasks_succeeded(page: &StatisticsPage, columns: usize) -> String {
    let mut by_start: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for period in &page.periods {
        *by_start.entry(period.start).or_default() += period.tasks.succeeded;
    }
    let (Some((&first, _)), Some((&last, _))) = (by_start.first_key_value(), by_start.last_key_value()) else {
        return String::new();
    };
    let most = by_start.values().copied().max().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let scale = figure(most as f64);
    let gutter = scale.chars().count().max(1) + 1;
    let room = columns.saturating_sub(gutter).max(1);
    let mut starts = vec![last];
    while starts.len() < room
        && let Some(&next) = starts.last()
        && next > first
    {
        // The moment before a period is in the one before it.
        let before = next.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MIN);
        starts.push(page.grain.start_of(before));
    }
    starts.reverse();
    let values: Vec<u64> = starts.iter().map(|start| by_start.get(start).copied().unwrap_or(0)).collect();
    let mut lines = vec![format!("{:gutter$}tasks succeeded by {}", "", page.grain)];
    for line in (0..HEIGHT).rev() {
        let label = if line == HEIGHT - 1 {
            scale.as_str()
        } else if line == 0 {
            "0"
        } else {
            ""
        };
        let bars: String = values.iter().map(|&value| part(value, most, line)).collect();
        lines.push(format!("{label:>width$} {bars}", width = gutter - 1).trim_end().to_owned());
    }
    let (from, to) = (start(page.grain, starts[0]), start(page.grain, last));
    let space = values.len().saturating_sub(from.len() + to.len()).max(2);
    let time = if starts.len() == 1 { from } else { format!("{from}{:space$}{to}", "") };
    lines.push(format!("{:gutter$}{time}", ""));
    lines.join("\n")
}

/// The character of a column in a line, counted from 0 at the bottom: a value above zero is always visible.
fn part(value: u64, most: u64, line: u64) -> char {
    if value == 0 || most == 0 {
        return ' ';
    }
    let eighths = (u128::from(value) * u128::from(HEIGHT) * 8).div_ceil(u128::from(most));
    let here = eighths.saturating_sub(u128::from(line) * 8).min(8);
    PARTS[usize::try_from(here).unwrap_or(8)]
}

#[cfg(test)]
mod tests {
    use api::PeriodStatistics;
    use model::{Counts, Grain, JobKind};

    use super::*;

    fn page(values: &[(&str, u64)]) -> StatisticsPage {
        let period = |&(start, tasks_succeeded): &(&str, u64)| {
            let counts = Counts { tasks_succeeded, ..Counts::default() };
            PeriodStatistics::new(Grain::Hour, start.parse().expect("a time"), JobKind::SLEEP, &counts)
        };
        StatisticsPage { grain: Grain::Hour, periods: values.iter().map(period).collect(), next_page_token: None }
    }

    #[test]
    fn columns_stand_in_proportion_with_empty_periods_between_and_the_scale_left() {
        let page = page(&[
            ("2026-03-21T10:00:00Z", 1600),
            ("2026-03-21T10:00:00Z", 1600),
            ("2026-03-21T11:00:00Z", 1),
            ("2026-03-21T13:00:00Z", 1600),
        ]);
        let chart = tasks_succeeded(&page, 80);
        let lines: Vec<_> = chart.lines().collect();
        assert_eq!(lines.len(), 10, "{chart}");
        assert_eq!((lines[0], lines[1]), ("     tasks succeeded by hour", "3.2k █"));
        assert_eq!(lines[5], "     █  █");
        assert_eq!(lines[8], "   0 █▁ █");
        assert_eq!(lines[9], "     2026-03-21 10:00  2026-03-21 13:00");
    }

    #[test]
    fn the_latest_periods_are_shown_where_not_all_fit_and_nothing_where_there_are_none() {
        let page = page(&[("2026-03-21T10:00:00Z", 8), ("2026-03-23T10:00:00Z", 4)]);
        let chart = tasks_succeeded(&page, 7);
        assert!(chart.contains("2026-03-23 06:00  2026-03-23 10:00"), "{chart}");
        let bottom = chart.lines().nth(8).expect("a line");
        assert_eq!(bottom, "0     █");
        assert_eq!(tasks_succeeded(&super::tests::page(&[]), 80), "");
    }
}
