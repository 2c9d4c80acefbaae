//! Confirmation of a change that cannot be undone: a page of its own, which the script shows as a dialog over the page that
//! links to it.

use api::{Job, WorkerSummary};
use maud::{Markup, html};
use model::JobState;

use crate::columns::job_name;
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::marks;
use crate::words::{count, counted};

/// A question with the form that says yes.
pub(crate) struct Question<'a> {
    /// The action, which is the label of the button too: `Cancel job`.
    pub(crate) title: &'a str,
    /// Whether the change stops work.
    pub(crate) is_dangerous: bool,
    /// The target of the form; `None` where there is nothing to change.
    pub(crate) action: Option<&'a str>,
    /// The page that was there before.
    pub(crate) back: &'a str,
    /// The object of the change and its consequences.
    pub(crate) about: Markup,
    /// Markup below the buttons.
    pub(crate) details: Markup,
}

pub(crate) fn question(question: &Question<'_>) -> Markup {
    let Question { title, is_dangerous, action, back, about, details } = question;
    html! {
        div.question #question {
            h1 #question-title { (title) "?" }
            (about)
            @match action {
                Some(action) => form.selection method="post" action=(action) {
                    button type="submit" class=(if *is_dangerous { "danger" } else { "main" }) { (title) }
                    a.button href=(back) data-back="" { "Back" }
                },
                None => div.selection { a.button href=(back) data-back="" { "Back" } },
            }
            (details)
        }
    }
}

/// The changes that a job can undergo, with their names.
pub(crate) fn possible(job: &Job) -> &'static [(&'static str, &'static str)] {
    match job.state {
        JobState::Queued | JobState::Running if job.tasks.failed > 0 => {
            &[("pause", "Pause"), ("retry", "Retry failed"), ("cancel", "Cancel…")]
        }
        JobState::Queued | JobState::Running => &[("pause", "Pause"), ("cancel", "Cancel…")],
        JobState::Paused => &[("resume", "Resume"), ("cancel", "Cancel…")],
        // Its workers have ended with it.
        JobState::Failed | JobState::Canceled if job.requires.are_of_simulation() => &[],
        JobState::Failed | JobState::Canceled => &[("retry", "Retry")],
        JobState::Succeeded => &[],
    }
}

/// The page at `/jobs/{id}/{action}`, for `cancel`, `pause`, `resume` or `retry`.
#[must_use]
pub fn job_question_page(viewer: &Viewer, job: &Job, action: &'static str) -> Markup {
    let verb = format!("{}{}", action[..1].to_uppercase(), &action[1..]);
    let (title, back) = (format!("{verb} job"), format!("/jobs/{}", job.id));
    let target = format!("{back}/{action}");
    let is_possible = possible(job).iter().any(|(name, _)| *name == action);
    let about = html! {
        p { (marks::job(job)) }
        div.about { (job_name(job)) }
        @if !is_possible && action == "retry" && job.requires.are_of_simulation() {
            p { "Its simulated workers have ended with it. Start another simulation instead." }
        } @else if !is_possible { p { "The job is " (job.state.as_str()) ": there is nothing to " (action) "." } }
        @else if action == "cancel" { p { (canceling(job)) } }
    };
    let shown = question(&Question {
        title: &title,
        is_dangerous: action == "cancel",
        action: is_possible.then_some(target.as_str()),
        back: &back,
        about,
        details: html! {},
    });
    page(&Page { title: &title, place: NavigationPage::Jobs, is_live: false, viewer }, &shown)
}

fn canceling(job: &Job) -> Markup {
    let tasks = &job.tasks;
    html! {
        @if tasks.running > 0 { (counted(tasks.running, "task is", "tasks are")) " stopped, and " @if tasks.running == 1 { "its" } @else { "their" } " work is lost. " }
        "Tasks done so far: " (count(tasks.succeeded)) " of " (count(tasks.total)) ". A job that is canceled has no result"
        @if !job.requires.are_of_simulation() { "; it can be retried" } "."
    }
}

/// The page at `/grid/workers/{id}/drain`.
#[must_use]
pub fn drain_question_page(viewer: &Viewer, worker: &WorkerSummary) -> Markup {
    let name = worker.id.as_str();
    let title = format!("Drain {name}");
    let target = format!("/grid/workers/{name}/drain");
    let is_possible = worker.state != api::WorkerState::Draining;
    let until = match worker.delivery {
        api::Delivery::Pushed => "until its process is started again",
        api::Delivery::Pulled => "until nobody has asked under its name for 90 s",
    };
    let about = html! {
        p { (marks::worker_state(worker.state)) }
        @if is_possible { p { "The worker ends what it computes and gets no other tasks " (until) ". A drain cannot be taken back." } }
        @else { p { "The worker is draining already." } }
    };
    let shown = question(&Question {
        title: &title,
        is_dangerous: true,
        action: is_possible.then_some(target.as_str()),
        back: "/grid/workers",
        about,
        details: html! {},
    });
    page(&Page { title: &title, place: NavigationPage::Workers, is_live: false, viewer }, &shown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples;

    #[test]
    fn the_question_says_what_a_cancellation_loses_and_asks_nothing_of_a_job_that_is_over() {
        let tasks = json!({"total": 9, "pending": 4, "running": 2, "succeeded": 3, "failed": 0});
        let running = samples::job(1, &json!({"state": "running", "tasks": tasks}));
        let html = job_question_page(&samples::viewer(), &running, "cancel").0;
        assert!(html.contains("2 tasks are stopped, and their work is lost. Tasks done so far: 3 of 9."), "{html}");
        assert!(
            html.contains("method=\"post\" action=\"/jobs/00000000-0000-0000-0000-000000000001/cancel\""),
            "{html}"
        );
        let over = samples::job(1, &json!({"state": "succeeded"}));
        let html = job_question_page(&samples::viewer(), &over, "cancel").0;
        assert!(html.contains("there is nothing to cancel") && !html.contains("<form class=\"selection\""), "{html}");
    }

    #[test]
    fn a_simulation_that_is_over_is_not_offered_to_be_retried() {
        let fields = json!({"state": "canceled", "requires": {"labels": {"divvy.simulation": "s"}}});
        let simulation = samples::job(1, &fields);
        assert!(possible(&simulation).is_empty());
        let html = job_question_page(&samples::viewer(), &simulation, "retry").0;
        assert!(html.contains("Start another simulation") && !html.contains("<form class=\"selection\""), "{html}");
        let tagged = samples::job(1, &json!({"state": "canceled", "tags": {"simulation": "true"}}));
        assert_eq!(possible(&tagged), [("retry", "Retry")], "the tag is anybody's");
    }
}
