//! The tasks of a job, a page at a time.

use api::{Task, TaskPage};
use jiff::Timestamp;
use maud::{Markup, html};
use model::TaskState;

use crate::columns::worker_name;
use crate::marks;
use crate::words::{self, between, clock, count, excerpt, span};

/// The longest result of a task that its row shows: a page has a hundred of them.
const SHOWN_RESULT_CHARS: usize = 600;

/// A page of a job's tasks.
#[derive(Debug)]
pub struct TaskList {
    /// The tasks.
    pub page: TaskPage,
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// The first task that was asked for.
    pub first: u64,
}

pub(super) fn tasks_of(id: &str, tasks: &TaskList, has_stderr: bool, now: Timestamp) -> Markup {
    let path = |state: Option<TaskState>, first: Option<&str>| {
        let mut fields: Vec<(&str, &str)> = state.iter().map(|state| ("tasks", state.as_str())).collect();
        fields.extend(first.map(|first| ("first", first)));
        format!("/jobs/{id}?{}#tasks", serde_urlencoded::to_string(fields).unwrap_or_default())
    };
    // The page of tasks stays.
    let stderr = |task: &Task| {
        let mut fields: Vec<(&str, String)> =
            tasks.state.iter().map(|state| ("tasks", state.as_str().to_owned())).collect();
        fields.extend([("first", tasks.first.to_string()), ("stderr", task.index.to_string())]);
        format!("/jobs/{id}?{}#stderr", serde_urlencoded::to_string(fields).unwrap_or_default())
    };
    html! {
        section #tasks {
            h2 { "Tasks" }
            nav.choices aria-label="Tasks by state" {
                a href=(path(None, None)) aria-current=[tasks.state.is_none().then_some("true")] { "all" }
                @for state in TaskState::ALL {
                    a href=(path(Some(state), None)) aria-current=[(tasks.state == Some(state)).then_some("true")] { (state.as_str()) }
                }
            }
            @if tasks.page.tasks.is_empty() {
                p.empty #tasks-none {
                    @if tasks.page.next_page_token.is_some() { "None among the tasks that were looked at; there are more." }
                    @else { "There is no such task." }
                }
            } @else {
                table.stack #tasks-table {
                    thead { tr {
                        th.num { "Task" } th { "State" } th.num.wide { "Attempts" } th.worker { "Worker" }
                        th.num.wide { "Given out, UTC" } th.num { "Took" } th { "Result or error" }
                    } }
                    tbody data-rows="" { @for task in &tasks.page.tasks { (task_row(task, has_stderr.then(|| stderr(task)), now)) } }
                }
            }
            nav.pages aria-label="Pages of tasks" {
                @if tasks.first > 0 { a href=(path(tasks.state, None)) { "First" } }
                @if let Some(next) = &tasks.page.next_page_token { a rel="next" href=(path(tasks.state, Some(next))) { "Next" } }
            }
        }
    }
}

fn task_row(task: &Task, stderr: Option<String>, now: Timestamp) -> Markup {
    let took = task.running_at.map(|start| span(between(start, task.completed_at.unwrap_or(now))));
    html! {
        tr id=(format!("task-{}", task.index)) {
            td.num { (count(task.index)) }
            td { (marks::task_state(task.state)) }
            td.num.wide { (task.attempts) }
            td.worker { @match &task.worker { Some(worker) => (worker_name(worker.as_str())), None => span.quiet { "–" } } }
            td.num.wide { @match task.allocated_at { Some(at) => (clock(at, now)), None => "–" } }
            td.num { (took.unwrap_or_else(|| "–".to_owned())) }
            td.outcome {
                @if let Some(result) = &task.result { code { (words::cut(SHOWN_RESULT_CHARS, result.get())) } }
                @if let Some(error) = &task.last_error {
                    @if task.state == TaskState::Succeeded { span.quiet { "an attempt failed: " (excerpt(error)) } }
                    @else { span.bad { (excerpt(error)) } }
                }
                @if let Some(stderr) = stderr { " " a href=(stderr) { "stderr" } }
            }
        }
    }
}
