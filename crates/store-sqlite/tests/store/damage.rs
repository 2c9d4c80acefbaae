//! A page that is damaged while the database is open.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use store::WriteError;

use crate::helpers::*;

const PAGE: usize = 4096;

/// Breaks the chain of pages that a job's long text takes up.
fn damage(database: &Path, number: i64) {
    let db = rusqlite::Connection::open(database).expect("it is there");
    let sql = "UPDATE jobs SET error = ?1 WHERE submitted_at = ?2";
    let submitted_at = i64::try_from(at(number).as_nanosecond()).expect("a time of this century");
    assert_eq!(db.execute(sql, ("?".repeat(10 * PAGE), submitted_at)), Ok(1));
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("no reader is in the way");
    let bytes = std::fs::read(database).expect("readable");
    // The number of the next page stands in front.
    let is_of_text = |page: &[u8]| page[4..].iter().all(|byte| *byte == b'?');
    let page = bytes.chunks_exact(PAGE).position(is_of_text).expect("the text takes up whole pages");
    let file = OpenOptions::new().write(true).open(database).expect("writable");
    file.write_all_at(&u32::MAX.to_be_bytes(), (page * PAGE) as u64).expect("room");
}

#[tokio::test]
async fn a_damaged_page_stops_the_job_that_is_on_it_alone() {
    let (directory, store) = new_store();
    for number in 1..4 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    damage(&directory.path().join("divvy.db"), 2);
    for task in 0..3 {
        for number in 1..4 {
            store.record(completed(id(number), task..task + 1, 1));
        }
    }
    store.flush().await.expect("all others are written");
    assert_eq!(store.is_failing(), None);
    let unwritable = store.unwritable().borrow().clone();
    assert!(matches!(unwritable.get(&id(2)), Some(WriteError::Corrupt(_))), "{unwritable:?}");
    assert_eq!(unwritable.len(), 1);
    for number in [1, 3] {
        assert_eq!(record_of(&store, id(number)).await.tasks_done, 3);
    }
    store.submit(range_job(4, 10)).await.expect("room");
}
