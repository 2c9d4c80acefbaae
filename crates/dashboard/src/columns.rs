//! Cells that several tables have.

use api::Job;
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use crate::words::{between, count, cut, span};

/// The most characters of parameters in a row.
const SHOWN_PARAMS: usize = 120;

/// A bar with its figures: the progress of a job.
pub(crate) fn progress(job: &Job) -> Markup {
    let (done, failed, total) = (job.tasks.succeeded, job.tasks.failed, job.tasks.total);
    let [done_parts, _, failed_parts] = parts(job);
    html! {
        div.progress {
            (bar(&[done_parts, failed_parts], PARTS))
            span.figures { (percent_done(job)) " %" }
        }
        small.num {
            (count(done)) " / " (count(total))
            @if failed > 0 { span.bad { " · " (count(failed)) " failed" } }
        }
    }
}

/// Parts that a job's work is divided into where it is drawn.
pub(crate) const PARTS: u64 = 10_000;

/// The parts of a job that are done, those with workers, and those that failed. Tasks may differ in their work.
pub(crate) fn parts(job: &Job) -> [(u64, &'static str); 3] {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 10,000")]
    let done = (job.progress.fraction.clamp(0.0, 1.0) * 10_000.0) as u64;
    let share = |tasks: u64| u128::from(tasks) * u128::from(PARTS) / u128::from(job.tasks.total.max(1));
    let share = |tasks: u64| u64::try_from(share(tasks)).unwrap_or(PARTS);
    let failed = share(job.tasks.failed).min(PARTS - done);
    [(done, "done"), (share(job.tasks.running).min(PARTS - done - failed), "running"), (failed, "lost")]
}

/// The done share of a job in whole percent: 100 only when all tasks are done.
pub(crate) fn percent_done(job: &Job) -> u64 {
    if job.tasks.succeeded == job.tasks.total {
        return 100;
    }
    // A share such as 0.29 is a little less as a sum of tasks.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 100")]
    let percent = (job.progress.fraction.clamp(0.0, 1.0) * 100.0 + 1e-9) as u64;
    percent.min(99)
}

/// A bar of parts of a whole; its figures stand beside it.
pub(crate) fn bar(parts: &[(u64, &'static str)], total: u64) -> Markup {
    let mut at = 0.0;
    let placed = parts.iter().map(|(part, class)| {
        let start = at;
        #[expect(clippy::cast_precision_loss, reason = "a drawing")]
        let width = if total == 0 { 0.0 } else { *part as f64 / total as f64 * 100.0 };
        at += width;
        (start, width, *class)
    });
    html! {
        svg.bar viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" {
            rect.rest width="100" height="6" {}
            @for (start, width, class) in placed {
                rect class=(class) x=(format!("{start:.2}")) width=(format!("{width:.2}")) height="6" {}
            }
        }
    }
}

/// The job's kind as a link, with its parameters, its id and its tags.
pub(crate) fn job_name(job: &Job) -> Markup {
    let id = job.id.to_string();
    html! {
        a.name href=(format!("/jobs/{id}")) { (job.kind) }
        " " span.params title=(job.params.get().chars().take(400).collect::<String>()) { (params(job.params.get())) }
        div.sub {
            code title=(id) { (short_id(&id)) }
            @for (key, value) in job.tags.iter().take(4) { " " (tag(key, value)) }
            @if job.tags.len() > 4 { " " span { "+" (job.tags.len() - 4) } }
        }
    }
}

pub(crate) fn tag(key: &str, value: &str) -> Markup {
    let wanted = serde_urlencoded::to_string([("tag", format!("{key}:{value}"))]).unwrap_or_default();
    html! { a.tag href=(format!("/jobs?{wanted}")) { bdi { (key) } @if !value.is_empty() { "=" bdi { (value) } } } }
}

/// The fewest hexadecimal digits in a row that a worker's name is shown without.
const MANY_DIGITS: usize = 16;

/// The last of them, which are shown.
const SHOWN_DIGITS: usize = 6;

/// A worker's name, with the middle of a long id in it left out.
pub(crate) fn worker_name(name: &str) -> Markup {
    let short = short_worker(name);
    html! { span title=[(short != name).then_some(name)] { (short) } }
}

fn short_worker(name: &str) -> String {
    let parts = name.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let shortened = parts.map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits < MANY_DIGITS { part.to_owned() } else { format!("…{}", &part[digits - SHOWN_DIGITS..]) }
    });
    shortened.collect()
}

/// The end of an id: a UUIDv7 begins with its time, which neighbours share.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(id.len().saturating_sub(12)..).unwrap_or(id)
}

/// Parameters in a line: `a 1 · b 100`.
pub(crate) fn params(json: &str) -> String {
    let text = match serde_json::from_str::<Value>(json) {
        Ok(Value::Object(fields)) => {
            fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(" · ")
        }
        _ => json.to_owned(),
    };
    cut(SHOWN_PARAMS, &text)
}

pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), count),
        other @ (Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}

/// The time for which a job ran, has run or has waited.
pub(crate) fn lasted(job: &Job, now: Timestamp) -> Markup {
    html! {
        @match (job.started_at, job.finished_at) {
            (Some(start), Some(end)) => (span(between(start, end))),
            (Some(start), None) => (span(between(start, now))),
            (None, Some(_)) => "–",
            (None, None) => span.quiet { "waits " (span(between(job.submitted_at, now))) },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples;

    #[test]
    fn progress_is_the_share_of_the_work_and_full_only_when_all_tasks_are_done() {
        let job = |fraction: f64, [running, succeeded, failed]: [u64; 3]| {
            let tasks = json!({"total": 4, "pending": 0, "running": running, "succeeded": succeeded, "failed": failed});
            samples::job(1, &json!({"progress": {"fraction": fraction}, "tasks": tasks}))
        };
        let percents = [(0.29, [0, 3, 0]), (1.0, [0, 3, 1]), (1.0, [0, 4, 0]), (0.999, [1, 3, 0])];
        assert_eq!(percents.map(|(fraction, tasks)| percent_done(&job(fraction, tasks))), [29, 99, 100, 99]);
        let parts = parts(&job(0.9, [1, 2, 1])).map(|(parts, _)| parts);
        assert_eq!(parts, [9_000, 0, 1_000]);
    }

    #[test]
    fn the_middle_of_a_long_id_in_a_workers_name_is_left_out() {
        let short = ["worker-1", "simulated-01a21a8634a0761db1b8c248d0e77553-12", "deadbeef-é"].map(short_worker);
        assert_eq!(short, ["worker-1", "simulated-…e77553-12", "deadbeef-é"].map(str::to_owned));
    }
}
