use std::num::NonZeroU32;

use model::{Affinity, JobKind, JobOptions, JobState, Priority, Requirements, Timeout, TraceContext};

use super::Harness;
use super::helpers::*;
use crate::{ChangeKind, Submission, SubmitError, WriteError};

pub async fn an_accepted_job_is_there_after_a_restart_as_it_was_submitted(harness: &dyn Harness) {
    let store = harness.open();
    let words = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut new = range_job(1, 7);
    (new.kind, new.is_individual) = (JobKind::SLEEP, true);
    new.options = JobOptions {
        priority: Priority::HIGHEST,
        tags: [words("user", "ann"), words("empty", "")].into(),
        affinity: Affinity { labels: [words("zone", "a")].into(), key: Some("k".to_owned()) },
        requires: Requirements {
            labels: [words("gpu", "1")].into(),
            cpus: Some(3),
            memory_bytes: Some(1 << 40),
            ..Requirements::default()
        },
        max_attempts: NonZeroU32::new(2).expect("not 0"),
        timeout: Timeout { task_seconds: NonZeroU32::new(4), job_seconds: NonZeroU32::new(5) },
        output: Some("name".to_owned()),
        verify: model::Share::try_from(0.05).ok(),
        chunk_size: std::num::NonZeroU64::new(77),
        submitted_by: Some("ann@example".to_owned()),
        is_admitted: true,
        trace: TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=1"),
    };
    assert_eq!(store.submit(new.clone()).await, Ok(Submission::New));
    store.close().expect("all is committed");

    let store = harness.open();
    let found = only_unfinished(&store).await;
    assert_eq!((found.record.id, found.record.kind), (new.id, new.kind));
    assert_eq!(found.record.options, new.options);
    assert_eq!(found.record.params.get(), new.params.get());
    assert_eq!((found.record.state, found.record.submitted_at), (JobState::Queued, new.submitted_at));
    assert_eq!((found.done.len(), found.failed.len(), found.retries.len()), (0, 0, 0));
    assert_eq!(store.job(new.id).await.map(|job| job.map(|job| job.options)), Ok(Some(new.options)));
}

pub async fn a_repeated_submission_is_the_same_job_and_another_body_under_its_names_is_refused(harness: &dyn Harness) {
    let store = harness.open();
    let mut first = range_job(1, 5);
    first.idempotency_key = Some("key".to_owned());
    assert_eq!(store.submit(first.clone()).await, Ok(Submission::New));
    assert_eq!(store.submit(first.clone()).await, Ok(Submission::Existing(first.id)));

    let mut same_key = first.clone();
    same_key.id = id(2);
    assert_eq!(store.submit(same_key.clone()).await, Ok(Submission::Existing(first.id)));
    same_key.fingerprint = [9; 32];
    assert_eq!(store.submit(same_key).await, Err(SubmitError::Mismatch { existing: first.id }));

    let mut same_id = first.clone();
    same_id.idempotency_key = None;
    same_id.fingerprint = [9; 32];
    assert_eq!(store.submit(same_id).await, Err(SubmitError::Mismatch { existing: first.id }));
    assert_eq!(store.unfinished().await.expect("readable").len(), 1);
}

pub async fn of_named_jobs_those_that_are_not_over_are_read_with_what_is_done_of_them(harness: &dyn Harness) {
    let store = harness.open();
    for number in 1..=5 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    store.record(completed(id(2), 0..4, 7));
    store.commit(change(id(3), at(9), ChangeKind::Canceled)).await.expect("room");
    let found = store.unfinished_jobs(vec![id(4), id(9), id(3), id(2)]).await.expect("readable");
    assert_eq!(found.iter().map(|job| job.record.id).collect::<Vec<_>>(), [id(2), id(4)]);
    assert!(found[0].done.iter().cloned().eq(std::iter::once(0..4)), "{found:?}");
    assert_eq!((found[0].record.value, found[1].done.len()), (7, 0));
    assert!(store.unfinished_jobs(Vec::new()).await.expect("readable").is_empty());
}

pub async fn of_submissions_at_once_under_one_key_exactly_one_is_new(harness: &dyn Harness) {
    let store = harness.open();
    let store = std::sync::Arc::new(store);
    let submissions: Vec<_> = (1..=20)
        .map(|number| {
            let mut job = range_job(number, 5);
            (job.idempotency_key, job.fingerprint) = (Some("key".to_owned()), [1; 32]);
            let store = store.clone();
            tokio::spawn(async move { store.submit(job).await })
        })
        .collect();
    let mut new = 0;
    for submission in submissions {
        new += usize::from(submission.await.expect("no panic") == Ok(Submission::New));
    }
    assert_eq!((new, store.unfinished().await.expect("readable").len()), (1, 1));
}

pub async fn a_job_whose_payloads_are_not_as_many_as_its_tasks_is_refused(harness: &dyn Harness) {
    let store = harness.open();
    let mut job = tasks_job(1, numbers(3));
    job.tasks = 4;
    let refused = store.submit(job).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Refused(_)))), "{refused:?}");
    assert!(store.unfinished().await.expect("readable").is_empty());
}

pub async fn ten_thousand_kinds_of_payload_come_back_as_they_were_in_any_pieces(harness: &dyn Harness) {
    let store = harness.open();
    let payloads: Vec<_> = (0..10_000_u64)
        .map(|n| match n % 4 {
            0 => raw(&n.to_string()),
            1 => raw(&format!("[[{n}], \"ü]\\\"\"]")),
            2 => raw(&format!("{{\"n\": {n}, \"text\": \"{}\"}}", "x".repeat((n % 900) as usize))),
            _ => raw("null"),
        })
        .collect();
    let job = tasks_job(1, payloads.clone());
    store.submit(job.clone()).await.expect("room");
    store.close().expect("all is committed");

    let store = harness.open();
    assert_eq!(only_unfinished(&store).await.record.tasks, 10_000);
    for run in [0..1, 511..513, 0..10_000, 9_999..10_000, 400..400] {
        let expected: Vec<_> = payloads[run.clone()].iter().map(|payload| payload.get()).collect();
        let found = store.payloads(job.id, run.start as u64..run.end as u64).await.expect("tasks of the job");
        assert_eq!(found.iter().map(|payload| payload.get()).collect::<Vec<_>>(), expected);
    }
    assert!(store.payloads(job.id, 9_999..10_001).await.is_err());
    assert!(store.payloads(id(2), 0..1).await.is_err());
}

pub async fn a_payload_larger_than_a_block_is_a_block_by_itself(harness: &dyn Harness) {
    let store = harness.open();
    let large = raw(&format!("\"{}\"", "x".repeat(1_000_000)));
    let payloads = vec![raw("1"), large.clone(), raw("2"), large.clone(), large];
    let job = tasks_job(1, payloads.clone());
    store.submit(job.clone()).await.expect("room");
    for (task, payload) in payloads.iter().enumerate() {
        let found = store.payloads(job.id, task as u64..task as u64 + 1).await.expect("a task of the job");
        assert_eq!(found[0].get(), payload.get());
    }
}
