use std::time::Duration;

use futures_util::future::{join, join_all};
use store::backend::Reads;

use super::*;

#[tokio::test]
async fn a_query_whose_caller_has_left_ends_and_its_connection_serves_others() {
    let directory = tempfile::tempdir().expect("room");
    let path = directory.path().join("some.db");
    Connection::open(&path).expect("room").execute_batch("CREATE TABLE some (number INTEGER)").expect("room");
    let readers = Pool::open(&path, READERS).expect("a database");
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let query = || readers.read(move |db| db.query_row(endless, [], |row| row.get::<_, i64>(0)));
    let all = join_all((0..2 * READERS).map(|_| query()));
    assert!(tokio::time::timeout(Duration::from_millis(300), all).await.is_err());
    let short = readers.read(|db| db.query_row("SELECT 7", [], |row| row.get::<_, i64>(0)));
    let found = tokio::time::timeout(Duration::from_secs(60), join_all([short])).await.expect("a free connection");
    assert_eq!(found, [Ok(7)]);
}

#[tokio::test]
async fn a_job_is_read_while_lists_take_long() {
    let directory = tempfile::tempdir().expect("room");
    let opened = open::open(directory.path()).expect("a store");
    let readers = Readers::open(&opened.path).expect("a database");
    let (begun, began) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    let long = (0..LISTS).map(|_| {
        let (begun, ended) = (begun.clone(), ended.clone());
        readers.lists.read(move |_| {
            let _ = begun.send(());
            let _ = lock(&ended).recv();
            Ok(())
        })
    });
    let reading = async {
        tokio::task::spawn_blocking(move || (0..LISTS).for_each(|_| began.recv().expect("it begins")))
            .await
            .expect("begun");
        let list = readers.jobs(store::JobFilter::default(), None, 1);
        assert!(tokio::time::timeout(Duration::from_millis(100), list).await.is_err(), "it takes its turn");
        let job = readers.job(model::JobId(uuid::Uuid::nil()));
        let found = tokio::time::timeout(Duration::from_secs(60), job).await.expect("no list is waited for");
        assert!(found.is_ok_and(|job| job.is_none()));
        drop(end);
    };
    let (all, ()) = join(join_all(long), reading).await;
    assert!(all.into_iter().all(|read| read.is_ok()));
}
