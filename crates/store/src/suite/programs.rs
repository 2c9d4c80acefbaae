use model::{AttemptId, Composition, JobKind, JobState, ProgramHash, ProgramKind};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Harness;
use super::helpers::*;
use crate::{
    ChangeKind, ComposeError, NewJob, ProgramRecord, Retention, Store, Submission, SubmitError, TaskLog, UploadError,
    WriteError,
};

fn hash_of(bytes: &[u8]) -> ProgramHash {
    ProgramHash(Sha256::digest(bytes).into())
}

fn record(bytes: &[u8]) -> ProgramRecord {
    ProgramRecord {
        hash: hash_of(bytes),
        bytes: bytes.len() as u64,
        kind: ProgramKind::Wasm,
        uploaded_at: at(1),
        uploaded_by: Some("ann".to_owned()),
    }
}

pub(super) async fn put(store: &Store, bytes: &[u8]) -> Result<bool, UploadError> {
    let mut upload = store.upload_program(hash_of(bytes)).await;
    for piece in bytes.chunks(1_000_003) {
        upload.push(piece).await.expect("room");
    }
    store.put_program(upload, record(bytes)).await
}

async fn bytes_of(store: &Store, hash: ProgramHash) -> Option<Vec<u8>> {
    let mut stream = store.program_bytes(hash).await.expect("readable")?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await.expect("whole") {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(stream.bytes(), bytes.len() as u64);
    Some(bytes)
}

fn program_job(number: u128, program: ProgramHash, fold: Option<ProgramHash>) -> NewJob {
    let combine = fold.map_or_else(|| r#""none""#.to_owned(), |fold| format!(r#"{{"program":"{fold}"}}"#));
    NewJob {
        kind: JobKind::PROGRAM,
        is_individual: true,
        params: raw(&format!(r#"{{"program":"{program}","combine":{combine},"count":1}}"#)),
        ..range_job(number, 2)
    }
}

pub async fn an_uploaded_program_is_there_after_a_restart_small_or_large(harness: &dyn Harness) {
    let large: Vec<u8> = (0..20_000_000_u32).map(|place| (place % 251) as u8).collect();
    let store = harness.open();
    for bytes in [&b"\0asm"[..], &large] {
        assert_eq!(put(&store, bytes).await, Ok(true));
        assert_eq!(put(&store, bytes).await, Ok(false));
    }
    drop(store);
    let store = harness.open();
    for bytes in [&b"\0asm"[..], &large] {
        assert_eq!(store.program(hash_of(bytes)).await, Ok(Some(record(bytes))));
        assert!(bytes_of(&store, hash_of(bytes)).await.as_deref() == Some(bytes), "{} bytes", bytes.len());
    }
    assert_eq!(bytes_of(&store, hash_of(b"another")).await, None);
}

pub async fn bytes_of_another_hash_are_no_program(harness: &dyn Harness) {
    let store = harness.open();
    for length in [10, 9 << 20] {
        let bytes = vec![1; length];
        let expected = hash_of(b"another");
        let mut upload = store.upload_program(expected).await;
        upload.push(&bytes).await.expect("room");
        let refused = store.put_program(upload, ProgramRecord { hash: expected, ..record(&bytes) }).await;
        assert_eq!(refused, Err(UploadError::Mismatch { expected, found: hash_of(&bytes) }));
        assert_eq!(store.program(expected).await, Ok(None));
        assert_eq!(store.has_program(expected).await, Ok(false));
    }
}

pub async fn programs_are_listed_in_pages_by_hash(harness: &dyn Harness) {
    let store = harness.open();
    let mut all: Vec<_> = (0..5_u8).map(|number| record(&[number])).collect();
    for number in 0..5_u8 {
        put(&store, &[number]).await.expect("room");
    }
    all.sort_by_key(|program| program.hash);
    assert_eq!(store.programs(None, 10).await, Ok(all.clone()));
    assert_eq!(store.programs(Some(all[1].hash), 2).await, Ok(all[2..4].to_vec()));
}

pub async fn a_program_stays_while_a_job_that_is_not_over_needs_it(harness: &dyn Harness) {
    let store = harness.open();
    let (one, fold) = (hash_of(b"one"), hash_of(b"fold"));
    let refused = store.submit(program_job(1, one, None)).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Refused(_)))), "{refused:?}");
    for bytes in [&b"one"[..], b"fold"] {
        put(&store, bytes).await.expect("room");
    }
    assert_eq!(store.submit(program_job(1, one, Some(fold))).await, Ok(Submission::New));
    for hash in [one, fold] {
        let refused = store.delete_program(hash).await;
        assert!(matches!(&refused, Err(WriteError::Refused(why)) if why.contains(&id(1).to_string())), "{refused:?}");
        assert_eq!(store.has_program(hash).await, Ok(true));
    }
    store.commit(change(id(1), at(2), ChangeKind::Canceled)).await.expect("room");
    for hash in [one, fold] {
        assert_eq!(store.delete_program(hash).await, Ok(true));
        assert_eq!(store.delete_program(hash).await, Ok(false));
        assert_eq!(store.has_program(hash).await, Ok(false));
    }
}

