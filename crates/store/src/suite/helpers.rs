//! Jobs and changes to put into a store.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use model::{AttemptId, JobId, JobKind, JobOptions, JobState};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Change, ChangeKind, CompletedAttempt, NewJob, ResultBody, Retention, Store, UnfinishedJob};

pub const KEEP_ALL: Retention = Retention::KEEP_ALL;

/// Busy time of every completed attempt.
pub const BUSY: Duration = Duration::from_secs(1);

/// A moment, so many seconds after another.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time of this century")
}

pub fn id(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

pub fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON")
}

/// A range job, submitted so many seconds after the first.
pub fn range_job(number: u128, tasks: u64) -> NewJob {
    NewJob {
        id: id(number),
        kind: JobKind::SUM_OF_PRIMES,
        is_individual: false,
        payloads: model::Payloads::default(),
        options: JobOptions::default(),
        params: raw(r#"{"a":10,"b":9999999}"#),
        tasks,
        fingerprint: [number as u8; 32],
        idempotency_key: None,
        submitted_at: at(number as i64),
    }
}

/// A job with these payloads as individual tasks.
pub fn tasks_job(number: u128, payloads: Vec<Box<RawValue>>) -> NewJob {
    let tasks = payloads.len() as u64;
    let mut new = range_job(number, tasks);
    (new.kind, new.is_individual) = (JobKind::TASKS, true);
    new.payloads = payloads.into();
    new.params = raw(&format!(r#"{{"count":{tasks}}}"#));
    new
}

pub fn numbers(count: u64) -> Vec<Box<RawValue>> {
    (0..count).map(|number| raw(&number.to_string())).collect()
}

pub fn change(job: JobId, at: Timestamp, kind: ChangeKind) -> Change {
    Change { job, at, kind }
}

pub fn completed(job: JobId, tasks: Range<u64>, value: u128) -> Change {
    change(job, at(3), ChangeKind::Completed { tasks, value, busy: BUSY, outcome: None })
}

/// A lease that was compared, to which `others` attempts beside the one that counts were made.
pub fn compared(job: JobId, tasks: Range<u64>, others: usize, is_mismatch: bool) -> Change {
    change(job, at(2), ChangeKind::Compared { tasks, others: vec![BUSY; others], is_mismatch })
}

pub fn answered(job: JobId, tasks: Range<u64>, results: Vec<Box<RawValue>>) -> Change {
    let outcome = CompletedAttempt {
        attempt: AttemptId(Uuid::from_u128(u128::from(tasks.start))),
        worker: Some("worker-1".to_owned()),
        allocated_at: at(1),
        running_at: at(2),
        completed_at: at(3),
        results,
    };
    change(job, at(3), ChangeKind::Completed { tasks, value: 0, busy: BUSY, outcome: Some(outcome) })
}

pub fn failed_attempt(job: JobId, tasks: Range<u64>, failures: u32) -> Change {
    let (worker, error) = ("worker-2".to_owned(), "it broke".to_owned());
    change(job, at(4), ChangeKind::AttemptFailed { tasks, failures, timed_out: None, worker, error })
}

pub fn failed_tasks(job: JobId, tasks: Range<u64>, failures: u32) -> Change {
    let (worker, error) = ("worker-3".to_owned(), "it broke again".to_owned());
    change(job, at(5), ChangeKind::TasksFailed { tasks, failures, timed_out: None, worker, error })
}

pub fn ended(job: JobId, state: JobState, result: Option<&str>) -> Change {
    let result = result.map(|json| ResultBody::Inline(raw(json)));
    change(job, at(9), ChangeKind::Ended { state, result, error: None })
}

pub fn ended_with(job: JobId, state: JobState, result: ResultBody, at: Timestamp) -> Change {
    change(job, at, ChangeKind::Ended { state, result: Some(result), error: None })
}

/// The one job that is not over.
pub async fn only_unfinished(store: &Store) -> UnfinishedJob {
    let mut jobs = store.unfinished().await.expect("readable");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

pub async fn record_of(store: &Store, job: JobId) -> crate::JobRecord {
    store.job(job).await.expect("readable").expect("there")
}
