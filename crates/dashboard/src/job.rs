//! The page of one job: progress, stages, the reason why it waits, tasks.

mod settings;
mod tasks;

use std::time::Duration;

use api::{Explanation, Job};
use jiff::Timestamp;
use maud::{Markup, html};
use model::{JobEvent, JobState};

pub use tasks::TaskList;

use settings::settings;
use tasks::tasks_of;

use crate::again::again;
use crate::columns::{PARTS, bar, parts, percent_done, short_id, tag};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::overview::time_left;
use crate::program::{TaskLogs, stderr_of};
use crate::question::possible;
use crate::words::{between, bytes, clock, count, count_wide, counted, excerpt, sentence, short, span};

/// The contents of a job's page.
#[derive(Debug)]
pub struct JobDetails<'a> {
    /// The job.
    pub job: &'a Job,
    /// The reason why the job waits; `None` when it is over.
    pub explanation: Option<&'a Explanation>,
    /// The job's tasks; `None` where they are not individual.
    pub tasks: Option<&'a TaskList>,
    /// The job's last events, the newest first.
    pub events: &'a [JobEvent],
    /// The beginning of its result, and the size of the whole.
    pub result: Option<(String, u64)>,
    /// The stderr of one of its tasks; none where it runs no program.
    pub stderr: Option<TaskLogs>,
}

/// The page at `/jobs/{id}`.
#[must_use]
pub fn job_page(viewer: &Viewer, shown: &JobDetails<'_>) -> Markup {
    let job = shown.job;
    let id = job.id.to_string();
    // The state first: a tab shows only the beginning.
    let title = format!("{} · {} {}", stage(job), job.kind, short_id(&id));
    let reasons = shown.explanation.map(|explanation| explanation.reasons.as_slice()).unwrap_or_default();
    let content = html! {
        div.title {
            h1 { (job.kind) " " span.quiet { (short_id(&id)) } }
            (marks::job(job))
            @if viewer.may_submit { div.actions { (actions(&id, job)) } }
        }
        p.sub {
            code.id { (id) } " " button.copy type="button" data-copy=(id) data-keep="" aria-label="Copy the job's id" hidden { "Copy" }
            @for (key, value) in &job.tags { " " (tag(key, value)) }
        }
        @if let Some(error) = &job.error {
            p.error #error {
                (marks::failure("failed")) " "
                span {
                    bdi { (excerpt(error)) }
                    @if shown.tasks.is_some() && job.tasks.failed > 0 { ". " a href=(format!("/jobs/{id}?tasks=failed#tasks")) { "Its failed tasks" } }
                }
            }
        }
        @if let Some(notice) = job.notice.as_ref().filter(|notice| !reasons.contains(notice)) {
            p.notice #notice { (marks::warning(if marks::cannot_run(job) { "cannot run" } else { "note" })) " " span { (notice) } }
        }
        (figures(job, viewer.now))
        @if !reasons.is_empty() {
            section #why {
                h2 { "Why it waits" @if marks::cannot_run(job) { " " (marks::warning("cannot run")) } }
                ul { @for reason in reasons { li { (sentence(reason)) } } }
            }
        }
        @if let Some(result) = &shown.result { (result_of(&id, result)) }
        div.columns {
            section { h2 { "Stages" (utc()) } (stages(job, viewer.now)) }
            section { h2 { "Parameters" } (settings(job)) }
        }
        section #events { h2 { "Events" (utc()) } (events(shown.events, viewer.now)) }
        @if let Some(logs) = &shown.stderr { (stderr_of(logs)) }
        @if let Some(tasks) = shown.tasks { (tasks_of(&id, tasks, shown.stderr.is_some(), viewer.now)) }
    };
    page(&Page { title: &title, place: NavigationPage::Jobs, is_live: true, viewer }, &content)
}

/// The stage of a job in a word, for the title.
fn stage(job: &Job) -> String {
    if job.state == JobState::Running { format!("{} %", percent_done(job)) } else { job.state.as_str().to_owned() }
}

/// The heading's note above columns of calendar times.
fn utc() -> Markup {
    html! { span.zone { "times in UTC" } }
}

