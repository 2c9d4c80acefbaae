//! Submitting a job, or a simulation.

use maud::{Markup, html};
use model::JobKind;
use workloads::parameters;

use crate::form::{field, field_name, parameter_field, value};
use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::program::upload_form;

/// A form with its filled-in values.
#[derive(Debug)]
pub struct SubmitForm<'a> {
    /// The kind that the form submits; `None` for a simulation.
    pub kind: Option<JobKind>,
    /// The values of the fields.
    pub values: &'a [(String, String)],
    /// The field that is wrong and why.
    pub wrong: Option<(String, String)>,
    /// A name for the request, so that a form that is sent twice makes one job.
    pub key: &'a str,
}

/// The page at `/submit`.
#[must_use]
pub fn submit_page(viewer: &Viewer, form: &SubmitForm<'_>) -> Markup {
    let summary = form.kind.and_then(|kind| workloads::kind(kind).ok()).map(|kind| kind.summary());
    let may_submit = viewer.may_submit && (form.kind != Some(JobKind::PROGRAM) || viewer.may_run_programs);
    let content = html! {
        h1 { "Submit" }
        nav.kinds aria-label="Kinds of job" {
            @for kind in workloads::KINDS {
                @let name = kind.name();
                a href=(format!("/submit?kind={name}")) aria-current=[(form.kind == Some(name)).then_some("page")] { (name) }
            }
            a href="/submit?kind=simulation" aria-current=[form.kind.is_none().then_some("page")] { "simulation" }
        }
        p.quiet { (summary.unwrap_or("Starts simulated workers and tasks for them, to see how the grid schedules")) "." }
        @if !viewer.may_submit { p.notice { "Your token may not submit jobs." } }
        @if form.kind == Some(JobKind::PROGRAM) { (upload_form(viewer, value(form.values, "uploaded"))) }
        (errors(form))
        form.form method="post" action="/submit" data-keep="" {
            input type="hidden" name="key" value=(form.key);
            @match form.kind {
                Some(kind) => (job_form(form, kind)),
                None => (simulation_form(form)),
            }
            div {
                button.main type="submit" disabled[!may_submit] {
                    @if form.kind.is_some() { "Submit job" } @else { "Start simulation" }
                }
            }
        }
    };
    page(&Page { title: "Submit", place: NavigationPage::Submit, is_live: false, viewer }, &content)
}

fn errors(form: &SubmitForm<'_>) -> Markup {
    html! {
        @if let Some((field, message)) = &form.wrong {
            @let is_shown = !matches!(field.as_str(), "kind" | "job");
            p.error role="alert" {
                @if is_shown { "The job was not accepted: see " (field.trim_start_matches("p.")) "." } @else { (message) }
            }
        }
    }
}

fn wrong<'a>(form: &'a SubmitForm<'_>, name: &str) -> Option<&'a str> {
    form.wrong.as_ref().filter(|(field, _)| field == name).map(|(_, message)| message.as_str())
}

fn job_form(form: &SubmitForm<'_>, kind: JobKind) -> Markup {
    let is_filled = |name: &&str| value(form.values, name).is_some_and(|value| !value.is_empty());
    let is_open = OPTIONS.iter().any(|name| wrong(form, name).is_some() || is_filled(name));
    html! {
        input type="hidden" name="kind" value=(kind);
        @for parameter in parameters(kind) {
            @let name = field_name(&parameter);
            (parameter_field(&parameter, form.values, wrong(form, &name)))
        }
        div.row {
            (field("priority", "Priority", "1 to 9, larger sooner", wrong(form, "priority"), |id, described| html! {
                select id=(id) name="priority" aria-describedby=(described) {
                    @for priority in (1..=9u8).rev() {
                        option selected[value(form.values, "priority").unwrap_or("5") == priority.to_string()] { (priority) }
                    }
                }
            }))
            (text(form, "tags", "Tags", "key=value, with commas between"))
        }
        details open[is_open] {
            summary { "More options" }
            fieldset {
                div.row {
                    (number(form, "max_attempts", "Attempts", "at a task, 1 to 100; 4 where empty"))
                    (number(form, "job_seconds", "Time limit of the job", "seconds from its submission"))
                    (number(form, "task_seconds", "Time limit of an attempt", "seconds"))
                }
                (text(form, "output", "Output", "a name for its result: letters, digits, '.', '-' and '_'"))
                div.row {
                    (text(form, "requires", "Required labels", "key=value of the workers that alone may run it"))
                    (number(form, "cpus", "Required cores", "at least"))
                    (number(form, "memory_bytes", "Required memory", "bytes at least"))
                }
                (share(form))
                div.row {
                    (text(form, "prefers", "Preferred labels", "key=value of the workers that suit best"))
                    (text(form, "affinity_key", "Affinity key", "tasks under it go to workers that had it before"))
                }
            }
        }
    }
}

