//! A store in a directory of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use store::suite::Harness;
pub(crate) use store::suite::helpers::*;
use store::{Parts, PruneError, Pruned, Store};
use store_sqlite::StoreSettings;
use tempfile::TempDir;

pub(crate) fn settings(data_dir: &Path) -> StoreSettings {
    StoreSettings { data_dir: data_dir.to_owned(), results_url: None, retention: KEEP_ALL }
}

pub(crate) fn open(data_dir: &Path) -> Store {
    store_sqlite::open(settings(data_dir)).expect("the directory is fine")
}

pub(crate) fn new_store() -> (TempDir, Store) {
    let directory = TempDir::new().expect("there is room");
    let store = open(directory.path());
    (directory, store)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// A data directory.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("there is room"))
    }
}

impl Harness for Directory {
    fn parts(&self) -> Parts {
        store_sqlite::open_parts(settings(self.0.path())).expect("the directory is fine")
    }

    fn crashed(&self) -> Box<dyn Harness> {
        let crashed = Self::new();
        copy(self.0.path(), crashed.0.path());
        Box::new(crashed)
    }

    fn damage(&self, sql: &str) -> bool {
        let db = rusqlite::Connection::open(self.0.path().join("divvy.db")).expect("it is there");
        assert!(db.execute(sql, []).expect("SQL") > 0, "{sql}");
        true
    }
}

/// Copies database and log as they are at one moment, but for the log's end.
pub(crate) fn copy(from: &Path, to: &Path) {
    if !from.join("divvy.db").exists() {
        return;
    }
    loop {
        let database = fs::read(from.join("divvy.db")).expect("readable");
        let log = fs::read(from.join("divvy.db-wal")).unwrap_or_default();
        if fs::read(from.join("divvy.db")).expect("readable") == database {
            fs::write(to.join("divvy.db"), database).expect("room");
            fs::write(to.join("divvy.db-wal"), log).expect("room");
            return;
        }
    }
}

/// Prunes as if an hour had passed by both clocks.
pub(crate) async fn prune_in_an_hour(store: &Store) -> Result<Pruned, PruneError> {
    let hour = Duration::from_mins(61);
    store.prune_at(Instant::now() + hour, Timestamp::now().checked_add(hour).expect("a time")).await
}
