use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use store::{ChangeKind, Store};
use store_sqlite::OpenError;

use crate::helpers::*;

/// Files of the directory with their bytes, without the files that SQLite and the lock keep beside the data.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path());
    let data = |path: &PathBuf| {
        path.is_file() && !["lock", "db-shm"].contains(&path.extension().unwrap_or_default().to_str().unwrap_or(""))
    };
    let mut files: Vec<_> =
        entries.filter(data).map(|path| (path.clone(), fs::read(path).expect("readable"))).collect();
    files.retain(|(path, bytes)| !(path.ends_with("divvy.db-wal") && bytes.is_empty()));
    files.sort();
    files
}

/// The error of opening, which must leave everything as it is and name the file.
fn refused(directory: &Path) -> OpenError {
    let before = contents(directory);
    let error = store_sqlite::open(settings(directory)).expect_err("refused");
    assert!(contents(directory) == before, "{error}: something has changed");
    assert!(error.to_string().contains(&directory.display().to_string()), "{error}");
    error
}

/// A closed store with a few hundred kilobytes in it.
fn filled() -> tempfile::TempDir {
    let (directory, store) = new_store();
    let runtime = runtime();
    runtime.block_on(async {
        store.submit(tasks_job(1, numbers(50_000))).await.expect("room");
        for number in 2..300 {
            store.submit(range_job(number, 1000)).await.expect("room");
            store.record(completed(id(number), 0..500, 7));
        }
        for first in (0..3000).step_by(3) {
            store.record(answered(id(1), first..first + 2, numbers(2)));
        }
    });
    store.close().expect("all is committed");
    directory
}

/// The content of a store as text.
fn digest(store: &Store) -> String {
    let runtime = runtime();
    let jobs = runtime.block_on(store.unfinished()).expect("readable");
    let payloads = runtime.block_on(store.payloads(id(1), 0..50_000)).expect("there");
    format!("{jobs:?} {payloads:?}")
}

#[test]
fn two_cannot_use_one_directory() {
    let (directory, store) = new_store();
    assert!(matches!(refused(directory.path()), OpenError::InUse { .. }));
    store.close().expect("all is committed");
    open(directory.path());
}

#[test]
fn what_is_no_database_of_this_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("room");
    let file = directory.path().join("divvy.db");
    fs::write(&file, "my precious notes\n".repeat(1000)).expect("room");
    assert!(matches!(refused(directory.path()), OpenError::NotADatabase { .. }));
    fs::write(&file, "").expect("room");
    assert!(matches!(refused(directory.path()), OpenError::Truncated { .. }));
    fs::remove_file(&file).expect("there");
    let other = rusqlite::Connection::open(&file).expect("room");
    other.execute_batch("CREATE TABLE notes (text TEXT)").expect("room");
    other.close().expect("closed");
    assert!(matches!(refused(directory.path()), OpenError::NotADatabase { .. }));
    fs::remove_file(&file).expect("there");
    fs::create_dir(&file).expect("room");
    assert!(matches!(refused(directory.path()), OpenError::NotWritable { .. }));
}

#[test]
fn a_newer_schema_is_refused() {
    let directory = filled();
    let db = rusqlite::Connection::open(directory.path().join("divvy.db")).expect("readable");
    db.pragma_update(None, "user_version", 99).expect("room");
    db.close().expect("closed");
    assert!(matches!(refused(directory.path()), OpenError::NewerSchema { found: 99, known: 8, .. }));
}

#[test]
fn a_database_that_another_program_has_locked_is_refused_until_it_is_free() {
    let directory = filled();
    let other = rusqlite::Connection::open(directory.path().join("divvy.db")).expect("readable");
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE jobs SET key = key").expect("room");
    assert!(matches!(refused(directory.path()), OpenError::Locked { .. }));
    other.execute_batch("ROLLBACK").expect("rolled back");
    drop(other);
    open(directory.path());
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let directory = tempfile::tempdir().expect("room");
    let file = directory.path().join("file");
    fs::write(&file, "text").expect("room");
    let Err(error @ OpenError::Directory { .. }) = store_sqlite::open(settings(&file)) else { panic!("it is refused") };
    let (shown, rest) = (error.to_string(), std::error::Error::source(&error));
    assert!(shown.contains("os error") && rest.is_none(), "the cause is told once: {shown}, {rest:?}");
}

