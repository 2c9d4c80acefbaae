//! A backup by the command in docs/operation.md.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::helpers::*;

const MANUAL: &str = include_str!("../../../../docs/operation.md");

/// The command that the manual names.
fn command() -> String {
    let (_, arguments) = MANUAL.split_once("**Back up** with `sqlite3 ").expect("the manual tells how");
    let (arguments, _) = arguments.split_once('`').expect("the end of the command");
    format!("sqlite3 {}", arguments.replace('\n', " "))
}

#[tokio::test]
async fn a_backup_ends_while_jobs_are_submitted_and_has_the_state_of_one_moment() {
    let (directory, store) = new_store();
    // Larger than what is copied between two changes.
    let payload = raw(&format!("\"{}\"", "x".repeat(1000)));
    store.submit(tasks_job(1, vec![payload; 30_000])).await.expect("room");
    let mut backup = Command::new("sh");
    backup.arg("-c").arg(command()).current_dir(directory.path()).stdout(Stdio::null());
    let (mut backup, since) = (backup.spawn().expect("a shell"), Instant::now());
    let mut submitted = 1;
    let status = loop {
        if let Some(status) = backup.try_wait().expect("it is a child") {
            break status;
        }
        if since.elapsed() > Duration::from_secs(60) {
            let _ = backup.kill();
            panic!("the backup never ends: {submitted} jobs were submitted meanwhile");
        }
        submitted += 1;
        store.submit(range_job(submitted, 10)).await.expect("room");
    };
    if status.code() == Some(127) {
        eprintln!("there is no sqlite3 here: the backup has not run");
        return;
    }
    assert!(status.success(), "{status}");
    store.close().expect("all is committed");

    let restored = tempfile::tempdir().expect("room");
    fs::copy(directory.path().join("copy.db"), restored.path().join("divvy.db")).expect("room");
    let store = open(restored.path());
    let found = store.unfinished().await.expect("readable");
    assert!(found.iter().map(|job| job.record.id).eq((1..=found.len() as u128).map(id)), "{found:?}");
    assert!((1..=submitted).contains(&(found.len() as u128)), "{} of {submitted}", found.len());
    assert_eq!(store.payloads(id(1), 29_999..30_000).await.map(|payloads| payloads.len()), Ok(1));
}
