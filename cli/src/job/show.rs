//! `divvy job show`.

use api::client::Client;
use api::{Job, JobVerification};
use model::{JobId, WorkerId, counted};

use crate::arguments::Format;
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{labels, print_json, print_line, print_table, rate, state_cell};
use crate::table::{Cell, Table};
use crate::words::{between, figure, instant, memory, percent, span, span_of_seconds};

pub(super) async fn run(grid: &Client, format: Format, id: JobId) -> Result<(), Failure> {
    let job = patiently(async || grid.job(id).await).await?;
    match format {
        Format::Table => print_table(&describe(&job)),
        Format::Json => print_json(&job),
        Format::Quiet => print_line(&job.id.to_string()),
    }
}

/// The job's fields under the names of the options that set them, the most telling first. Empty fields are left out.
fn describe(job: &Job) -> Table<2> {
    let tasks = &job.tasks;
    let counts = format!(
        "{} of {} succeeded, {} running, {} pending, {} failed",
        tasks.succeeded, tasks.total, tasks.running, tasks.pending, tasks.failed
    );
    let left = job.progress.seconds_left.filter(|_| !job.state.is_over());
    let took = job.started_at.zip(job.finished_at).map(|(from, to)| span(between(from, to)));
    let mut table = Table::without_head();
    let mut add = |name: &str, value: Cell| table.push([Cell::new(name), value]);
    add("id", Cell::new(job.id.to_string()));
    add("state", state_cell(job));
    for (name, value) in [
        ("error", job.error.clone()),
        ("notice", job.notice.clone()),
        ("kind", Some(job.kind.to_string())),
        ("params", Some(job.params.get().to_owned())),
        ("algorithm", job.algorithm.map(|algorithm| algorithm.to_string())),
        ("priority", Some(job.priority.to_string())),
        ("tag", some(labels(&job.tags))),
        ("done", Some(percent(job.progress.fraction))),
        ("tasks", Some(counts)),
        ("verified", job.verification.as_ref().map(verified)),
        ("set aside", job.verification.as_ref().and_then(set_aside)),
        ("numbers", job.progress.numbers_done.map(|count| figure(count as f64))),
        ("rate", rate(job)),
        ("left", left.map(span_of_seconds)),
        ("leases", (job.attempts > 0).then(|| job.attempts.to_string())),
        ("submitted", Some(instant(job.submitted_at))),
        ("submitted by", job.submitted_by.clone()),
        ("started", job.started_at.map(instant)),
        ("finished", job.finished_at.map(instant)),
        ("took", took),
        ("affinity label", some(labels(&job.affinity.labels))),
        ("affinity key", job.affinity.key.clone()),
        ("require", some(labels(&job.requires.labels))),
        ("require cpus", job.requires.cpus.map(|count| count.to_string())),
        ("require memory", job.requires.memory_bytes.map(memory)),
        ("max attempts", Some(job.max_attempts.to_string())),
        ("task timeout", job.timeout.task_seconds.map(|seconds| span_of_seconds(seconds.get().into()))),
        ("job timeout", job.timeout.job_seconds.map(|seconds| span_of_seconds(seconds.get().into()))),
        ("verify share", job.verification.as_ref().map(|verification| verification.share.to_string())),
        ("output name", job.output.clone()),
    ] {
        if let Some(value) = value {
            add(name, Cell::new(value));
        }
    }
    table
}

fn verified(verification: &JobVerification) -> String {
    let JobVerification { compared_leases, waiting_leases, mismatches, recomputed_tasks, .. } = verification;
    let (leases, tasks) = (counted(*compared_leases, "lease", "leases"), counted(*recomputed_tasks, "task", "tasks"));
    format!("{leases} compared, {waiting_leases} waiting, {mismatches} with a wrong outcome, {tasks} computed anew")
}

/// The workers that a comparison has shown to be wrong.
fn set_aside(verification: &JobVerification) -> Option<String> {
    let names: Vec<_> = verification.workers_set_aside.iter().map(WorkerId::as_str).collect();
    some(names.join(" "))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_is_over_says_what_was_compared_and_who_was_wrong() {
        let job = json!({
            "id": "0190a5b0-0000-7000-8000-000000000001", "kind": "sum-of-primes", "params": {}, "state": "succeeded",
            "priority": 5, "tags": {}, "affinity": {}, "requires": {}, "max_attempts": 4, "timeout": {}, "attempts": 9,
            "tasks": {"total": 8, "pending": 0, "running": 0, "succeeded": 8, "failed": 0}, "progress": {"fraction": 1},
            "submitted_at": "2026-03-21T10:00:00Z",
            "verification": {"share": 0.5, "compared_leases": 3, "mismatches": 1, "recomputed_tasks": 2,
                "workers_set_aside": ["liar"]},
        });
        let job = serde_json::from_str(&job.to_string()).expect("a job");
        let shown = describe(&job).render(false);
        let verified = "3 leases compared, 0 waiting, 1 with a wrong outcome, 2 tasks computed anew";
        for (name, value) in [("verified", verified), ("set aside", "liar"), ("verify share", "0.5")] {
            let is_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.trim_start() == value);
            assert!(shown.lines().any(is_it), "{name} in {shown}");
        }
    }
}