#[test]
fn a_log_without_its_database_is_not_taken_for_a_new_beginning() {
    let directory = tempfile::tempdir().expect("room");
    fs::write(directory.path().join("divvy.db-wal"), "frames").expect("room");
    assert!(matches!(refused(directory.path()), OpenError::Missing { .. }));
}

#[test]
fn a_damaged_page_is_found_at_the_start() {
    let directory = filled();
    let file = directory.path().join("divvy.db");
    let mut bytes = fs::read(&file).expect("readable");
    let mut found = 0;
    for page in [1, 2, 5, 9, 30, 100] {
        let (before, at) = (bytes.clone(), page * 4096);
        bytes[at..at + 64].fill(0xa5);
        fs::write(&file, &bytes).expect("room");
        found += usize::from(matches!(refused(directory.path()), OpenError::Corrupt { .. }));
        bytes = before;
    }
    assert_eq!(found, 6);
}

#[test]
fn a_database_cut_short_anywhere_is_refused() {
    let directory = filled();
    let whole = fs::read(directory.path().join("divvy.db")).expect("readable");
    proptest!(ProptestConfig::with_cases(50), |(length in 0..whole.len())| {
        let copy = tempfile::tempdir().expect("room");
        fs::write(copy.path().join("divvy.db"), &whole[..length]).expect("room");
        let error = refused(copy.path());
        prop_assert!(matches!(error, OpenError::Truncated { .. }), "{}", error);
    });
    open(directory.path());
}

#[test]
fn a_database_cut_short_under_a_log_is_refused_unless_the_log_has_all_that_is_missing() {
    let directory = filled();
    let store = open(directory.path());
    let before = digest(&store);
    let runtime = runtime();
    // Small enough to stay in the log for a while.
    runtime.block_on(store.commit(change(id(1), at(1), ChangeKind::Progress))).expect("room");
    let file = |name: &str| fs::read(directory.path().join(name)).expect("readable");
    let (database, log) = (file("divvy.db"), file("divvy.db-wal"));
    drop(store);
    proptest!(ProptestConfig::with_cases(50), |(length in 0..=database.len())| {
        let copy = tempfile::tempdir().expect("room");
        fs::write(copy.path().join("divvy.db"), &database[..length]).expect("room");
        fs::write(copy.path().join("divvy.db-wal"), &log).expect("room");
        if length < database.len() {
            let error = refused(copy.path());
            prop_assert!(matches!(error, OpenError::Truncated { .. }), "{}", error);
        } else {
            prop_assert_eq!(&digest(&open(copy.path())), &before);
        }
    });
}

#[test]
fn a_crash_in_the_middle_of_copying_the_log_back_loses_nothing() {
    let (directory, store) = new_store();
    let runtime = runtime();
    let file = |name: &str| fs::read(directory.path().join(name)).expect("readable");
    let before = file("divvy.db");
    runtime.block_on(store.submit(tasks_job(1, numbers(50_000)))).expect("room");
    let (database, log) = (file("divvy.db"), file("divvy.db-wal"));
    assert!(log.len() > 200_000, "the log holds the job");
    let expected = digest(&store);
    store.close().expect("all is committed");
    let after = file("divvy.db");
    assert!(database.len() <= after.len() && before.len() < after.len());
    // Any part of the pages may have been copied: here the first so many.
    for pages in [0, 1, 2, 10, after.len() / 4096 - 1, after.len() / 4096] {
        let copy = tempfile::tempdir().expect("room");
        let mut half = after[..pages * 4096].to_vec();
        half.extend_from_slice(before.get(pages * 4096..).unwrap_or_default());
        fs::write(copy.path().join("divvy.db"), half).expect("room");
        fs::write(copy.path().join("divvy.db-wal"), &log).expect("room");
        assert_eq!(digest(&open(copy.path())), expected, "{pages} pages");
    }
}
