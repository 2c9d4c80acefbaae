//! A page that is damaged while the database is open.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use store::WriteError;
use store::suite::damaged::a_job_that_is_damaged_meanwhile_stops_alone;

use crate::helpers::*;

const PAGE: usize = 4096;

/// Breaks the chain of pages that a job's long text takes up.
fn damage(database: &Path, number: i64) {
    let db = rusqlite::Connection::open(database).expect("it is there");
    let sql = "UPDATE jobs SET error = ?1 WHERE submitted_at = ?2";
    let submitted_at = i64::try_from(at(number).as_nanosecond()).expect("a time of this century");
    assert_eq!(db.execute(sql, ("?".repeat(10 * PAGE), submitted_at)), Ok(1));
    // The number of the next page stands in front.
    let is_of_text = |page: &[u8]| page[4..].iter().all(|byte| *byte == b'?');
    // The store may copy the log back at the same moment, and this copy fails.
    let page = (0..1000).find_map(|_| {
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("no reader is in the way");
        std::fs::read(database).expect("readable").chunks_exact(PAGE).position(is_of_text)
    });
    let page = page.expect("the text takes up whole pages");
    let file = OpenOptions::new().write(true).open(database).expect("writable");
    file.write_all_at(&u32::MAX.to_be_bytes(), (page * PAGE) as u64).expect("room");
}

#[tokio::test]
async fn a_damaged_page_stops_the_job_that_is_on_it_alone() {
    let (directory, store) = new_store();
    let database = directory.path().join("divvy.db");
    let said = a_job_that_is_damaged_meanwhile_stops_alone(&store, || damage(&database, 2)).await;
    assert!(matches!(said, WriteError::Corrupt(_)), "{said:?}");
}
