//! An operator's settings of the role: limits of time, another password.

use std::sync::Arc;

use store::shared::Acquired;
use store::{LeadershipError, ReadError, Shared, Store, SubmitError, WriteError};
use store_postgres::OpenError;
use test_postgres::{Proxy, Server};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::helpers::*;

/// A server that asks for passwords, with a database of a role of its own.
struct Guarded {
    server: Server,
    database: String,
    results: tempfile::TempDir,
}

impl Guarded {
    fn new() -> Self {
        let server = Server::start(&[]);
        let database = server.create_database();
        server.psql(&database, "CREATE ROLE keeper LOGIN PASSWORD 'first'");
        server.psql(&database, &format!("ALTER DATABASE {database} OWNER TO keeper"));
        let rules = "local all all trust\nhost all divvy all trust\nhost all all all scram-sha-256\n";
        std::fs::write(server.data_directory().join("pg_hba.conf"), rules).expect("it is ours");
        server.psql(&database, "SELECT pg_reload_conf()");
        Self { server, database, results: tempfile::TempDir::new().expect("there is room") }
    }

    fn url(&self, way: std::net::SocketAddr, password: &str) -> String {
        format!("postgres://keeper:{password}@{way}/{}?sslmode=disable", self.database)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_time_on_the_role_do_not_reach_the_writer_and_the_lease() {
    let guarded = Guarded::new();
    for limit in ["statement_timeout = '50ms'", "lock_timeout = '10ms'", "idle_in_transaction_session_timeout = '50ms'"]
    {
        guarded.server.psql(&guarded.database, &format!("ALTER ROLE keeper SET {limit}"));
    }
    let shared = open(&guarded.url(guarded.server.address(), "first"), &guarded.results);
    let store = Arc::new(Store::start(lead(&shared), KEEP_ALL).expect("a thread"));
    store.submit(range_job(1, 10)).await.expect("room");
    let (client, connection) =
        tokio_postgres::connect(&guarded.server.url(&guarded.database), NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT * FROM divvy.fence FOR UPDATE").await.expect("locked");
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit(completed(id(1), 0..3, 1)).await }
    });
    // Longer than the role's limits allow.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '200 ms'";
    wait_until("the batch waits", || guarded.server.psql(&guarded.database, waiting) == "1").await;
    client.batch_execute("ROLLBACK").await.expect("unlocked");
    committing.await.expect("no panic").expect("it waits for its turn");
    driving.abort();
    assert_eq!(store.unfinished().await.map(|jobs| jobs.len()), Ok(1));
    assert_eq!(store.is_failing(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_leaves_connections_alone_and_is_told_of_where_a_new_one_is_needed() {
    let guarded = Guarded::new();
    let proxy = Proxy::start(guarded.server.address());
    let shared = open(&guarded.url(proxy.address(), "first"), &guarded.results);
    let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    guarded.server.psql(&guarded.database, "ALTER ROLE keeper PASSWORD 'second'");
    store.submit(range_job(2, 10)).await.expect("its connection is as it was");
    proxy.cut();
    let said = "password authentication failed for user \"keeper\"";
    let refused = store.submit(range_job(3, 10)).await;
    assert!(
        matches!(&refused, Err(SubmitError::Write(WriteError::Unavailable(why))) if why.contains(said)),
        "{refused:?}"
    );
    let unread = store.job(id(1)).await;
    assert!(matches!(&unread, Err(ReadError::Unavailable(why)) if why.contains(said)), "{unread:?}");
    // A busy machine may not answer within the time of a lease.
    eventually("the lease's connection is told", || match shared.leadership().acquire(Uuid::from_u128(1)) {
        Err(LeadershipError::Unavailable(why)) if why.contains(said) => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    let closed = store_postgres::open(&settings(&guarded.url(proxy.address(), "first"), &guarded.results));
    assert!(
        matches!(&closed, Err(error @ OpenError::Unavailable { .. }) if error.to_string().contains(said)),
        "{closed:?}"
    );
    // The old password again, as a role may have for a while: nothing has to be started again.
    guarded.server.psql(&guarded.database, "ALTER ROLE keeper PASSWORD 'first'");
    let acquired = acquire(&mut *shared.leadership(), 1);
    assert!(matches!(acquired, Acquired::Leads(_)), "{acquired:?}");
    assert!(store.job(id(1)).await.expect("readable").is_some());
}
