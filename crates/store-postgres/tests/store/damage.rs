//! Rows that the server cannot read, as where chunks of their long texts are gone, or cannot delete.

use model::JobState;
use store::suite::damaged::a_job_that_is_damaged_meanwhile_stops_alone;
use store::{ReadError, Retention, Store, WriteError};
use test_postgres::Server;

use crate::helpers::*;

const KEEP_NOTHING: Retention = Retention { max_age: std::time::Duration::ZERO, max_bytes: u64::MAX };

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
    let store = Store::start(lead(&database.open()), KEEP_NOTHING).expect("a thread");
    let open = store.unfinished().await.expect("the others are there");
    assert_eq!(open.iter().map(|job| job.record.id).collect::<Vec<_>>(), [id(1), id(3)]);
    assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(1));
    assert_eq!(database.ask("SELECT count(*) FROM jobs"), "2");
}

/// Has the server find a row damaged when it is deleted, as it finds one of a lost page.
fn damage_deletion(database: &Database, table: &str, row: &str) {
    database.ask(&format!(
        "CREATE FUNCTION damaged() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'invalid page' USING ERRCODE = 'XX001'; END $$; \
         CREATE TRIGGER damaged BEFORE DELETE ON {table} FOR EACH ROW WHEN ({row}) EXECUTE FUNCTION damaged()"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_old_jobs_that_alone_stays_whose_row_the_server_cannot_delete() {
    let of_second = format!("OLD.submitted_at = {}", at(2).as_nanosecond());
    for (table, row, forgotten, left) in [("jobs", &*of_second, 2, "1|0|2"), ("events", "OLD.seq = 2", 3, "0|1|2")] {
        let database = Database::new();
        let store = Store::start(lead(&database.open()), KEEP_NOTHING).expect("a thread");
        for number in 1..4 {
            store.submit(range_job(number, 10)).await.expect("room");
            store.commit(ended(id(number), JobState::Failed, None)).await.expect("room");
        }
        damage_deletion(&database, table, row);
        assert_eq!(store.prune().await.map(|pruned| pruned.jobs), Ok(forgotten), "{table}");
        let counts = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM swept), (SELECT count(*) FROM events)";
        assert_eq!(database.ask(counts), left, "{table}");
    }
}
