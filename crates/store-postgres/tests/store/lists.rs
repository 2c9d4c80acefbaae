//! Lists that take long.

use std::sync::Arc;

use store::{JobFilter, Shared, Store};
use tokio_postgres::NoTls;

use crate::helpers::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_take_long_leave_connections_for_other_reads() {
    let database = Database::new();
    let shared = database.open();
    let store = Arc::new(Store::start(lead(&shared), KEEP_ALL).expect("a thread"));
    store.submit(range_job(1, 10)).await.expect("room");
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    // Only lists of jobs with a tag read this table.
    client.batch_execute("BEGIN; LOCK TABLE divvy.tags").await.expect("locked");
    let lists: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            let filter = JobFilter { tags: vec![("user".to_owned(), None)], ..JobFilter::default() };
            tokio::spawn(async move { store.jobs(filter, None, 10).await })
        })
        .collect();
    let waiting =
        "SELECT count(*) > 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    wait_until("lists wait for the lock", || database.ask(waiting) == "t").await;
    assert_eq!(store.job(id(1)).await.map(|job| job.is_some()), Ok(true));
    assert!(shared.members().await.is_ok(), "a coordinator that cannot read this list is not ready");
    for list in lists {
        list.abort();
    }
    driving.abort();
}
