use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{AttemptId, Composition, JobId, JobKind, JobState, OutputObject, ProgramHash, ProgramOutput};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Harness;
use super::helpers::*;
use crate::{Batch, Change, ChangeKind, CompletedAttempt, Entry, Housekeeping, NewJob, OutputError, Retention, Store};

fn attempt(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(number))
}

fn object(attempt: AttemptId, content: &[u8]) -> OutputObject {
    let sha256 = ProgramHash(Sha256::digest(content).into());
    OutputObject { attempt, bytes: content.len() as u64, sha256, text: std::str::from_utf8(content).is_ok() }
}

/// Hands an output in as the object that it is said to be.
async fn hand_in(
    store: &Store,
    job: JobId,
    task: u64,
    object: OutputObject,
    content: &[u8],
) -> Result<(), OutputError> {
    let mut upload = store.upload_output(job, task, object)?;
    for piece in content.chunks(1_000_003) {
        upload.push(piece).await?;
    }
    upload.finish().await
}

fn program_job(number: u128, tasks: u64) -> NewJob {
    let params = raw(&format!(r#"{{"program":"x","combine":"none","count":{tasks}}}"#));
    NewJob {
        kind: JobKind::PROGRAM,
        is_individual: true,
        params,
        submitted_at: Timestamp::now(),
        ..range_job(number, tasks)
    }
}

fn done(job: JobId, task: u64, attempt: AttemptId, output: &ProgramOutput) -> Change {
    let outcome = CompletedAttempt {
        attempt,
        worker: Some("worker-1".to_owned()),
        allocated_at: at(1),
        running_at: at(2),
        completed_at: at(3),
        results: vec![raw(&serde_json::to_string(output).expect("JSON"))],
    };
    change(job, at(3), ChangeKind::Completed { tasks: task..task + 1, value: 0, busy: BUSY, outcome: Some(outcome) })
}

/// Text that JSON escapes, cut anywhere by pieces of any length.
fn text(bytes: usize) -> String {
    "\"ü\u{1}\n€\\".repeat(bytes.div_ceil(10))
}

fn binary(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place % 251) as u8).collect()
}

pub async fn an_output_is_there_after_a_restart_if_it_is_what_was_announced(harness: &dyn Harness) {
    let store = harness.open();
    let (job, by) = (id(1), attempt(7));
    store.submit(program_job(1, 3)).await.expect("room");
    for (task, content) in [(0, text(100_000).into_bytes()), (1, binary(20_000_000))] {
        let object = object(by, &content);
        assert_eq!(store.has_output(job, task, &object).await, Ok(false));
        for _ in 0..2 {
            assert_eq!(hand_in(&store, job, task, object, &content).await, Ok(()), "idempotent");
        }
        assert_eq!(store.has_output(job, task, &object).await, Ok(true));
    }
    let content = binary(9_000_000);
    let right = object(by, &content);
    for wrong in [
        OutputObject { bytes: right.bytes - 1, ..right },
        OutputObject { bytes: right.bytes + 1, ..right },
        OutputObject { sha256: ProgramHash([1; 32]), ..right },
        OutputObject { text: true, ..right },
    ] {
        let refused = hand_in(&store, job, 2, wrong, &content).await;
        assert!(matches!(refused, Err(OutputError::Different(_))), "{refused:?}");
        assert_eq!(store.has_output(job, 2, &wrong).await, Ok(false));
    }
    store.close().expect("all is committed");

    let store = harness.open();
    let content = binary(20_000_000);
    let object = object(by, &content);
    assert_eq!(store.has_output(job, 1, &object).await, Ok(true));
    assert_eq!(store.keeps_output(job, 1, &object).await, Ok(true));
    assert_eq!(store.keeps_output(job, 0, &object).await, Ok(false), "of another task");
    assert_eq!(store.has_output(job, 0, &object).await, Ok(false), "of another task");
    let mut bytes = store.output_bytes(job, 1, ProgramOutput::Object { object }).await.expect("there");
    assert_eq!(bytes.bytes(), object.bytes);
    let mut rest = &content[..];
    while let Some(piece) = bytes.next().await.expect("whole") {
        rest = rest.strip_prefix(&piece[..]).expect("what was stored");
    }
    assert_eq!(rest.len(), 0);
}

pub async fn results_have_the_content_of_objects_in_its_place(harness: &dyn Harness) {
    let store = harness.open();
    let (by, long, bytes) = (attempt(7), text(300_000), binary(100_000));
    let outputs = [(1, [&b"short"[..], long.as_bytes(), b""]), (2, [b"a", &bytes, long.as_bytes()])];
    for (number, contents) in outputs {
        let job = id(number);
        store.submit(program_job(number, 3)).await.expect("room");
        for (task, content) in (0..).zip(contents) {
            let output = if content.len() > 10 {
                let object = object(by, content);
                hand_in(&store, job, task, object, content).await.expect("room");
                ProgramOutput::Object { object }
            } else {
                ProgramOutput::from(content.to_vec())
            };
            store.record(done(job, task, by, &output));
        }
        let outputs = contents.map(|content| ProgramOutput::from(content.to_vec()));
        let combined = async |composition| {
            let result = store.combine_results(job, composition).await.expect("readable");
            let failed = ended_with(job, JobState::Failed, result, at(9));
            store.commit(failed).await.expect("room");
            let result = store.result(job).await.expect("readable").expect("there");
            store.commit(change(job, at(9), ChangeKind::Retried)).await.expect("room");
            serde_json::from_slice::<serde_json::Value>(&result.json).expect("JSON")
        };
        assert_eq!(combined(Composition::Outputs).await, serde_json::json!({"tasks": outputs}));
        let joined = ProgramOutput::from(contents.concat());
        assert_eq!(combined(Composition::Concat).await, serde_json::json!({"output": joined}));
        assert_eq!(combined(Composition::LastTask).await, serde_json::json!({"output": outputs[2]}));

        let (mut lines, mut read) = (store.output_lines(job), Vec::new());
        while let Some(piece) = lines.next().await.expect("whole") {
            read.extend_from_slice(&piece);
        }
        let expected: Vec<u8> = contents.iter().flat_map(|content| [content, &b"\n"[..]].concat()).collect();
        assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
    }
}

