//! Refusals at the start, and TLS.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::Shared;
use store::shared::LEASE;
use store_postgres::{OpenError, StoreSettings};
use tempfile::TempDir;
use test_postgres::{Server, own_addresses};

use crate::helpers::*;

fn refused(url: &str, results: &TempDir) -> OpenError {
    store_postgres::open(&settings(url, results)).expect_err("it is refused")
}

#[test]
fn a_place_for_results_must_be_named() {
    let database = Database::new();
    let settings = StoreSettings { url: database.url(), results_url: None, lease: LEASE, patience: Duration::ZERO };
    let error = store_postgres::open(&settings).expect_err("it is refused");
    assert!(matches!(error, OpenError::NoResultsUrl) && error.to_string().contains("DIVVY_RESULTS_URL"), "{error}");
}

#[test]
fn a_database_of_a_newer_program_is_refused_and_left_as_it_is() {
    let database = Database::new();
    drop(database.open());
    database.ask("UPDATE schema_version SET version = 99");
    let error = refused(&database.url(), &database.results);
    assert!(matches!(error, OpenError::NewerSchema { found: 99, .. }), "{error}");
    assert_eq!(database.ask("SELECT version FROM schema_version"), "99");
}

#[test]
fn of_several_that_come_at_once_one_migrates() {
    let database = Database::new();
    let url = database.url();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| drop(open(&url, &database.results)));
        }
    });
    assert_eq!(database.ask("SELECT count(*), max(version) FROM schema_version"), "1|7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_a_deadlock_ends_is_made_again() {
    let database = Database::new();
    drop(database.open());
    // The next migrations change one table and then wait for another.
    database.ask("UPDATE schema_version SET version = 5");
    // Time to make the deadlock, less than a migration waits for a lock.
    database.ask(&format!("ALTER DATABASE {} SET deadlock_timeout = '3s'", database.name));
    let (client, connection) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.expect("reachable");
    let driving = tokio::spawn(connection);
    // As a running coordinator that has written jobs. This session looks for no deadlock: the server ends the migration.
    let hold = "SET deadlock_timeout = '10min'; BEGIN; LOCK TABLE divvy.jobs IN ROW EXCLUSIVE MODE";
    client.batch_execute(hold).await.expect("locked");
    let settings = settings(&database.url(), &database.results);
    let opening = tokio::task::spawn_blocking(move || store_postgres::open(&settings).map(drop));
    let waiting = "SELECT pg_stat_clear_snapshot()::text || count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let since = Instant::now();
    while client.query_one(waiting, &[]).await.expect("an answer").get::<_, &str>(0) == "0" {
        assert!(since.elapsed() < Duration::from_secs(60) && !opening.is_finished(), "the migration never waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.batch_execute("SELECT bytes FROM divvy.finished").await.expect("the migration is rolled back");
    client.batch_execute("ROLLBACK").await.expect("rolled back");
    opening.await.expect("no panic").expect("it is made again");
    assert_eq!(database.ask("SELECT version FROM schema_version"), "7");
    driving.abort();
}

#[test]
fn a_wrong_password_or_database_is_told_at_once() {
    // The server may have to be started first.
    let (url, results) = (Server::shared().url("nowhere"), TempDir::new().expect("there is room"));
    // The quickest of three: a machine that is busy may be late with one of them.
    let took = (0..3).map(|_| {
        let since = Instant::now();
        let error = refused(&url, &results);
        assert!(error.to_string().contains("nowhere"), "{error}");
        since.elapsed()
    });
    let quickest = took.min().expect("three");
    assert!(quickest < Duration::from_secs(5), "{quickest:?}");
}

#[test]
fn a_database_has_any_name_that_its_server_allows() {
    let (server, results) = (Server::shared(), TempDir::new().expect("there is room"));
    let name = "Odd é/'%?@ name";
    server.psql("postgres", &format!("CREATE DATABASE \"{name}\""));
    let shared = open(&server.url("Odd%20%C3%A9%2F%27%25%3F%40%20name"), &results);
    let epoch = lead(&shared).epoch.0;
    assert_eq!(server.psql(name, "SELECT epoch FROM divvy.fence"), epoch.to_string());
}

#[test]
fn a_database_that_cannot_store_every_text_is_refused() {
    let (server, results) = (Server::shared(), TempDir::new().expect("there is room"));
    server.psql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let error = refused(&server.url("latin"), &results);
    assert!(matches!(&error, OpenError::Encoding { found, .. } if found == "LATIN1"), "{error}");
    assert_eq!(server.psql("latin", "SELECT to_regclass('divvy.jobs') IS NULL"), "t");
}

/// pgbouncer in front of the server, as `nobody` where the test is root.
struct Pooler {
    process: std::process::Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Pooler {
    fn start(mode: &str) -> Self {
        let directory = TempDir::with_prefix("divvy-pooler-").expect("a directory");
        let ([address], server) = (own_addresses(), Server::shared().address());
        let config = directory.path().join("pgbouncer.ini");
        let users = directory.path().join("users.txt");
        fs::write(&users, "\"divvy\" \"\"\n").expect("room");
        // With `any`, the user that the pooler connects as is in the line of the database.
        let text = format!(
            "[databases]\n* = host={} port={} user=divvy\n[pgbouncer]\nlisten_addr = {}\n\
             listen_port = {}\nauth_type = any\nauth_file = {}\npool_mode = {mode}\nunix_socket_dir =\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
            users.display()
        );
        fs::write(&config, text).expect("room");
        for path in [directory.path(), &config, &users] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
        }
        let program = "/usr/sbin/pgbouncer";
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", program]);
            command
        } else {
            Command::new(program)
        };
        let process = command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("pgbouncer is not installed: apt-get install pgbouncer (scripts/test.sh does so)");
        let since = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "pgbouncer does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, address, _directory: directory }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_pooler_that_mixes_sessions_is_refused_and_one_that_keeps_them_works() {
    let database = Database::new();
    let pooler = Pooler::start("transaction");
    let error = refused(&Server::url_by(pooler.address, &database.name), &database.results);
    assert!(matches!(error, OpenError::Pooler { .. }) && error.to_string().contains("session mode"), "{error}");
    drop(pooler);
    let pooler = Pooler::start("session");
    let shared = open(&Server::url_by(pooler.address, &database.name), &database.results);
    assert_eq!(lead(&shared).last_batch, 0);
}

#[tokio::test]
async fn each_sslmode_reaches_a_server_with_tls_as_far_as_its_certificate_is_right() {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let authority_certificate = authority.self_signed(&key).expect("a certificate");
    let issuer = rcgen::Issuer::new(authority, key);
    let server_key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).expect("parameters");
    let certificate = certificate.signed_by(&server_key, &issuer).expect("a certificate");

    let server = Server::start(&[]);
    let directory = server.data_directory();
    fs::write(directory.join("server.crt"), certificate.pem()).expect("room");
    fs::write(directory.join("server.key"), server_key.serialize_pem()).expect("room");
    fs::write(directory.join("root.crt"), authority_certificate.pem()).expect("room");
    let key_file = directory.join("server.key");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&key_file, Some(65534), Some(65534)).expect("it is ours");
    }
    fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    fs::write(directory.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").expect("room");
    server.psql("postgres", "ALTER SYSTEM SET ssl = on");
    server.stop();
    server.start_again();

    let results = TempDir::new().expect("there is room");
    let root = directory.join("root.crt").display().to_string();
    let url = |rest: &str| format!("postgres://divvy@{}/postgres?{rest}", server.address());
    for works in
        ["sslmode=allow", "sslmode=prefer", "sslmode=require", &format!("sslmode=verify-ca&sslrootcert={root}")]
    {
        let shared = open(&url(works), &results);
        assert_eq!(shared.members().await, Ok(Vec::new()), "{works}");
    }
    // By name the certificate is right; by address it is not.
    let by_name = format!(
        "postgres://divvy@db.example:{}/postgres?hostaddr={}&sslmode=verify-full&sslrootcert={root}",
        server.address().port(),
        server.address().ip()
    );
    drop(open(&by_name, &results));
    for fails in [format!("sslmode=verify-full&sslrootcert={root}"), "sslmode=disable".to_owned()] {
        let error = refused(&url(&fails), &results);
        assert!(matches!(error, OpenError::Unavailable { .. }), "{fails}: {error}");
    }
}
