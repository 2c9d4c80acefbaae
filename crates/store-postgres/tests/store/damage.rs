//! Rows that the server cannot read: chunks of their long texts are gone.

use store::suite::damaged::a_job_that_is_damaged_meanwhile_stops_alone;
use store::{ReadError, Store, WriteError};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_server_cannot_read_stops_its_job_alone() {
    let database = Database::new();
    let store = Store::start(lead(&database.open()), KEEP_ALL).expect("a thread");
    let said = a_job_that_is_damaged_meanwhile_stops_alone(&store, || damage(&database, 2)).await;
    assert!(matches!(&said, WriteError::Corrupt(why) if why.contains("missing chunk")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_server_cannot_read_is_canceled_and_forgotten() {
    let database = Database::new();
    let store = Store::start(lead(&database.open()), KEEP_ALL).expect("a thread");
    for number in 1..4 {
        store.submit(range_job(number, 10)).await.expect("room");
    }
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