/// The changes that this job can undergo.
fn actions(id: &str, job: &Job) -> Markup {
    html! {
        @if let Some(path) = again(job) { a.button #again href=(path) { "Submit again…" } }
        @if !job.state.is_over() { button #notify type="button" data-job=(id) hidden { "Notify me" } }
        @for (action, label) in possible(job) {
            @let (anchor, path) = (format!("do-{action}"), format!("/jobs/{id}/{action}"));
            @if *action == "cancel" {
                a.button.danger id=(anchor) href=(path) data-ask="" { (label) }
            } @else {
                form id=(anchor) method="post" action=(path) { button type="submit" { (label) } }
            }
        }
    }
}

fn figures(job: &Job, now: Timestamp) -> Markup {
    let tasks = &job.tasks;
    let took = job.finished_at.map(|end| between(job.started_at.unwrap_or(job.submitted_at), end));
    html! {
        section.meter {
            (bar(&parts(job), PARTS))
            dl.tiles {
                div {
                    dt { "Done" } dd { (percent_done(job)) " %" }
                    dd.more { (count(tasks.succeeded)) " of " (count(tasks.total)) }
                }
                div {
                    dt { "Running" } dd { (short_count(tasks.running)) }
                    dd.more { (count(tasks.pending)) @if job.state.is_over() { " not done" } @else { " waiting" } }
                }
                div { dt { "Failed" } dd { (short_count(tasks.failed)) } dd.more { (counted(job.attempts, "lease", "leases")) " in all" } }
                (speed(job, took))
                div {
                    @if job.state.is_over() {
                        dt { "Took" } dd { (took.map_or_else(|| "–".to_owned(), span)) }
                        dd.more { "from its " @if job.started_at.is_some() { "start" } @else { "submission" } " to its end" }
                    } @else {
                        dt { "Time left" } dd { (time_left(job)) }
                        dd.more { "for " (span(between(job.submitted_at, now))) " so far" }
                    }
                }
            }
        }
    }
}

/// Tasks a second: lately, or over the time that a job took which is over.
fn speed(job: &Job, took: Option<Duration>) -> Markup {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let average = |took: Duration| job.tasks.succeeded as f64 / took.as_secs_f64();
    let (rate, of) = match took.filter(|took| !took.is_zero()) {
        Some(took) => (Some(average(took)), "on average"),
        None => (job.progress.tasks_per_second, "lately"),
    };
    html! {
        div {
            dt { "Tasks per second" } dd { (rate.map_or_else(|| "–".to_owned(), short)) }
            dd.more { @if let Some(numbers) = job.progress.numbers_done { (count_wide(numbers)) " numbers" } @else { (of) } }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn short_count(number: u64) -> String {
    short(number as f64)
}

fn result_of(id: &str, (text, size): &(String, u64)) -> Markup {
    let is_whole = text.len() as u64 == *size;
    html! {
        section.result #result {
            h2 { "Result" }
            pre tabindex="0" { (text) @if !is_whole { "…" } }
            p {
                a href=(format!("/jobs/{id}/result")) download=(format!("{id}.json")) { "Download" }
                span.quiet { " · " (bytes(*size)) }
            }
        }
    }
}

fn stages(job: &Job, now: Timestamp) -> Markup {
    let end = match job.state {
        JobState::Failed => "Failed",
        JobState::Canceled => "Canceled",
        JobState::Succeeded | JobState::Queued | JobState::Running | JobState::Paused => "Succeeded",
    };
    let stages = [("Submitted", Some(job.submitted_at)), ("Started", job.started_at), (end, job.finished_at)];
    let before = [None, Some(job.submitted_at), job.started_at.or(Some(job.submitted_at))];
    html! {
        ol.stages {
            @for ((name, at), before) in stages.into_iter().zip(before) {
                li.reached[at.is_some()].lost[name == "Failed"] {
                    strong { (name) }
                    @if let Some(at) = at {
                        (clock(at, now))
                        @if let Some(before) = before { span.quiet { "after " (span(between(before, at))) } }
                    } @else { span.quiet { @if job.state.is_over() { "never" } @else { "not yet" } } }
                }
            }
        }
    }
}

fn events(events: &[JobEvent], now: Timestamp) -> Markup {
    html! {
        @if events.is_empty() { p.empty #events-none { "No event yet." } } @else {
            ol.events #events-list data-rows="" tabindex="0" aria-label="Events, the newest first" {
                @for event in events {
                    li id=(format!("event-{}", event.seq)) {
                        (clock(event.at, now)) " " strong { (event.kind.as_str()) }
                        @if let (Some(done), Some(total)) = (event.tasks_done, event.tasks_total) {
                            " " span.num { (count(done)) " / " (count(total)) }
                        }
                        @if let Some(error) = &event.error { " " span.bad { (excerpt(error)) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::TaskPage;
    use serde_json::{Value, json};

    use super::*;
    use crate::samples;

    fn shown(fields: &Value, tasks: Option<&TaskList>) -> String {
        let job = samples::job(1, fields);
        let page = JobDetails { job: &job, explanation: None, tasks, events: &[], result: None, stderr: None };
        job_page(&samples::viewer(), &page).0
    }

    #[test]
    fn a_job_says_by_which_algorithm_and_for_whom_it_is_computed_and_what_was_compared() {
        let compared = json!({"share": 0.25, "compared_leases": 12, "waiting_leases": 3, "mismatches": 1, "recomputed_tasks": 40,
            "workers_set_aside": ["liar"]});
        let html = shown(&json!({"algorithm": "combinatorial", "submitted_by": "ci", "verification": compared}), None);
        for expected in [
            "<dt>computed by</dt><dd>combinatorial</dd>",
            "<dt>submitted by</dt><dd>ci</dd>",
            "12 leases of a share of 0.25, 3 wait for another worker",
            "40 tasks computed again",
            "<dt>set aside</dt><dd><span>liar</span></dd>",
        ] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
    }

    #[test]
    fn a_page_of_tasks_without_any_says_whether_there_may_be_others_and_a_failure_leads_to_its_tasks() {
        let page =
            |next_page_token| TaskList { page: TaskPage { tasks: Vec::new(), next_page_token }, state: None, first: 0 };
        let failed = json!({"state": "failed", "error": "1 of 9 tasks failed",
            "tasks": {"total": 9, "pending": 0, "running": 0, "succeeded": 8, "failed": 1}});
        let html = shown(&failed, Some(&page(Some("5000".to_owned()))));
        assert!(html.contains("there are more") && html.contains("first=5000"), "{html}");
        assert!(html.contains("?tasks=failed#tasks\">Its failed tasks</a>"), "{html}");
        assert!(shown(&failed, Some(&page(None))).contains("There is no such task"));
        assert!(!shown(&failed, None).contains("Its failed tasks"));
    }

    #[test]
    fn a_job_that_was_canceled_before_it_started_waits_for_nothing() {
        let tasks = json!({"total": 9, "pending": 9, "running": 0, "succeeded": 0, "failed": 0});
        let end = json!({"state": "canceled", "finished_at": "2026-03-21T10:00:09Z", "tasks": tasks});
        let html = shown(&end, None);
        for expected in ["9 not done", "from its submission to its end", "<span class=\"quiet\">never</span>"] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
        let html = shown(&json!({"tasks": tasks}), None);
        assert!(html.contains("9 waiting") && html.contains("not yet") && !html.contains("never"), "{html}");
    }

    #[test]
    fn the_reason_why_a_job_waits_is_told_once() {
        let told = |notice: &str| {
            let job = samples::job(1, &json!({"notice": notice}));
            let reasons = vec!["no worker is ready".to_owned()];
            let explanation = Explanation { state: JobState::Queued, reasons };
            let page = JobDetails {
                job: &job,
                explanation: Some(&explanation),
                tasks: None,
                events: &[],
                result: None,
                stderr: None,
            };
            job_page(&samples::viewer(), &page).0
        };
        let html = told("no worker is ready");
        assert_eq!((html.matches("o worker is ready").count(), html.matches("cannot run").count()), (1, 1), "{html}");
        assert!(told("its result could not be stored").contains("id=\"notice\""));
    }
}
