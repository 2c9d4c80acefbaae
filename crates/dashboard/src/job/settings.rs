//! The settings of a job, and the state of its verification.

use std::num::NonZeroU32;
use std::time::Duration;

use api::{Job, JobVerification};
use maud::{Markup, html};
use serde_json::Value;

use crate::columns::{plain, worker_name};
use crate::words::{self, bytes, count, counted, span};

/// The longest parameter that is shown.
const SHOWN_CHARS: usize = 2_000;

pub(super) fn settings(job: &Job) -> Markup {
    let params: Vec<(String, String)> = match serde_json::from_str::<Value>(job.params.get()) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, value)| (name, cut(&plain(&value)))).collect(),
        _ => vec![("params".to_owned(), cut(job.params.get()))],
    };
    let timeout =
        |seconds: Option<NonZeroU32>| seconds.map(|seconds| span(Duration::from_secs(u64::from(seconds.get()))));
    html! {
        dl.settings {
            @for (name, value) in params { dt { (name) } dd { (value) } }
            @if let Some(algorithm) = job.algorithm { dt { "computed by" } dd { (algorithm) } }
            dt { "priority" } dd { (job.priority) }
            dt { "max_attempts" } dd { (job.max_attempts) }
            @if let Some(timeout) = timeout(job.timeout.job_seconds) { dt { "job timeout" } dd { (timeout) } }
            @if let Some(timeout) = timeout(job.timeout.task_seconds) { dt { "task timeout" } dd { (timeout) } }
            @if let Some(output) = &job.output { dt { "output" } dd { (output) } }
            @for (key, value) in &job.requires.labels { dt { "requires" } dd { (key) "=" (value) } }
            @if let Some(cpus) = job.requires.cpus { dt { "requires" } dd { (cpus) " cores" } }
            @if let Some(memory) = job.requires.memory_bytes { dt { "requires" } dd { (bytes(memory)) } }
            @for (key, value) in &job.affinity.labels { dt { "prefers" } dd { (key) "=" (value) } }
            @if let Some(key) = &job.affinity.key { dt { "affinity key" } dd { (key) } }
            @if let Some(name) = &job.submitted_by { dt { "submitted by" } dd { (name) } }
            @if let Some(verification) = &job.verification { (compared(verification)) }
        }
    }
}

/// The state of a job's verification.
fn compared(verification: &JobVerification) -> Markup {
    let JobVerification { share, compared_leases, waiting_leases, mismatches, recomputed_tasks, workers_set_aside } =
        verification;
    html! {
        dt { "compared" }
        dd {
            (counted(*compared_leases, "lease", "leases")) " of a share of " (share.as_f64())
            @if *waiting_leases > 0 { ", " (count(*waiting_leases)) " wait for another worker" }
        }
        dt { "differed" }
        dd {
            @if *mismatches > 0 {
                span.bad { (count(*mismatches)) } ", " (counted(*recomputed_tasks, "task", "tasks")) " computed again"
            } @else { "none" }
        }
        @for worker in workers_set_aside { dt { "set aside" } dd { (worker_name(worker.as_str())) } }
    }
}

fn cut(text: &str) -> String {
    words::cut(SHOWN_CHARS, text)
}
