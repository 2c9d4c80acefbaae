//! Programs on the pages: the form that uploads one, and what a task wrote to stderr.

use api::TaskLog;
use maud::{Markup, html};

use crate::layout::Viewer;
use crate::words::count;

/// The end of stderr that a page shows of an attempt.
const SHOWN_BYTES: usize = 8 << 10;

/// The stderr of one task's programs.
#[derive(Debug)]
pub struct TaskLogs {
    /// The task.
    pub task: u64,
    /// The task's attempts.
    pub logs: Vec<TaskLog>,
}

/// The form at `/submit?kind=program` that uploads a program.
pub(crate) fn upload_form(viewer: &Viewer, uploaded: Option<&str>) -> Markup {
    html! {
        @if let Some(hash) = uploaded { p.notice role="status" { span { "The program is stored as " code { (hash) } "." } } }
        @if viewer.may_run_programs {
            form.form method="post" action="/submit/program" enctype="multipart/form-data" {
                div.field {
                    label for="upload" { "Upload a program" }
                    p.hint #upload-hint {
                        "A WebAssembly module or component, or an executable. The same as " code { "divvy program put FILE" } "."
                    }
                    input #upload type="file" name="program" required aria-describedby="upload-hint";
                }
                div { button type="submit" { "Upload" } }
            }
        } @else {
            p.notice { span { "Programs need a token with the right " code { "programs" } "." } }
        }
    }
}

/// The section of a job's page with the stderr of one task.
pub(crate) fn stderr_of(logs: &TaskLogs) -> Markup {
    html! {
        section.result #stderr {
            h2 { "Standard error of task " (count(logs.task)) }
            @if logs.logs.is_empty() { p.empty { "It has written nothing." } }
            @for log in &logs.logs {
                @let (omitted, text) = end_of(log);
                p.quiet {
                    (log.worker)
                    @if log.ended_at.is_none() { ", running" }
                    @if omitted > 0 { " · without the first " (crate::words::bytes(omitted)) }
                }
                pre tabindex="0" id=(format!("stderr-{}", log.attempt)) { (text) }
            }
        }
    }
}

/// The end of a log without control characters, and the number of bytes before it.
fn end_of(log: &TaskLog) -> (u64, String) {
    let start = log.text.ceil_char_boundary(log.text.len().saturating_sub(SHOWN_BYTES));
    let is_shown = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    (log.omitted_bytes + start as u64, log.text[start..].chars().filter(is_shown).collect())
}

#[cfg(test)]
mod tests {
    use model::AttemptId;

    use super::*;

    #[test]
    fn the_end_of_stderr_is_shown_and_cannot_be_markup() {
        let text = format!("{}é\u{1b}[31m<b>the end</b>\n", "x".repeat(SHOWN_BYTES));
        let log = TaskLog {
            task: 1_000,
            attempt: AttemptId(uuid::Uuid::nil()),
            worker: "worker-1".to_owned(),
            omitted_bytes: 10,
            text,
            ended_at: None,
        };
        let (omitted, shown) = end_of(&log);
        assert!(omitted > 10 && shown.ends_with("é[31m<b>the end</b>\n"), "{omitted} {shown}");
        let page = stderr_of(&TaskLogs { task: 1_000, logs: vec![log] }).0;
        assert!(page.contains("&lt;b&gt;the end") && page.contains("worker-1, running"), "{page}");
    }
}
