use model::JobState;

use super::Harness;
use super::helpers::*;
use crate::{ChangeKind, Pruned, ResultBody, Store};

async fn succeed(store: &Store, number: u128, output: Option<&str>, json: &str, at_second: i64) {
    let mut new = range_job(number, 1);
    new.options.output = output.map(str::to_owned);
    store.submit(new).await.expect("room");
    let job = id(number);
    store.record(completed(job, 0..1, 1));
    let result = store.put_result(job, raw(json)).await.expect("room");
    store.commit(ended_with(job, JobState::Succeeded, result, at(at_second))).await.expect("room");
}

fn large() -> String {
    format!("[{}1]", "12345, ".repeat(100_000))
}

pub async fn small_and_large_results_come_back(harness: &dyn Harness) {
    let store = harness.open();
    succeed(&store, 1, None, r#"{"sum": 17}"#, 1).await;
    succeed(&store, 2, None, &large(), 2).await;
    store.close().expect("all is committed");

    let store = harness.open();
    let found = |number| store.result(id(number));
    assert_eq!(found(1).await.expect("readable").expect("there").json, r#"{"sum": 17}"#);
    assert_eq!(found(2).await.expect("readable").expect("there").json, large());
    assert_eq!(found(3).await, Ok(None));
}

pub async fn of_results_under_one_name_the_latest_is_found(harness: &dyn Harness) {
    let store = harness.open();
    succeed(&store, 2, Some("sums"), "2", 10).await;
    succeed(&store, 1, Some("sums"), "1", 11).await;
    succeed(&store, 3, Some("other"), "3", 12).await;
    let mut unfinished = range_job(4, 1);
    unfinished.options.output = Some("sums".to_owned());
    store.submit(unfinished).await.expect("room");
    let found = store.result_by_name("sums").await.expect("readable").expect("there");
    assert_eq!((found.job, &found.json[..]), (id(1), &b"1"[..]));
    assert_eq!(store.result_by_name("sum").await, Ok(None));
}

pub async fn a_job_that_is_retried_has_no_result_until_its_next_end(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(range_job(1, 2)).await.expect("room");
    let job = id(1);
    store.record(completed(job, 0..1, 1));
    store.record(failed_tasks(job, 1..2, 1));
    store.commit(ended(job, JobState::Failed, Some("\"first\""))).await.expect("room");
    assert_eq!(store.result(job).await.expect("readable").expect("there").json, "\"first\"");
    store.commit(change(job, at(10), ChangeKind::Retried)).await.expect("room");
    assert_eq!(store.result(job).await, Ok(None));
    store.record(completed(job, 1..2, 1));
    store.commit(ended(job, JobState::Succeeded, Some("\"second\""))).await.expect("room");
    assert_eq!(store.result(job).await.expect("readable").expect("there").json, "\"second\"");
}

pub async fn the_bound_of_a_small_result_is_64_kib(harness: &dyn Harness) {
    let store = harness.open();
    let text = |bytes: usize| raw(&format!("\"{}\"", "x".repeat(bytes - 2)));
    let small = store.put_result(id(1), text(64 * 1024)).await.expect("room");
    assert!(matches!(small, ResultBody::Inline(_)), "{small:?}");
    let large = store.put_result(id(1), text(64 * 1024 + 1)).await.expect("room");
    assert!(matches!(&large, ResultBody::Object(object) if object.bytes == 64 * 1024 + 1), "{large:?}");
}

pub async fn a_large_result_comes_in_pieces(harness: &dyn Harness) {
    let store = harness.open();
    succeed(&store, 1, Some("name"), "17", 1).await;
    assert!(store.result_stream(id(2)).await.expect("readable").is_none());
    let mut stream = store.result_stream_by_name("name").await.expect("readable").expect("there");
    assert_eq!((stream.job(), stream.bytes()), (id(1), 2));
    assert_eq!(stream.next().await.expect("readable").as_deref(), Some(&b"17"[..]));
    assert_eq!(stream.next().await, Ok(None));

    let json = format!("[{}1]", "12345, ".repeat(3_000_000));
    succeed(&store, 2, None, &json, 1).await;
    let mut stream = store.result_stream(id(2)).await.expect("readable").expect("there");
    assert_eq!(stream.bytes(), json.len() as u64);
    let mut rest = json.as_bytes();
    while let Some(piece) = stream.next().await.expect("readable") {
        rest = rest.strip_prefix(&piece[..]).expect("what was stored");
    }
    assert_eq!(rest, b"");
    assert_eq!(stream.next().await, Ok(None));
}

fn name_of(result: &ResultBody) -> String {
    match result {
        ResultBody::Object(object) => object.name.clone(),
        ResultBody::Inline(_) => panic!("it is small"),
    }
}

pub async fn each_composing_has_a_name_of_its_own(harness: &dyn Harness) {
    let store = harness.open();
    store.submit(tasks_job(1, numbers(1))).await.expect("room");
    store.record(answered(id(1), 0..1, vec![raw(&large())]));
    let first = store.compose_result(id(1)).await.expect("room");
    let second = store.compose_result(id(1)).await.expect("room");
    assert_ne!(name_of(&first), name_of(&second));
    assert!(name_of(&first).starts_with(&id(1).to_string()), "{first:?}");
    store.commit(ended_with(id(1), JobState::Succeeded, second, at(1))).await.expect("room");
    assert_eq!(
        store.result(id(1)).await.expect("readable").expect("there").json,
        format!("{{\"tasks\":[{}]}}", large())
    );
}

pub async fn objects_that_no_row_names_any_more_are_deleted(harness: &dyn Harness) {
    let parts = harness.parts();
    let (reads, objects) = (parts.reads.clone(), parts.objects.clone());
    let store = Store::start(parts, KEEP_ALL).expect("a thread");
    let job = id(1);
    store.submit(range_job(1, 1)).await.expect("room");
    let mut names = Vec::new();
    // The object of a result that a retry drops, that of a job that is over already, and an object that stays.
    for round in 0..3 {
        let result = store.put_result(job, raw(&large())).await.expect("room");
        names.push(name_of(&result));
        store.commit(ended_with(job, JobState::Failed, result, at(round))).await.expect("room");
        if round == 0 {
            let late = store.put_result(job, raw(&large())).await.expect("room");
            names.push(name_of(&late));
            store.commit(ended_with(job, JobState::Failed, late, at(round))).await.expect("no effect");
        }
        if round < 2 {
            store.commit(change(job, at(round), ChangeKind::Retried)).await.expect("room");
        }
    }
    let kept = names.pop().expect("four of them");
    let mut dropped = reads.dropped_objects(10).await.expect("readable");
    dropped.sort();
    names.sort();
    assert_eq!(dropped, names);
    assert_eq!(store.prune().await, Ok(Pruned::default()));
    assert!(reads.dropped_objects(10).await.expect("readable").is_empty());
    assert_eq!(reads.named_objects([names, vec![kept.clone()]].concat()).await, Ok(vec![kept.clone()]));
    assert_eq!(objects.names().await, Ok(vec![kept]));
    assert_eq!(store.result(job).await.expect("readable").expect("there").json, large());
}
