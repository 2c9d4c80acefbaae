//! The write-ahead log under a reader that does not end.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use store::Store;

use crate::helpers::*;

const MIB: u64 = 1 << 20;

/// Writes a job with a payload of one MiB.
async fn write(store: &Store, number: u128) {
    store.submit(tasks_job(number, vec![raw(&format!("\"{}\"", "x".repeat(MIB as usize)))])).await.expect("room");
}

#[tokio::test]
async fn a_reader_that_does_not_end_lets_the_log_grow_visibly_and_it_begins_anew_when_the_reader_is_gone() {
    let (directory, store) = new_store();
    write(&store, 1).await;
    let reader = Connection::open_with_flags(directory.path().join("divvy.db"), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let reader = reader.expect("there");
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").expect("readable");
    for number in 2..=90 {
        write(&store, number).await;
    }
    let file = || std::fs::metadata(directory.path().join("divvy.db-wal")).map_or(0, |file| file.len());
    assert!(file() > 80 * MIB, "{}", file());
    let shown = store.log_bytes();
    assert!(shown > 80 * MIB && shown <= file(), "{shown} of {}", file());
    drop(reader);
    let deadline = Instant::now() + Duration::from_secs(120);
    for number in 100.. {
        write(&store, number).await;
        if file() <= 64 * MIB && store.log_bytes() < 32 * MIB {
            break;
        }
        assert!(Instant::now() < deadline, "{} bytes", file());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
