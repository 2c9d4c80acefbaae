//! Results as files.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use model::JobState;
use store::{NewJob, Pruned, ReadError, ResultBody, Store};
use store_sqlite::StoreSettings;
use url::Url;

use crate::helpers::*;

fn large() -> String {
    format!("[{}1]", "12345, ".repeat(100_000))
}

/// Lets the job succeed with a large result. Returns its object's name.
async fn succeed(store: &Store, number: u128) -> String {
    store.submit(range_job(number, 1)).await.expect("room");
    store.record(completed(id(number), 0..1, 1));
    let result = store.put_result(id(number), raw(&large())).await.expect("room");
    let ResultBody::Object(object) = result.clone() else { panic!("{result:?}") };
    store.commit(ended_with(id(number), JobState::Succeeded, result, at(1))).await.expect("room");
    object.name
}

#[tokio::test]
async fn a_large_result_is_a_file_of_the_data_directory() {
    let (directory, store) = new_store();
    let name = succeed(&store, 1).await;
    let path = directory.path().join("results").join(name);
    assert_eq!(fs::read_to_string(path).expect("there"), large());
}

#[tokio::test]
async fn a_result_whose_file_has_changed_or_gone_is_said_to_be_damaged_by_its_name() {
    let (directory, store) = new_store();
    let path = directory.path().join("results").join(succeed(&store, 2).await);
    let is_named = |found: Result<(), ReadError>| match found {
        Err(ReadError::Corrupt { place, .. }) => place == path.display().to_string(),
        _ => false,
    };
    fs::write(&path, large().replace("5, 1]", "5, 2]")).expect("room");
    assert!(is_named(store.result(id(2)).await.map(|_| ())));
    let mut stream = store.result_stream(id(2)).await.expect("readable").expect("there");
    let mut read = 0;
    let end = loop {
        match stream.next().await {
            Ok(Some(piece)) => read += piece.len() as u64,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(is_named(end));
    assert!(read < stream.bytes(), "all of a damaged result was given out");
    fs::write(&path, "[1]").expect("room");
    assert!(is_named(store.result(id(2)).await.map(|_| ())));
    fs::remove_file(&path).expect("there");
    assert!(is_named(store.result(id(2)).await.map(|_| ())));
}

#[tokio::test]
async fn results_go_where_the_url_says() {
    let (data, results) = (tempfile::tempdir().expect("room"), tempfile::tempdir().expect("room"));
    let url = Url::from_directory_path(results.path().join("deep er")).expect("absolute");
    let settings = StoreSettings { results_url: Some(url), ..settings(data.path()) };
    let store = store_sqlite::open(settings).expect("fine");
    let name = succeed(&store, 1).await;
    assert_eq!(fs::read_to_string(results.path().join("deep er").join(name)).expect("there"), large());
    assert_eq!(store.result(id(1)).await.expect("readable").expect("there").json, large());
}

#[test]
fn a_url_that_means_nothing_is_refused() {
    let directory = tempfile::tempdir().expect("room");
    for url in ["gopher://host/x", "file://host/x"] {
        let results_url = Some(Url::parse(url).expect("a URL"));
        let error = store_sqlite::open(StoreSettings { results_url, ..settings(directory.path()) });
        let error = error.expect_err("refused");
        assert!(error.to_string().contains(url), "{error}");
    }
}

#[tokio::test]
async fn files_that_no_row_names_are_deleted_when_they_are_old_and_others_stay() {
    let (directory, store) = new_store();
    let results = directory.path().join("results");
    let named = succeed(&store, 1).await;
    // As a crash between storing a result and committing its row leaves one, and one in the middle of storing it.
    let ResultBody::Object(fresh) = store.put_result(id(1), raw(&large())).await.expect("room") else { panic!() };
    let ResultBody::Object(left) = store.put_result(id(1), raw(&large())).await.expect("room") else { panic!() };
    let part = format!("{}#1", left.name);
    fs::write(results.join(&part), "half").expect("room");
    fs::write(results.join("notes.txt"), "an operator's own").expect("room");
    let (other_directory, other) = new_store();
    let others = succeed(&other, 1).await;
    fs::copy(other_directory.path().join("results").join(&others), results.join(&others)).expect("room");
    let two_days = SystemTime::now() - Duration::from_secs(48 * 3600);
    for name in [&named, &left.name, &part, "notes.txt", &others] {
        let file = fs::File::options().write(true).open(results.join(name)).expect("there");
        file.set_modified(two_days).expect("it is ours");
    }
    // An event of today: the clock has not jumped since the last one.
    store.submit(NewJob { submitted_at: jiff::Timestamp::now(), ..range_job(9, 1) }).await.expect("room");
    assert_eq!(store.prune().await, Ok(Pruned::default()));
    let mut files: Vec<_> = fs::read_dir(&results).expect("there").map(|file| file.expect("readable").path()).collect();
    files.sort();
    let mut expected: Vec<PathBuf> = [&named, &fresh.name, "notes.txt", &others].map(|name| results.join(name)).into();
    expected.sort();
    assert_eq!(files, expected);
    assert_eq!(store.result(id(1)).await.expect("readable").expect("there").json, large());
}
