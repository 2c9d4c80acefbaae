//! Prints answers to stdout in the requested format.

use std::io::{ErrorKind, Write, stderr, stdout};

use api::Job;
use jiff::Timestamp;
use model::{JobState, Labels, TaskState};
use serde::Serialize;

use crate::arguments::Format;
use crate::failure::Failure;
use crate::printable::json_line;
use crate::table::{Cell, Table, Tone, is_coloured};
use crate::words::{between, figure, percent, span, span_of_seconds};

/// Prints data to stdout; a reader that has closed it is a failure, not a panic.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(stdout(), "{line}").map_err(|error| unwritable(&error))
}

/// Prints text to stdout as it is.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    stdout().write_all(text.as_bytes()).map_err(|error| unwritable(&error))
}

/// The failure of a write to stdout.
pub(crate) fn unwritable(error: &std::io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        return Failure::Quiet(READER_GONE);
    }
    Failure::Failed(format!("cannot write to stdout: {error}"))
}

/// The exit code of a program that SIGPIPE has ended, as a shell reports it.
const READER_GONE: u8 = 128 + 13;

/// Prints a line for people to stderr. A closed stderr is no failure: the command has done its work all the same.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print_line(&json_line(&serde_json::to_string(value).map_err(anyhow::Error::from)?))
}

pub(crate) fn print_table<const N: usize>(table: &Table<N>) -> Result<(), Failure> {
    print_line(&table.render(is_coloured()))
}

/// Prints jobs: as rows, as one JSON value a line, or as ids.
pub(crate) fn print_jobs(format: Format, jobs: &[Job]) -> Result<(), Failure> {
    match format {
        Format::Table => print_table(&job_table(jobs, Timestamp::now())),
        Format::Json => jobs.iter().try_for_each(print_json),
        Format::Quiet => jobs.iter().try_for_each(|job| print_line(&job.id.to_string())),
    }
}

pub(crate) fn job_table(jobs: &[Job], now: Timestamp) -> Table<10> {
    let head = ["ID", "KIND", "STATE", "PRIORITY", "DONE", "TASKS", "RATE", "LEFT", "AGE", "TAGS"];
    let mut table = Table::new(head);
    for job in jobs {
        let left = job.progress.seconds_left.filter(|_| !job.state.is_over());
        table.push([
            Cell::new(job.id.to_string()),
            Cell::new(job.kind.as_str()),
            state_cell(job),
            Cell::number(job.priority),
            Cell::number(percent(job.progress.fraction)),
            Cell::number(format!("{}/{}", job.tasks.succeeded, job.tasks.total)),
            Cell::number(rate(job).unwrap_or_default()),
            Cell::number(left.map(span_of_seconds).unwrap_or_default()),
            Cell::number(span(between(job.submitted_at, now))),
            Cell::new(labels(&job.tags)),
        ]);
    }
    table
}

/// Tasks a second of a job that is under way.
pub(crate) fn rate(job: &Job) -> Option<String> {
    let rate = job.progress.tasks_per_second.filter(|_| job.state == JobState::Running)?;
    Some(format!("{}/s", figure(rate)))
}

pub(crate) fn labels(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// A job's state with its colour.
pub(crate) fn state_cell(job: &Job) -> Cell {
    let (state, tone) = job_state(job);
    Cell::new(state).toned(tone)
}

/// A job's state for people: a started job that no worker can run now is waiting.
pub(crate) fn job_state(job: &Job) -> (&'static str, Tone) {
    if job.state == JobState::Running && job.tasks.running == 0 && job.notice.is_some() {
        return ("waiting", Tone::Waiting);
    }
    (job.state.as_str(), job_tone(job.state))
}

fn job_tone(state: JobState) -> Tone {
    match state {
        JobState::Queued => Tone::Plain,
        JobState::Running => Tone::Active,
        JobState::Paused => Tone::Waiting,
        JobState::Succeeded => Tone::Good,
        JobState::Failed => Tone::Bad,
        JobState::Canceled => Tone::Faint,
    }
}

pub(crate) fn task_tone(state: TaskState) -> Tone {
    match state {
        TaskState::Pending => Tone::Plain,
        TaskState::Running => Tone::Active,
        TaskState::Succeeded => Tone::Good,
        TaskState::Failed => Tone::Bad,
    }
}
