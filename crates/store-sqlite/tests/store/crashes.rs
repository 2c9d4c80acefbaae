//! A log that a crash has torn.

use std::fs;

use proptest::prelude::*;

use crate::helpers::*;

#[test]
fn a_log_torn_anywhere_costs_the_last_commits_only() {
    let runtime = runtime();
    // A store that is left alone for a moment copies its log back, and such a log is whole.
    let [database, log] = loop {
        let (directory, store) = new_store();
        let before = fs::read(directory.path().join("divvy.db")).expect("there");
        for number in 1..=20 {
            runtime.block_on(store.submit(range_job(number, 10))).expect("room");
        }
        let crashed = tempfile::tempdir().expect("room");
        copy(directory.path(), crashed.path());
        let files = ["divvy.db", "divvy.db-wal"].map(|name| fs::read(crashed.path().join(name)).expect("there"));
        if files[0] == before {
            break files;
        }
    };
    proptest!(ProptestConfig::with_cases(40), |(length in 0..log.len())| {
        let torn = tempfile::tempdir().expect("room");
        fs::write(torn.path().join("divvy.db"), &database).expect("room");
        fs::write(torn.path().join("divvy.db-wal"), &log[..length]).expect("room");
        let found = runtime.block_on(open(torn.path()).unfinished()).expect("readable");
        prop_assert!(found.iter().map(|job| job.record.id).eq((1..=found.len() as u128).map(id)));
    });
}
