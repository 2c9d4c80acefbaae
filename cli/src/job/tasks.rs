//! `divvy job tasks`.

use api::client::{Client, Query};
use api::{Task, TaskPage};

use model::TaskState;

use crate::arguments::{Format, Tasks};
use crate::failure::Failure;
use crate::job::list::tell_of_more;
use crate::patience::patiently;
use crate::print::{print_json, print_line, print_table, task_tone};
use crate::table::{Cell, Table};
use crate::words::{between, span};

/// The most tasks of a list without `--limit`.
const DEFAULT_LIMIT: usize = 1000;

/// The most tasks that one request asks for.
const PAGE_SIZE: usize = 1000;

pub(super) async fn run(grid: &Client, format: Format, arguments: &Tasks) -> Result<(), Failure> {
    let asked = arguments.limit.map(|limit| usize::try_from(limit.get()).unwrap_or(usize::MAX));
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    let mut list = TaskPage { tasks: Vec::new(), next_page_token: None };
    loop {
        let mut query: Query = vec![("limit", PAGE_SIZE.min(limit - list.tasks.len()).to_string())];
        query.extend(arguments.state.map(|state| ("state", state.as_str().to_owned())));
        query.extend(list.next_page_token.map(|token| ("page_token", token)));
        let page = patiently(async || grid.task_page(arguments.id, &query).await).await?;
        list.tasks.extend(page.tasks);
        list.next_page_token = page.next_page_token;
        if list.next_page_token.is_none() || list.tasks.len() >= limit {
            break;
        }
    }
    match format {
        Format::Json => return print_json(&list),
        Format::Quiet => list.tasks.iter().try_for_each(|task| print_line(&task.index.to_string()))?,
        Format::Table => print_table(&task_table(&list.tasks))?,
    }
    if list.next_page_token.is_some() {
        tell_of_more(format, asked);
    }
    Ok(())
}

/// A task that has succeeded has a result: where the answer carries none it is `null`.
fn result(task: &Task) -> &str {
    let without = if task.state == TaskState::Succeeded { "null" } else { "" };
    task.result.as_ref().map_or(without, |result| result.get())
}

fn task_table(tasks: &[Task]) -> Table<7> {
    let mut table = Table::new(["TASK", "STATE", "ATTEMPTS", "WORKER", "TOOK", "RESULT", "LAST ERROR"]);
    for task in tasks {
        let begun_at = task.running_at.or(task.allocated_at);
        let took = begun_at.zip(task.completed_at).map(|(begun_at, ended_at)| span(between(begun_at, ended_at)));
        table.push([
            Cell::number(task.index),
            Cell::new(task.state.as_str()).toned(task_tone(task.state)),
            Cell::number(task.attempts),
            Cell::new(task.worker.as_ref().map_or("", |worker| worker.as_str())),
            Cell::number(took.unwrap_or_default()),
            Cell::new(result(task)),
            Cell::new(task.last_error.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_show_who_had_them_and_what_came_of_it() {
        let tasks: Vec<Task> = serde_json::from_str(
            r#"[{"index":0,"state":"succeeded","attempts":1,"worker":"w-1","pending_at":"2026-03-21T10:00:00Z",
                 "running_at":"2026-03-21T10:00:01Z","completed_at":"2026-03-21T10:00:03.5Z","result":{"n": 1}},
                {"index":12,"state":"failed","attempts":4,"worker":"w-2","pending_at":"2026-03-21T10:00:00Z",
                 "last_error":"first\nsecond"}]"#,
        )
        .expect("tasks");
        let expected = "TASK  STATE      ATTEMPTS  WORKER  TOOK  RESULT    LAST ERROR\n   \
                        0  succeeded         1  w-1       2s  {\"n\": 1}\n  \
                        12  failed            4  w-2                     first second";
        assert_eq!(task_table(&tasks).render(false), expected);
    }
}
