use std::time::Duration;

use futures_util::future::join_all;

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
    let found = tokio::time::timeout(Duration::from_secs(20), join_all([short])).await.expect("a free connection");
    assert_eq!(found, [Ok(7)]);
}
