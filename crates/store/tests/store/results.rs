use std::fs;

use model::JobState;
use store::{Change, ReadError, ResultBody, Store, StoreSettings};
use url::Url;

use crate::helpers::*;

async fn succeed(store: &Store, number: u128, output: Option<&str>, json: &str, at_second: i64) {
    let mut new = range_job(number, 1);
    new.job.options.output = output.map(str::to_owned);
    store.submit(new).await.expect("room");
    let job = id(number);
    store.record(completed(job, 0..1, 1));
    let result = store.put_result(job, raw(json)).await.expect("room");
    let state = JobState::Succeeded;
    store
        .commit(Change::Ended { job, state, result: Some(result), error: None, at: at(at_second) })
        .await
        .expect("room");
}

fn large() -> String {
    format!("[{}1]", "12345, ".repeat(100_000))
}

#[tokio::test]
async fn a_small_result_is_in_the_database_and_a_large_one_in_a_file_and_both_come_back() {
    let (directory, store) = new_store();
    succeed(&store, 1, None, r#"{"sum": 17}"#, 1).await;
    succeed(&store, 2, None, &large(), 2).await;
    store.close().expect("all is committed");

    let files: Vec<_> = fs::read_dir(directory.path().join("results")).expect("made").collect();
    assert_eq!(files.len(), 1);
    let store = open(directory.path());
    let found = |number| store.result(id(number));
    assert_eq!(found(1).await.expect("readable").expect("there").json, r#"{"sum": 17}"#);
    assert_eq!(found(2).await.expect("readable").expect("there").json, large());
    assert_eq!(found(3).await, Ok(None));
}

#[tokio::test]
async fn a_result_whose_file_has_changed_or_gone_is_said_to_be_damaged_by_its_name() {
    let (directory, store) = new_store();
    succeed(&store, 2, None, &large(), 2).await;
    let name = format!("{}.json", id(2));
    let path = directory.path().join("results").join(&name);
    let is_named = |found: Result<_, ReadError>| match found {
        Err(ReadError::Corrupt { place, .. }) => place == path.display().to_string(),
        _ => false,
    };
    fs::write(&path, large().replace("5, 1]", "5, 2]")).expect("room");
    assert!(is_named(store.result(id(2)).await));
    fs::remove_file(&path).expect("there");
    assert!(is_named(store.result(id(2)).await));
}

#[tokio::test]
async fn of_results_under_one_name_the_latest_is_found() {
    let (_directory, store) = new_store();
    succeed(&store, 2, Some("sums"), "2", 10).await;
    succeed(&store, 1, Some("sums"), "1", 11).await;
    succeed(&store, 3, Some("other"), "3", 12).await;
    let mut unfinished = range_job(4, 1);
    unfinished.job.options.output = Some("sums".to_owned());
    store.submit(unfinished).await.expect("room");
    let found = store.result_by_name("sums").await.expect("readable").expect("there");
    assert_eq!((found.job, &found.json[..]), (id(1), &b"1"[..]));
    assert_eq!(store.result_by_name("sum").await, Ok(None));
}

#[tokio::test]
async fn a_job_that_is_retried_has_no_result_until_its_next_end() {
    let (_directory, store) = new_store();
    store.submit(range_job(1, 2)).await.expect("room");
    let job = id(1);
    store.record(completed(job, 0..1, 1));
    store.record(failed_tasks(job, 1..2, 1));
    store.commit(ended(job, JobState::Failed, Some("\"first\""))).await.expect("room");
    assert_eq!(store.result(job).await.expect("readable").expect("there").json, "\"first\"");
    store.commit(Change::Retried { job, at: at(10) }).await.expect("room");
    assert_eq!(store.result(job).await, Ok(None));
    store.record(completed(job, 1..2, 1));
    store.commit(ended(job, JobState::Succeeded, Some("\"second\""))).await.expect("room");
    assert_eq!(store.result(job).await.expect("readable").expect("there").json, "\"second\"");
}

#[tokio::test]
async fn results_go_where_the_url_says() {
    let (data, results) = (tempfile::tempdir().expect("room"), tempfile::tempdir().expect("room"));
    let url = Url::from_directory_path(results.path().join("deep er")).expect("absolute");
    let store = Store::open(StoreSettings { results_url: Some(url), ..settings(data.path()) }).expect("fine");
    succeed(&store, 1, None, &large(), 2).await;
    let file = results.path().join("deep er").join(format!("{}.json", id(1)));
    assert_eq!(fs::read_to_string(file).expect("there"), large());
    assert_eq!(store.result(id(1)).await.expect("readable").expect("there").json, large());
}

#[tokio::test]
async fn the_bound_of_a_small_result_is_64_kib() {
    let (_directory, store) = new_store();
    let text = |bytes: usize| raw(&format!("\"{}\"", "x".repeat(bytes - 2)));
    let small = store.put_result(id(1), text(64 * 1024)).await.expect("room");
    assert!(matches!(small, ResultBody::Inline(_)), "{small:?}");
    let large = store.put_result(id(1), text(64 * 1024 + 1)).await.expect("room");
    assert!(matches!(&large, ResultBody::Object(object) if object.bytes() == 64 * 1024 + 1), "{large:?}");
}

#[test]
fn a_url_that_means_nothing_is_refused() {
    let directory = tempfile::tempdir().expect("room");
    for url in ["gopher://host/x", "file://host/x"] {
        let results_url = Some(Url::parse(url).expect("a URL"));
        let error = Store::open(StoreSettings { results_url, ..settings(directory.path()) }).expect_err("refused");
        assert!(error.to_string().contains(url), "{error}");
    }
}
