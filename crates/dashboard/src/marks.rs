//! States as a shape, a word and a color, so that none of them is the only sign.

use api::Job;
use maud::{Markup, html};
use model::{JobState, TaskState};

/// The look of a state.
struct Mark {
    class: &'static str,
    /// A path in a square of 12 by 12.
    shape: &'static str,
}

const WAITS: Mark = Mark {
    class: "waits",
    shape: "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9Zm0 1.6a2.9 2.9 0 1 1 0 5.8a2.9 2.9 0 0 1 0-5.8Z",
};
const RUNS: Mark = Mark { class: "runs", shape: "M3 1.5v9l7.5-4.5Z" };
const PAUSED: Mark = Mark { class: "paused", shape: "M2.5 1.5h2.6v9H2.5ZM6.9 1.5h2.6v9H6.9Z" };
const GOOD: Mark = Mark { class: "good", shape: "M1 6.4 2.5 4.9 4.7 7.1 9.5 2.2 11 3.7 4.7 10.1Z" };
const BAD: Mark = Mark {
    class: "bad",
    shape: "M2.7 1.3 6 4.6 9.3 1.3 10.7 2.7 7.4 6 10.7 9.3 9.3 10.7 6 7.4 2.7 10.7 1.3 9.3 4.6 6 1.3 2.7Z",
};
const ENDED: Mark = Mark { class: "ended", shape: "M2 2h8v8H2Z" };
const WARNS: Mark = Mark { class: "warns", shape: "M6 .8 11.6 11H.4ZM5.3 4.2v3.3h1.4V4.2Zm0 4.2v1.3h1.4V8.4Z" };

fn chip(mark: &Mark, word: &str) -> Markup {
    html! {
        span class=(format!("state {}", mark.class)) {
            svg viewBox="0 0 12 12" aria-hidden="true" { path d=(mark.shape) fill-rule="evenodd" {} }
            (word)
        }
    }
}

pub(crate) fn job_state(state: JobState) -> Markup {
    let mark = match state {
        JobState::Queued => WAITS,
        JobState::Running => RUNS,
        JobState::Paused => PAUSED,
        JobState::Succeeded => GOOD,
        JobState::Failed => BAD,
        JobState::Canceled => ENDED,
    };
    chip(&mark, state.as_str())
}

/// A job's state for people: a started job that no worker can run now is waiting.
pub(crate) fn job(job: &Job) -> Markup {
    if job.state == JobState::Running && cannot_run(job) { warning("waiting") } else { job_state(job.state) }
}

/// Whether a job that is not over has a reason why none of its tasks is with a worker.
pub(crate) fn cannot_run(job: &Job) -> bool {
    !job.state.is_over() && job.tasks.running == 0 && job.notice.is_some()
}

pub(crate) fn task_state(state: TaskState) -> Markup {
    let mark = match state {
        TaskState::Pending => WAITS,
        TaskState::Running => RUNS,
        TaskState::Succeeded => GOOD,
        TaskState::Failed => BAD,
    };
    chip(&mark, state.as_str())
}

pub(crate) fn worker_state(state: api::WorkerState) -> Markup {
    match state {
        api::WorkerState::Ready => chip(&GOOD, "ready"),
        api::WorkerState::Suspended => chip(&WARNS, "suspended"),
        api::WorkerState::Draining => chip(&PAUSED, "draining"),
    }
}

pub(crate) fn coordinator_role(role: api::CoordinatorRole) -> Markup {
    match role {
        api::CoordinatorRole::Leader => chip(&RUNS, "leader"),
        api::CoordinatorRole::Standby => chip(&WAITS, "standby"),
    }
}

pub(crate) fn warning(word: &str) -> Markup {
    chip(&WARNS, word)
}

pub(crate) fn failure(word: &str) -> Markup {
    chip(&BAD, word)
}
