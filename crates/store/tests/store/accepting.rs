use model::{JobState, JobWork};
use store::{Submission, SubmitError, WriteError};

use crate::helpers::*;

#[tokio::test]
async fn an_accepted_job_is_there_after_a_restart_as_it_was_submitted() {
    let (directory, store) = new_store();
    let body = r#"{"kind": "sleep", "params": {"seconds": 0.25, "tasks": 7, "fail_rate": 0.5}, "priority": 9,
        "tags": {"user": "ann", "empty": ""}, "affinity": {"key": "k"}, "requires": {"cpus": 3}, "max_attempts": 2,
        "timeout": {"task_seconds": 4}, "output": "name"}"#;
    let new = parsed_job(1, body);
    assert_eq!(store.submit(new.clone()).await, Ok(Submission::New));
    store.close().expect("all is committed");

    let store = open(directory.path());
    let found = only_unfinished(&store);
    assert_eq!((found.record.id, found.work), (new.id, new.job.work));
    assert_eq!(found.record.options, new.job.options);
    assert_eq!(found.record.params.get(), new.params.get());
    assert_eq!((found.record.state, found.record.submitted_at), (JobState::Queued, new.submitted_at));
    assert_eq!((found.done.len(), found.failed.len(), found.retries.len()), (0, 0, 0));
    assert_eq!(store.job(new.id).await.map(|job| job.map(|job| job.options)), Ok(Some(new.job.options)));
}

#[tokio::test]
async fn a_repeated_submission_is_the_same_job_and_another_body_under_its_names_is_refused() {
    let (_directory, store) = new_store();
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
    assert_eq!(store.unfinished().expect("readable").len(), 1);
}

#[tokio::test]
async fn of_submissions_at_once_under_one_key_exactly_one_is_new() {
    let (_directory, store) = new_store();
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
    assert_eq!((new, store.unfinished().expect("readable").len()), (1, 1));
}

#[tokio::test]
async fn a_job_whose_payloads_are_not_as_many_as_its_tasks_is_refused() {
    let (_directory, store) = new_store();
    let mut job = tasks_job(1, numbers(3));
    job.tasks = 4;
    let refused = store.submit(job).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Refused(_)))), "{refused:?}");
    assert!(store.unfinished().expect("readable").is_empty());
}

#[tokio::test]
async fn ten_thousand_kinds_of_payload_come_back_as_they_were_in_any_pieces() {
    let (directory, store) = new_store();
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

    let store = open(directory.path());
    assert!(matches!(only_unfinished(&store).work, JobWork::Tasks { count: 10_000 }));
    for run in [0..1, 511..513, 0..10_000, 9_999..10_000, 400..400] {
        let expected: Vec<_> = payloads[run.clone()].iter().map(|payload| payload.get()).collect();
        let found = store.payloads(job.id, run.start as u64..run.end as u64).expect("tasks of the job");
        assert_eq!(found.iter().map(|payload| payload.get()).collect::<Vec<_>>(), expected);
    }
    assert!(store.payloads(job.id, 9_999..10_001).is_err());
    assert!(store.payloads(id(2), 0..1).is_err());
}

#[tokio::test]
async fn a_payload_larger_than_a_block_is_a_block_by_itself() {
    let (_directory, store) = new_store();
    let large = raw(&format!("\"{}\"", "x".repeat(1_000_000)));
    let payloads = vec![raw("1"), large.clone(), raw("2"), large.clone(), large];
    let job = tasks_job(1, payloads.clone());
    store.submit(job.clone()).await.expect("room");
    for (task, payload) in payloads.iter().enumerate() {
        let found = store.payloads(job.id, task as u64..task as u64 + 1).expect("a task of the job");
        assert_eq!(found[0].get(), payload.get());
    }
}