pub async fn a_program_stays_while_parameters_that_cannot_be_read_name_it(harness: &dyn Harness) {
    let store = harness.open();
    let (one, other) = (hash_of(b"one"), hash_of(b"other"));
    for bytes in [&b"one"[..], b"other"] {
        put(&store, bytes).await.expect("room");
    }
    store.submit(program_job(1, one, None)).await.expect("room");
    store.close().expect("all is committed");
    // As a later release may write them.
    if !harness
        .damage(&format!(r#"UPDATE jobs SET params = '{{"v": 9, "steps": ["{}"]}}'"#, one.to_string().to_uppercase()))
    {
        return;
    }
    let store = harness.open();
    let refused = store.delete_program(one).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    assert_eq!(store.delete_program(other).await, Ok(true));
    store.commit(change(id(1), at(2), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.delete_program(one).await, Ok(true));
}

pub async fn retention_leaves_programs_alone(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: std::time::Duration::ZERO, max_bytes: 0 });
    put(&store, b"one").await.expect("room");
    store.submit(program_job(1, hash_of(b"one"), None)).await.expect("room");
    store.commit(change(id(1), at(2), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(bytes_of(&store, hash_of(b"one")).await.as_deref(), Some(&b"one"[..]));
}

pub async fn logs_are_found_by_task_and_go_with_their_job(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_age: std::time::Duration::ZERO, max_bytes: u64::MAX });
    let job = tasks_job(1, numbers(5)).id;
    store.submit(tasks_job(1, numbers(5))).await.expect("room");
    let log = |task: u64, attempt: u128| TaskLog {
        job,
        task,
        attempt: AttemptId(Uuid::from_u128(attempt)),
        worker: "worker-1".to_owned(),
        ended_at: at(3),
        omitted_bytes: 7,
        text: format!("task {task}, attempt {attempt}\n"),
    };
    for (task, attempt) in [(3, 1), (0, 2), (3, 3)] {
        store.put_log(log(task, attempt)).await.expect("room");
    }
    store.put_log(TaskLog { job: id(9), ..log(0, 9) }).await.expect("no effect");
    store.put_log(TaskLog { text: "once more\n".to_owned(), ..log(3, 1) }).await.expect("no effect");
    assert_eq!(store.logs(job, 0..5, 10).await, Ok(vec![log(0, 2), log(3, 1), log(3, 3)]));
    assert_eq!(store.logs(job, 1..5, 1).await, Ok(vec![log(3, 1)]));
    assert_eq!(store.logs(id(9), 0..5, 10).await, Ok(Vec::new()));
    assert_eq!(store.last_logs(job, 3, 10).await, Ok(vec![log(3, 1), log(3, 3)]));
    assert_eq!(store.last_logs(job, 3, 1).await, Ok(vec![log(3, 3)]));
    assert_eq!(store.last_logs(job, 1, 1).await, Ok(Vec::new()));
    store.commit(change(job, at(4), ChangeKind::Canceled)).await.expect("room");
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    store.submit(tasks_job(1, numbers(5))).await.expect("room");
    assert_eq!(store.logs(job, 0..5, 10).await, Ok(Vec::new()));
}

pub async fn logs_count_in_the_size_of_their_job_whenever_they_come(harness: &dyn Harness) {
    let store = harness.open_with(Retention { max_bytes: 150_000, ..Retention::KEEP_ALL });
    for number in 1..=3 {
        store.submit(tasks_job(number, numbers(5))).await.expect("room");
    }
    let log = |job| TaskLog {
        job,
        task: 0,
        attempt: AttemptId(Uuid::from_u128(1)),
        worker: "worker-1".to_owned(),
        ended_at: at(3),
        omitted_bytes: 0,
        text: "x".repeat(60_000),
    };
    // Before the writer knows the job, while it knows it, and when the job is over.
    store.put_log(log(id(1))).await.expect("room");
    for job in [id(1), id(2)] {
        store.commit(change(job, at(4), ChangeKind::Started)).await.expect("room");
    }
    store.put_log(log(id(2))).await.expect("room");
    for (seconds, job) in [(5, id(1)), (6, id(2)), (7, id(3))] {
        store.commit(change(job, at(seconds), ChangeKind::Canceled)).await.expect("room");
    }
    store.put_log(log(id(3))).await.expect("room");
    let pruned = store.prune().await.expect("room");
    assert!(pruned.jobs == 1 && pruned.bytes > 60_000, "{pruned:?}");
    for (job, logs) in [(id(1), 0), (id(2), 1), (id(3), 1)] {
        assert_eq!(store.logs(job, 0..5, 10).await.map(|logs| logs.len()), Ok(logs));
    }
}

async fn combined(
    store: &Store,
    number: u128,
    outputs: &[&str],
    composition: Composition,
) -> Result<String, ComposeError> {
    let new = tasks_job(number, numbers(outputs.len() as u64));
    let job = new.id;
    store.submit(new).await.expect("room");
    for (place, output) in outputs.iter().enumerate().rev() {
        let task = place as u64;
        store.record(answered(job, task..task + 1, vec![raw(output)]));
    }
    let result = store.combine_results(job, composition).await?;
    store.commit(ended_with(job, JobState::Succeeded, result, at(9))).await.expect("room");
    let result = store.result(job).await.expect("readable").expect("there");
    Ok(String::from_utf8(result.json.to_vec()).expect("JSON"))
}

pub async fn outputs_are_added_exactly_or_not_at_all(harness: &dyn Harness) {
    let store = harness.open();
    let max = format!("\"{}\"", i128::MAX);
    let sum = combined(&store, 1, &[&max, "\"-1\\n\"", "\" -7 \""], Composition::Sum).await.expect("a sum");
    assert_eq!(sum, format!(r#"{{"sum":"{}"}}"#, i128::MAX - 8));
    for (number, outputs) in [(2, [&*max, "\"1\""]), (3, ["\"1\"", "\"1.5\""]), (4, ["\"1\"", "7"])] {
        let refused = combined(&store, number, &outputs, Composition::Sum).await;
        assert!(matches!(&refused, Err(ComposeError::Combine(why)) if why.contains("task 1")), "{refused:?}");
    }
}

pub async fn outputs_are_joined_in_the_order_of_tasks(harness: &dyn Harness) {
    let store = harness.open();
    let joined = combined(&store, 1, &[r#""a\n""#, r#""\"ü\"""#, r#""""#], Composition::Concat).await;
    assert_eq!(joined, Ok(r#"{"output":"a\n\"ü\""}"#.to_owned()));
    // "ab", 0xff, "c" in base64 by coreutils.
    let joined = combined(&store, 2, &[r#""ab""#, r#"{"base64":"/w=="}"#, r#""c""#], Composition::Concat).await;
    assert_eq!(joined, Ok(r#"{"output":{"base64":"YWL/Yw=="}}"#.to_owned()));
    let last = combined(&store, 3, &[r#""a""#, r#""b""#], Composition::LastTask).await;
    assert_eq!(last, Ok(r#"{"output":"b"}"#.to_owned()));
}
