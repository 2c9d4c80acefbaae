//! Rows that the server cannot read: chunks of their long texts are gone.

use model::JobState;
use store::{ChangeKind, ReadError, Store, WriteError};
use test_postgres::Server;

use crate::helpers::*;

/// Takes the chunks of a job's long text away, as a lost page does.
fn damage(database: &Database, number: i64) {
    let of_job = format!("submitted_at = {}", at(number).as_nanosecond());
    let text = "(SELECT string_agg(md5(number::text), '') FROM generate_series(1, 1000) AS number)";
    database.ask(&format!("UPDATE jobs SET error = {text} WHERE {of_job}"));
    database.ask("CREATE EXTENSION IF NOT EXISTS pg_surgery");
    let toast = database.ask("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'divvy.jobs'::regclass");
    database.ask(&format!("SELECT heap_force_kill('{toast}', ARRAY(SELECT ctid FROM {toast}))"));
    let read =
        Server::shared().psql_command(&database.name, &format!("SELECT md5(error) FROM divvy.jobs WHERE {of_job}"));
    let said = { read }.output().expect("psql is there").stderr;
    assert!(String::from_utf8_lossy(&said).contains("missing chunk"), "{}", String::from_utf8_lossy(&said));
}

async fn three_jobs(database: &Database) -> Store {
    let store = Store::start(lead(&database.open()), KEEP_ALL).expect("a thread");
    for number in 1..4 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_server_cannot_read_stops_its_job_alone() {
    let database = Database::new();
    let store = three_jobs(&database).await;
    damage(&database, 2);
    for task in 0..3 {
        for number in 1..4 {
            store.record(completed(id(number), task..task + 1, 1));
        }
    }
    store.flush().await.expect("all others are written");
    assert_eq!(store.is_failing(), None);
    let unwritable = store.unwritable().borrow().clone();
    assert!(matches!(unwritable.get(&id(2)), Some(WriteError::Corrupt(why)) if why.contains("missing chunk")));
    assert_eq!(unwritable.len(), 1);
    for number in [1, 3] {
        assert_eq!(record_of(&store, id(number)).await.tasks_done, 3);
    }
    store
        .commit(change(id(1), at(5), ChangeKind::Ended { state: JobState::Failed, result: None, error: None }))
        .await
        .expect("room");
    store.submit(range_job(4, 10)).await.expect("room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_server_cannot_read_is_canceled_and_forgotten() {
    let database = Database::new();
    let store = three_jobs(&database).await;
    damage(&database, 2);
    assert!(matches!(store.job(id(2)).await, Err(ReadError::Unreadable { .. })));
    assert_eq!(store.cancel_unread(id(2), at(9), "why".to_owned()).await, Ok(true));
    store.close().expect("all is committed");
    let retention = store::Retention { max_age: std::time::Duration::ZERO, max_bytes: u64::MAX };
    let store = Store::start(lead(&database.open()), retention).expect("a thread");
    let open = store.unfinished().await.expect("the others are there");
    assert_eq!(open.iter().map(|job| job.record.id).collect::<Vec<_>>(), [id(1), id(3)]);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(database.ask("SELECT count(*) FROM jobs"), "2");
}
