//! A database for each test.

use std::thread;
use std::time::{Duration, Instant};

use store::shared::{Acquired, LEASE, LeadershipLease, Member};
pub(crate) use store::suite::helpers::*;
use store::suite::{Harness, SharedHarness};
use store::{Leadership, Parts, Shared, Store};
use store_postgres::{PostgresStore, StoreSettings};
use tempfile::TempDir;
use test_postgres::{Proxy, Server};
use uuid::Uuid;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tables in an order in which they can be copied.
const TABLES: [&str; 23] = [
    "lease",
    "lease_duration",
    "fence",
    "counter",
    "members",
    "statistics",
    "statistics_durations",
    "statistics_tasks",
    "statistics_pending",
    "jobs",
    "tags",
    "spans",
    "payloads",
    "attempts",
    "events",
    "results",
    "swept",
    "dropped_objects",
    "programs",
    "logs",
    "positions",
    "drains",
    "finished",
];

pub(crate) fn settings(url: &str, results: &TempDir) -> StoreSettings {
    let results_url = url::Url::from_directory_path(results.path()).expect("a path");
    let patience = Duration::from_secs(10);
    StoreSettings { url: url.to_owned(), results_url: Some(results_url), lease: LEASE, patience }
}

pub(crate) fn open(url: &str, results: &TempDir) -> PostgresStore {
    store_postgres::open(&settings(url, results)).expect("the database is fine")
}

/// A database that is empty at first, and the place of its results.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) results: TempDir,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { name: Server::shared().create_database(), results: TempDir::new().expect("there is room") }
    }

    pub(crate) fn url(&self) -> String {
        Server::shared().url(&self.name)
    }

    pub(crate) fn open(&self) -> PostgresStore {
        open(&self.url(), &self.results)
    }

    /// The database as a coordinator with leases of this duration opens it.
    pub(crate) fn open_leased(&self, lease: Duration) -> PostgresStore {
        let settings = StoreSettings { lease, ..settings(&self.url(), &self.results) };
        store_postgres::open(&settings).expect("the database is fine")
    }

    /// The answer to a statement.
    pub(crate) fn ask(&self, sql: &str) -> String {
        Server::shared().psql(&self.name, &format!("SET search_path = divvy; {sql}"))
    }
}

/// A database behind a proxy.
pub(crate) struct Behind {
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
    pub(crate) shared: PostgresStore,
}

impl Behind {
    pub(crate) fn new() -> Self {
        let database = Database::new();
        let proxy = Proxy::start(Server::shared().address());
        let shared = open(&Server::url_by(proxy.address(), &database.name), &database.results);
        Self { database, proxy, shared }
    }

    pub(crate) fn leader(&self) -> Store {
        Store::start(lead(&self.shared), KEEP_ALL).expect("a thread")
    }

    pub(crate) fn follower(&self) -> Store {
        Store::follow(self.shared.follow().expect("reachable"), KEEP_ALL).expect("a thread")
    }
}

/// Waits for a condition.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Takes the lease over, whoever holds it: what was opened before is closed.
pub(crate) fn lead(shared: &dyn Shared) -> Parts {
    let mut leadership = shared.leadership();
    eventually("the lease is there to be taken", || match acquire(&mut *leadership, 1) {
        Acquired::Leads(term) => Ok(shared.lead(term.epoch).expect("it leads")),
        held @ Acquired::Held { .. } => Err(format!("{held:?}")),
    })
}

/// The first answer to a member that asks for the lease: a busy machine does not always answer within the time of a lease.
pub(crate) fn acquire(leadership: &mut dyn Leadership, member: u128) -> Acquired {
    eventually("it is answered", || leadership.acquire(Uuid::from_u128(member)).map_err(|error| error.to_string()))
}

/// The term of a member that is given the lease by the first answer.
pub(crate) fn acquire_free(leadership: &mut dyn Leadership, member: u128) -> LeadershipLease {
    match acquire(leadership, member) {
        Acquired::Leads(term) => term,
        held @ Acquired::Held { .. } => panic!("{held:?}"),
    }
}

/// Tells the others of a member.
pub(crate) fn announce(shared: &dyn Shared, member: &Member) {
    let mut leadership = shared.leadership();
    eventually("the member is told of", || leadership.announce(member).map_err(|error| error.to_string()));
}

/// The value of `attempt`, once it succeeds.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let since = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(error) => assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

impl Harness for Database {
    fn parts(&self) -> Parts {
        lead(&self.open())
    }

    fn cases(&self) -> u32 {
        12
    }

    /// A crash leaves what is committed: what one snapshot sees.
    fn crashed(&self) -> Box<dyn Harness> {
        let copy = Self::new();
        if self.ask("SELECT to_regclass('divvy.jobs') IS NULL") == "t" {
            return Box::new(copy);
        }
        drop(copy.open());
        let server = Server::shared();
        let file =
            |table: &str| format!("{}/{table}", server.data_directory().join("copies").join(&copy.name).display());
        let directory = server.data_directory().join("copies").join(&copy.name);
        std::fs::create_dir_all(&directory).expect("there is room");
        give_away(&directory);
        give_away(directory.parent().expect("it has one"));
        let mut out = "BEGIN ISOLATION LEVEL REPEATABLE READ".to_owned();
        let mut back = format!("BEGIN; TRUNCATE {}", TABLES.join(", "));
        for table in TABLES {
            out += &format!("; COPY {table} TO '{}'", file(table));
            back += &format!("; COPY {table} FROM '{}'", file(table));
        }
        out += "; COMMIT";
        for sequence in ["job_blocks", "attempt_blocks"] {
            let last = self.ask(&format!("SELECT last_value FROM {sequence}"));
            back += &format!("; SELECT setval('{sequence}', {last})");
        }
        self.ask(&out);
        copy.ask(&format!("{back}; COMMIT"));
        std::fs::remove_dir_all(&directory).expect("it is ours");
        std::fs::create_dir_all(copy.results.path()).expect("there is room");
        for entry in std::fs::read_dir(self.results.path()).expect("readable").flatten() {
            std::fs::copy(entry.path(), copy.results.path().join(entry.file_name())).expect("there is room");
        }
        Box::new(copy)
    }

    fn damage(&self, sql: &str) -> bool {
        let changed = self.ask(&format!("WITH changed AS ({sql} RETURNING 1) SELECT count(*) FROM changed"));
        assert_ne!(changed, "0", "{sql}");
        true
    }
}

/// The server may write there.
fn give_away(directory: &std::path::Path) {
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
}

impl SharedHarness for Database {
    fn shared(&self) -> Box<dyn Shared> {
        Box::new(self.open())
    }

    fn pass(&self, time: Duration) {
        thread::sleep(time);
    }

    fn move_lease(&self, hours: i32) {
        self.ask(&format!("UPDATE lease SET expires_at = expires_at + interval '{hours} hours'"));
    }
}
