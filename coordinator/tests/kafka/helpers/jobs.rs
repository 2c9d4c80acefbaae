//! Jobs that are told from each other.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Coordinator, eventually};

/// A job that is told from others by its tag.
pub(crate) fn job(number: u64) -> String {
    json!({"kind": "tasks", "params": {"list": [number]}, "tags": {"number": number.to_string()}}).to_string()
}

pub(crate) fn jobs(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(job).collect()
}

/// Waits until this many jobs are there. Returns them.
pub(crate) fn wait_for_jobs(coordinator: &Coordinator, count: usize) -> Vec<Value> {
    eventually("every record is a job", || {
        let page = coordinator.get("/v1/jobs?limit=1000");
        let jobs = page["jobs"].as_array().expect("jobs").clone();
        (jobs.len() >= count).then_some(jobs)
    })
}

pub(crate) fn numbers(jobs: &[Value]) -> BTreeSet<u64> {
    let number = |job: &Value| job["tags"]["number"].as_str().expect("a tag").parse().expect("a number");
    jobs.iter().map(number).collect()
}
