//! The question before many jobs change.

use api::Job;
use maud::{Markup, html};

use crate::columns::job_name;
use crate::job_query::JobQuery;
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::question::{Question, question};
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

fn done(action: &str) -> Option<&'static str> {
    match action {
        "cancel" => Some("canceled"),
        "pause" => Some("paused"),
        "resume" => Some("resumed"),
        "retry" => Some("retried"),
        _ => None,
    }
}

/// The outcome of a change of many jobs, in words; `None` for an unknown action.
#[must_use]
pub fn bulk_outcome(action: &str, changed: u64, matched: u64) -> Option<String> {
    let done = done(action)?;
    let rest = match matched.saturating_sub(changed) {
        0 => String::new(),
        rest => format!("; {} could not be", count(rest)),
    };
    Some(format!("{} {done}{rest}.", counted(changed, "job was", "jobs were")))
}

/// The page at `/jobs/all/{action}`.
#[must_use]
pub fn bulk_page(viewer: &Viewer, change: &BulkChange<'_>) -> Markup {
    let BulkChange { action, query, count: jobs, is_more, newest } = change;
    let verb = format!("{}{}", action[..1].to_uppercase(), &action[1..]);
    let title = match (jobs, is_more) {
        (0, true) => format!("{verb} jobs"),
        (_, true) => format!("{verb} more than {} jobs", count(*jobs)),
        (_, false) => format!("{verb} {}", counted(*jobs, "job", "jobs")),
    };
    let back = format!("/jobs?{}", query.filter());
    let target = format!("/jobs/all/{action}?{}", query.filter());
    let about = html! {
        p { "The filter: " @for (name, value) in query.fields() { span.tag { (name) "=" (value) } " " } }
        @let done = done(action).unwrap_or("changed");
        @if *jobs == 0 && *is_more {
            p.empty { "None of the newest jobs, which were searched for the text, can be " (done) "; older ones may. Filter by kind, tag or time too." }
        } @else if *jobs == 0 { p.empty { "No job of this filter can be " (done) "." } }
        @if *action == "retry" && query.states.is_empty() {
            p.quiet { "Canceled jobs are left out: filter by their state to retry them." }
        }
    };
    let details = html! {
        @if *jobs > 0 {
            table.jobs.stack {
                thead { tr { th { "State" } th { "Job" } } }
                tbody { @for job in *newest { tr { td { (marks::job(job)) } td.job { (job_name(job)) } } } }
            }
            @if *jobs > newest.len() as u64 { p.quiet { "The newest " (newest.len()) " are shown." } }
        }
    };
    let content = question(&Question {
        title: &title,
        is_dangerous: *action == "cancel",
        action: (*jobs > 0).then_some(target.as_str()),
        back: &back,
        about,
        details,
    });
    page(&Page { title: &title, place: NavigationPage::Jobs, is_live: false, viewer }, &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_retry_of_jobs_of_any_state_tells_that_canceled_jobs_are_left_out() {
        let shown = |action, filter| {
            let query = JobQuery::parse(filter).expect("a filter");
            let change = BulkChange { action, query: &query, count: 0, is_more: false, newest: &[] };
            bulk_page(&samples::viewer(), &change).0.contains("Canceled jobs are left out")
        };
        assert!(shown("retry", "tag=a"));
        assert!(!shown("retry", "tag=a&state=canceled"));
        assert!(!shown("cancel", "tag=a"));
    }

    #[test]
    fn a_search_that_ended_before_the_first_job_does_not_say_that_there_is_none() {
        let query = JobQuery::parse("text=needle").expect("a filter");
        let shown = |is_more| {
            let change = BulkChange { action: "cancel", query: &query, count: 0, is_more, newest: &[] };
            bulk_page(&samples::viewer(), &change).0
        };
        let html = shown(true);
        assert!(html.contains("Cancel jobs?") && html.contains("can be canceled; older ones may"), "{html}");
        assert!(!html.contains("more than 0") && !html.contains("No job of this filter"), "{html}");
        assert!(shown(false).contains("No job of this filter can be canceled."));
    }

    #[test]
    fn an_outcome_is_told_with_its_thousands_apart() {
        let told = |changed, matched| bulk_outcome("cancel", changed, matched).expect("an action");
        assert_eq!(told(50_000, 51_000), "50,000 jobs were canceled; 1,000 could not be.");
        assert_eq!(told(1, 1), "1 job was canceled.");
        assert_eq!(bulk_outcome("explode", 1, 1), None);
    }
}
