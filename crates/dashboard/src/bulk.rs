//! The question before many jobs change.

use api::Job;
use maud::{Markup, html};

use crate::columns::job_name;
use crate::job_query::JobQuery;
use crate::layout::{Page, Place, Viewer, page};
use crate::marks;
use crate::words::{count, counted};

/// A change of every job that a filter finds.
#[derive(Debug)]
pub struct BulkChange<'a> {
    /// `cancel`, `pause`, `resume` or `retry`.
    pub action: &'static str,
    /// The filter.
    pub query: &'a JobQuery,
    /// The jobs that would change.
    pub count: u64,
    /// Whether there are more than were counted.
    pub is_more: bool,
    /// The newest of them.
    pub newest: &'a [Job],
}

/// The page at `/jobs/all/{action}`.
#[must_use]
pub fn bulk_page(viewer: &Viewer, change: &BulkChange<'_>) -> Markup {
    let BulkChange { action, query, count: jobs, is_more, newest } = change;
    let verb = format!("{}{}", action[..1].to_uppercase(), &action[1..]);
    let title = match (jobs, is_more) {
        (_, true) => format!("{verb} more than {} jobs", count(*jobs)),
        (_, false) => format!("{verb} {}", counted(*jobs, "job", "jobs")),
    };
    let back = format!("/jobs?{}", query.filter());
    let content = html! {
        h1 { (title) "?" }
        p { "The filter: " @for (name, value) in query.fields() { span.tag { (name) "=" (value) } " " } }
        @if *jobs == 0 {
            p.empty { "No job of this filter can " (action) "." }
        } @else {
            form.selection method="post" action=(format!("/jobs/all/{action}?{}", query.filter())) {
                button type="submit" class=(if *action == "cancel" { "danger" } else { "main" }) { (title) }
                a.button href=(back) { "Back" }
            }
            table.jobs.stack {
                thead { tr { th { "State" } th { "Job" } } }
                tbody { @for job in *newest { tr { td { (marks::job(job)) } td.job { (job_name(job)) } } } }
            }
            @if *jobs > newest.len() as u64 { p.quiet { "The newest " (newest.len()) " are shown." } }
        }
        @if *jobs == 0 { p { a href=(back) { "Back to the list" } } }
    };
    page(&Page { title: &title, place: Place::Jobs, is_live: false, viewer }, &content)
}
