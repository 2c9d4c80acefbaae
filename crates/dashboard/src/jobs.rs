//! The list of jobs with its filter.

use api::Job;
use maud::{Markup, html};
use model::JobState;

use crate::columns::{job_name, lasted, progress};
use crate::job_query::{JobQuery, Since};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::words::{ago, count, short};

/// A page of jobs.
#[derive(Debug)]
pub struct JobList<'a> {
    /// The filter.
    pub query: &'a JobQuery,
    /// The jobs, the newest first.
    pub jobs: &'a [Job],
    /// The token of the next page; `None` on the last page.
    pub next: Option<&'a str>,
    /// The number of examined jobs, if the search ended before the end of the list.
    pub gave_up_after: Option<u64>,
    /// The error of the filter.
    pub error: Option<String>,
    /// The outcome of a change of many jobs.
    pub changed: Option<String>,
}

/// The page at `/jobs`.
#[must_use]
pub fn jobs_page(viewer: &Viewer, list: &JobList<'_>) -> Markup {
    let query = list.query;
    let content = html! {
        div.title { h1 { "Jobs" } }
        (filter(query))
        @if let Some(error) = &list.error { p.error role="alert" { (error) } }
        @if let Some(changed) = &list.changed { p.notice role="status" { (changed) } }
        @if viewer.may_submit && !list.jobs.is_empty() { (selection(query)) }
        @if list.error.is_some() {} @else if list.jobs.is_empty() {
            p.empty #jobs-none {
                @if query.is_all() { "No job has been submitted yet. " a href="/submit" { "Submit one" } } @else { "No job fits this filter. " a href="/jobs" { "All jobs" } }
            }
        } @else { (table(viewer, list.jobs)) }
        @if let Some(looked_at) = list.gave_up_after {
            p.quiet #looked-at { "Looked at " (count(looked_at)) " jobs; older ones may fit too." }
        }
        (pages(list))
    };
    page(&Page { title: "Jobs", place: NavigationPage::Jobs, is_live: true, viewer }, &content)
}

fn filter(query: &JobQuery) -> Markup {
    html! {
        // A text is looked for job by job.
        form.filter method="get" action="/jobs" role="search" aria-label="Filter of jobs" data-slow=[query.text.as_ref().map(|_| "")] {
            fieldset.states {
                legend { "State" }
                @for state in JobState::ALL {
                    label {
                        input type="checkbox" name="state" value=(state) checked[query.states.contains(&state)];
                        (marks::job_state(state))
                    }
                }
            }
            div.fields {
                label { span { "Kind" }
                    select name="kind" {
                        option value="" { "any" }
                        @for kind in workloads::KINDS {
                            @let name = kind.name();
                            option value=(name) selected[query.kind == Some(name)] { (name) }
                        }
                    }
                }
                @if query.tags.is_empty() { (tag_field("")) }
                @for tag in &query.tags { (tag_field(tag)) }
                label { span { "Text" }
                    input type="search" name="text" value=[query.text.as_deref()] placeholder="id or error"
                        autocomplete="off";
                }
                label { span { "Submitted" }
                    select name="since" {
                        option value="" { "any time" }
                        @for since in Since::all() {
                            option value=(since.name) selected[query.since == Some(*since)] { (since.label) }
                        }
                    }
                }
                button type="submit" { "Filter" }
                @if !query.is_all() { a.clear href="/jobs" { "Clear" } }
            }
        }
    }
}

fn tag_field(tag: &str) -> Markup {
    html! {
        label { span { "Tag" } input name="tag" value=(tag) placeholder="key:value" autocomplete="off"; }
    }
}

/// The way to a change of every job that the filter finds.
fn selection(query: &JobQuery) -> Markup {
    html! {
        div.selection {
            @if query.is_all() { span.quiet { "Filter the jobs to change many of them at once." } } @else {
                span.quiet { "All jobs of this filter:" }
                @for (action, label) in [("cancel", "Cancel…"), ("pause", "Pause…"), ("resume", "Resume…"), ("retry", "Retry…")] {
                    a.button href=(format!("/jobs/all/{action}?{}", query.filter())) data-ask="" { (label) }
                }
            }
        }
    }
}

fn table(viewer: &Viewer, jobs: &[Job]) -> Markup {
    html! {
        table.jobs.stack #jobs {
            thead { tr {
                th { "State" } th { "Job" } th.num.wide { "Priority" } th { "Progress" }
                th.num.wide { "Tasks/s" } th.num { "Time" } th.num.wide { "Submitted" }
            } }
            tbody data-rows="" {
                @for job in jobs {
                    tr id=(format!("job-{}", job.id)) {
                        td { (marks::job(job)) }
                        td.job {
                            (job_name(job))
                            @if let Some(error) = &job.error { div.why.bad { (error) } }
                            @else if let Some(notice) = &job.notice { div.why.warns { (notice) } }
                        }
                        td.num.wide { (job.priority) }
                        td { (progress(job)) }
                        td.num.wide { (job.progress.tasks_per_second.map_or_else(|| "–".to_owned(), short)) }
                        td.num { (lasted(job, viewer.now)) }
                        td.num.wide { (ago(job.submitted_at, viewer.now)) }
                    }
                }
            }
        }
    }
}

fn pages(list: &JobList<'_>) -> Markup {
    let query = list.query;
    html! {
        nav.pages aria-label="Pages of the list" {
            @if query.page.is_some() { a href=(query.path(None)) { "Newest" } }
            @if let Some(next) = list.next { a rel="next" href=(query.path(Some(next))) { "Older" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_list_is_slow_to_make_where_it_looks_for_a_text() {
        let shown = |query: &str| {
            let query = JobQuery::parse(query).expect("valid");
            let list =
                JobList { query: &query, jobs: &[], next: None, gave_up_after: None, error: None, changed: None };
            jobs_page(&samples::viewer(), &list).0
        };
        assert!(shown("text=needle").contains("data-slow"));
        assert!(!shown("state=failed&since=1h").contains("data-slow"));
    }
}