pub async fn outputs_go_with_their_job_and_count_as_what_it_takes_up(harness: &dyn Harness) {
    let parts = harness.parts();
    let objects = parts.objects.clone();
    let store = Store::start(parts, Retention { max_age: Duration::ZERO, max_bytes: u64::MAX }).expect("a thread");
    let (by, content) = (attempt(7), text(100_000));
    let object = object(by, content.as_bytes());
    for number in 1..=2 {
        let job = id(number);
        store.submit(program_job(number, 2)).await.expect("room");
        hand_in(&store, job, 0, object, content.as_bytes()).await.expect("room");
        store.record(done(job, 0, by, &ProgramOutput::Object { object }));
    }
    store.commit(change(id(1), Timestamp::now(), ChangeKind::Canceled)).await.expect("room");
    let pruned = store.prune().await.expect("room");
    assert_eq!(pruned.jobs, 1);
    assert!((object.bytes..object.bytes + 10_000).contains(&pruned.bytes), "{pruned:?}");
    assert_eq!(store.has_output(id(1), 0, &object).await, Ok(false));
    assert_eq!(store.has_output(id(2), 0, &object).await, Ok(true));
    assert_eq!(objects.names().await.map(|names| names.len()), Ok(1));
}

pub async fn outputs_of_a_job_that_has_the_id_of_one_that_is_being_forgotten_stay(harness: &dyn Harness) {
    let content = text(100_000);
    let hand = async |store: &Store, by| {
        let object = object(attempt(by), content.as_bytes());
        hand_in(store, id(1), 0, object, content.as_bytes()).await.expect("room");
        object
    };
    let store = harness.open();
    store.submit(program_job(1, 2)).await.expect("room");
    hand(&store, 7).await;
    store.commit(change(id(1), Timestamp::now(), ChangeKind::Canceled)).await.expect("room");
    store.close().expect("all is committed");
    // Its owner ends when it is out of sight and its outputs are there.
    let mut parts = harness.parts();
    let retention = Retention { max_age: Duration::ZERO, max_bytes: u64::MAX };
    let expired = parts.reads.expired(retention, Timestamp::now()).await.expect("readable");
    let forget = Housekeeping::Forget(expired.into_iter().map(|(key, _)| key).collect());
    let batch = Batch { id: 1, epoch: parts.epoch, entries: vec![Entry::Housekeeping(forget)] };
    parts.backend.apply(&batch).expect("room");
    drop(parts);

    let store = harness.open();
    store.submit(program_job(1, 2)).await.expect("its id is free");
    let object = hand(&store, 8).await;
    store.prune().await.expect("room");
    assert_eq!(store.has_output(id(1), 0, &object).await, Ok(true));
}

pub async fn outputs_that_never_counted_are_deleted_once_their_job_is_over(harness: &dyn Harness) {
    let content = text(100_000);
    let hand = async |store: &Store, job, task, by| {
        let object = object(attempt(by), content.as_bytes());
        hand_in(store, job, task, object, content.as_bytes()).await.expect("room");
        object
    };
    let store = harness.open();
    for number in 1..=2 {
        store.submit(program_job(number, 2)).await.expect("room");
    }
    // Two attempts at a task, of which one counts; one that was cut off; the same of a job that goes on; a job that is gone.
    let counted = hand(&store, id(1), 0, 1).await;
    let (late, cut_off) = (hand(&store, id(1), 0, 2).await, hand(&store, id(1), 1, 3).await);
    let (going_on, forgotten) = (hand(&store, id(2), 0, 4).await, hand(&store, id(3), 0, 5).await);
    store.record(done(id(1), 0, counted.attempt, &ProgramOutput::Object { object: counted }));
    store.commit(change(id(1), Timestamp::now(), ChangeKind::Canceled)).await.expect("room");
    let is_there = async |store: &Store, number, task, object: &OutputObject| {
        store.has_output(id(number), task, object).await.expect("readable")
    };
    store.prune().await.expect("room");
    assert!(is_there(&store, 1, 0, &late).await, "a row that names it may be about to be committed");
    assert!(!is_there(&store, 3, 0, &forgotten).await);
    store.close().expect("all is committed");

    let store = harness.open();
    let later = Timestamp::now().checked_add(Duration::from_hours(2)).expect("a time");
    store.prune_at(Instant::now(), later).await.expect("room");
    assert!(is_there(&store, 1, 0, &counted).await);
    assert!(is_there(&store, 2, 0, &going_on).await);
    assert!(!is_there(&store, 1, 0, &late).await && !is_there(&store, 1, 1, &cut_off).await);
}
