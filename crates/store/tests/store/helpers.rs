//! A store in a directory of its own, and jobs to put into it.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use api::{JobRequest, ParsedJob};
use jiff::Timestamp;
use model::{AttemptId, JobId, JobOptions, JobWork, NumberRange};
use serde_json::value::RawValue;
use store::{Change, NewJob, Outcome, Retention, Store, StoreSettings, UnfinishedJob};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const KEEP_ALL: Retention = Retention { max_age: Duration::from_secs(1_000_000_000), max_bytes: u64::MAX };

pub(crate) fn settings(data_dir: &Path) -> StoreSettings {
    StoreSettings { data_dir: data_dir.to_owned(), results_url: None, retention: KEEP_ALL }
}

pub(crate) fn open(data_dir: &Path) -> Store {
    Store::open(settings(data_dir)).expect("the directory is fine")
}

pub(crate) fn new_store() -> (TempDir, Store) {
    let directory = TempDir::new().expect("there is room");
    let store = open(directory.path());
    (directory, store)
}

/// A moment, so many seconds after another.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time of this century")
}

pub(crate) fn id(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

pub(crate) fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON")
}

/// A range job, submitted so many seconds after the first.
pub(crate) fn range_job(number: u128, tasks: u64) -> NewJob {
    let range = NumberRange::new(10, 9_999_999).expect("ascending");
    let job = ParsedJob { work: JobWork::SumOfPrimes(range), payloads: Vec::new(), options: JobOptions::default() };
    NewJob {
        id: id(number),
        job,
        params: raw(r#"{"a":10,"b":9999999}"#),
        tasks,
        fingerprint: [number as u8; 32],
        idempotency_key: None,
        submitted_at: at(number as i64),
    }
}

/// A job with these payloads as individual tasks.
pub(crate) fn tasks_job(number: u128, payloads: Vec<Box<RawValue>>) -> NewJob {
    let tasks = payloads.len() as u64;
    let mut new = range_job(number, tasks);
    new.job.work = JobWork::Tasks { count: tasks };
    new.job.payloads = payloads;
    new.params = raw(&format!(r#"{{"count":{tasks}}}"#));
    new
}

/// A job from a request's body.
pub(crate) fn parsed_job(number: u128, body: &str) -> NewJob {
    let request: JobRequest = serde_json::from_str(body).expect("a request");
    let (kind_params, tasks) = (request.params.clone(), 1);
    let job = request.parse().expect("a job");
    NewJob { job, params: kind_params, ..range_job(number, tasks) }
}

pub(crate) fn numbers(count: u64) -> Vec<Box<RawValue>> {
    (0..count).map(|number| raw(&number.to_string())).collect()
}

pub(crate) fn completed(job: JobId, tasks: Range<u64>, value: u128) -> Change {
    Change::Completed { job, tasks, value, outcome: None }
}

pub(crate) fn answered(job: JobId, tasks: Range<u64>, results: Vec<Box<RawValue>>) -> Change {
    let outcome = Outcome {
        attempt: AttemptId(Uuid::from_u128(u128::from(tasks.start))),
        worker: "worker-1".to_owned(),
        allocated_at: at(1),
        running_at: at(2),
        completed_at: at(3),
        results,
    };
    Change::Completed { job, tasks, value: 0, outcome: Some(outcome) }
}

pub(crate) fn failed_attempt(job: JobId, tasks: Range<u64>, failures: u32) -> Change {
    let (worker, error) = ("worker-2".to_owned(), "it broke".to_owned());
    Change::AttemptFailed { job, tasks, failures, at: at(4), worker, error }
}

pub(crate) fn failed_tasks(job: JobId, tasks: Range<u64>, failures: u32) -> Change {
    let (worker, error) = ("worker-3".to_owned(), "it broke again".to_owned());
    Change::TasksFailed { job, tasks, failures, at: at(5), worker, error }
}

pub(crate) fn ended(job: JobId, state: model::JobState, result: Option<&str>) -> Change {
    let result = result.map(|json| store::ResultBody::Inline(raw(json)));
    Change::Ended { job, state, result, error: None, at: at(9) }
}

/// The one job that is not over.
pub(crate) fn only_unfinished(store: &Store) -> UnfinishedJob {
    let mut jobs = store.unfinished().expect("readable");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}
