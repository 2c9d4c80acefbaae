//! `divvy statistics`.

use api::{StatisticsPage, TaskStartsPage};
use model::{Grain, JobKind};

use crate::helpers::{Grid, assert_fails};

#[test]
fn figures_are_shown_as_columns_json_and_csv() {
    let grid = Grid::start();
    assert_eq!(grid.stdout(&["statistics"]).lines().count(), 1, "a head alone");
    for tasks in ["3", "4"] {
        let id = grid.submit(&["sleep", "--seconds", "0", "--tasks", tasks, "--tag", "task=nap"]);
        grid.stdout(&["job", "wait", &id]);
    }
    let page: StatisticsPage = grid.json(&["statistics", "--grain", "day"]);
    assert_eq!((page.grain, page.next_page_token), (Grain::Day, None));
    let sum = |figure: fn(&api::PeriodStatistics) -> u64| page.periods.iter().map(figure).sum::<u64>();
    assert_eq!((sum(|day| day.jobs.succeeded), sum(|day| day.tasks.succeeded)), (2, 7));
    let table = grid.stdout(&["statistics", "--grain", "month", "--from", "2020-01-01"]);
    let head =
        "START (UTC)  KIND   JOBS  DONE  OPEN  TASKS  DONE  OPEN  ATTEMPTS  WAIT p50  p99  RUN p50  p99  COMPUTE";
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(table.lines().next().map(words), Some(words(head)));
    assert!(table.lines().nth(1).is_some_and(|line| words(line)[1..4] == ["sleep", "2", "2"]), "{table}");
    assert!(!table.contains('\u{1b}') && !table.contains('█'), "no chart but on a terminal: {table}");
    let csv = grid.stdout(&["statistics", "--grain", "day", "--output", "csv", "--kind", "sleep"]);
    assert!(csv.starts_with("start,end,kind,jobs_submitted,") && csv.lines().count() >= 2, "{csv}");
    assert!(grid.stdout(&["statistics", "--to", "2160h"]).lines().count() == 1);

    let starts: TaskStartsPage = grid.json(&["statistics", "--tasks", "--grain", "week"]);
    let starts: Vec<_> = starts.tasks.iter().map(|task| (task.kind, task.task.as_str())).collect();
    assert!(starts.iter().all(|task| *task == (JobKind::SLEEP, "nap")) && !starts.is_empty(), "{starts:?}");
    assert!(grid.stdout(&["statistics", "--tasks"]).contains("nap"));
    assert!(grid.stdout(&["statistics", "--tasks", "--output", "csv"]).starts_with("start,end,kind,task,starts\r\n"));
    for wrong in [["--grain", "year"], ["--from", "soon"], ["--kind", "none"]] {
        assert_fails(&grid.run(&[&["statistics"][..], &wrong].concat()), 2);
    }
}