/// The field for the share of leases that is computed twice.
fn share(form: &SubmitForm<'_>) -> Markup {
    let hint = "of its leases that another worker computes again, above 0 and up to 1; for kinds whose tasks add up to a number";
    let wrong = wrong(form, "verify");
    field("verify", "Compared share", hint, wrong, |id, described| {
        html! {
            input type="number" id=(id) name="verify" value=[value(form.values, "verify")] autocomplete="off" step="any" min="0" max="1"
                aria-describedby=(described) aria-invalid=[wrong.map(|_| "true")] autofocus[wrong.is_some()];
        }
    })
}

/// The fields that are folded away.
pub(crate) const OPTIONS: &[&str] = &[
    "max_attempts",
    "job_seconds",
    "task_seconds",
    "output",
    "verify",
    "requires",
    "cpus",
    "memory_bytes",
    "prefers",
    "affinity_key",
];

fn simulation_form(form: &SubmitForm<'_>) -> Markup {
    html! {
        input type="hidden" name="kind" value="simulation";
        div.row {
            (number(form, "tasks", "Tasks", "in all, 1 to 1,000,000"))
            (text(form, "seconds", "Seconds", "that each takes, 0 to 3600"))
            (number(form, "workers", "Workers", "of one slot each, 1 to 1,000"))
        }
        (text(form, "priorities", "Priorities", "one job for each, such as 1, 5, 9; one job of priority 5 where empty"))
    }
}

fn text(form: &SubmitForm<'_>, name: &str, label: &str, hint: &str) -> Markup {
    control(form, name, label, hint, "text")
}

fn number(form: &SubmitForm<'_>, name: &str, label: &str, hint: &str) -> Markup {
    control(form, name, label, hint, "number")
}

fn control(form: &SubmitForm<'_>, name: &str, label: &str, hint: &str, input: &str) -> Markup {
    let wrong = wrong(form, name);
    field(name, label, hint, wrong, |id, described| {
        html! {
            input type=(input) id=(id) name=(name) value=[value(form.values, name)] autocomplete="off"
                min=[(input == "number").then_some("1")] aria-describedby=(described) aria-invalid=[wrong.map(|_| "true")]
                autofocus[wrong.is_some()];
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_form_has_the_key_that_makes_it_the_same_submission_when_it_is_sent_twice() {
        for kind in [Some(JobKind::SLEEP), Some(JobKind::PROGRAM), None] {
            let form = SubmitForm { kind, values: &[], wrong: None, key: "once" };
            let html = submit_page(&samples::viewer(), &form).0;
            assert_eq!(html.matches("name=\"key\" value=\"once\"").count(), 1, "{html}");
        }
    }

    #[test]
    fn the_wrong_field_alone_has_the_focus() {
        for (kind, name) in [
            (Some(JobKind::SLEEP), "p.seconds"),
            (Some(JobKind::SUM_OF_PRIMES), "p.algorithm"),
            (Some(JobKind::TASKS), "p.list"),
            (Some(JobKind::PROGRAM), "p.program"),
            (Some(JobKind::SLEEP), "tags"),
            (Some(JobKind::SLEEP), "verify"),
            (None, "workers"),
        ] {
            let shown = |wrong: Option<(String, String)>| {
                submit_page(&samples::viewer(), &SubmitForm { kind, values: &[], wrong, key: "once" }).0
            };
            assert_eq!(shown(None).matches("autofocus").count(), 0, "{name}");
            let html = shown(Some((name.to_owned(), "is wrong".to_owned())));
            assert_eq!(html.matches("aria-invalid=\"true\" autofocus").count(), 1, "{name}: {html}");
            assert_eq!(html.matches("autofocus").count(), 1, "{name}: {html}");
        }
    }
}
