//! The end of the write-ahead log, which a batch without a commit has left.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::open;

const MIB: u64 = 1 << 20;

/// An open database with one committed row.
struct Database {
    backend: SqliteBackend,
    directory: TempDir,
}

impl Database {
    fn new() -> Self {
        let directory = TempDir::new().expect("room");
        let opened = open::open(directory.path()).expect("a store");
        let (epoch, _) = next_epoch(&opened.db).expect("the fence");
        let backend = SqliteBackend::new(opened, epoch).expect("its files are there");
        let database = Self { backend, directory };
        database.put("one");
        database
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, row: &str) {
        self.backend.db.execute("INSERT INTO dropped_objects (object) VALUES (?1)", [row]).expect("room");
    }

    /// A connection of another program.
    fn another(&self) -> Connection {
        Connection::open(self.path(open::DATABASE_FILE)).expect("it is there")
    }

    /// Writes frames without a commit into the log.
    fn leave_frames(&self) {
        let rows = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
             INSERT INTO dropped_objects (object) SELECT hex(randomblob(1000)) FROM n";
        // Pages that do not fit into the cache go into the log before the commit.
        let filling = format!("PRAGMA cache_size = 10; BEGIN IMMEDIATE; {rows}; ROLLBACK");
        self.backend.db.execute_batch(&filling).expect("room");
        assert!(self.backend.log_file.length() > 4 * MIB, "{}", self.backend.log_file.length());
    }
}

fn rows(db: &Connection) -> Vec<String> {
    let mut select = db.prepare("SELECT object FROM dropped_objects ORDER BY object").expect("SQL");
    let rows = select.query_map([], |row| row.get(0)).expect("SQL");
    rows.collect::<rusqlite::Result<_>>().expect("readable")
}

fn assert_sound(db: &Connection) {
    let verdict: String = db.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("SQL");
    assert_eq!(verdict, "ok");
}

#[test]
fn a_cut_takes_nothing_from_a_reader_of_an_old_state_nor_from_the_commits_nor_from_a_start_after_a_crash() {
    let database = Database::new();
    let reader = database.another();
    reader.execute_batch("BEGIN").expect("SQL");
    assert_eq!(rows(&reader), ["one"]);
    database.put("three");
    database.leave_frames();
    database.backend.cut_log().expect("no other program writes");
    assert!(database.backend.log_file.length() < MIB, "{}", database.backend.log_file.length());
    assert_eq!(rows(&reader), ["one"]);
    database.put("two");
    assert_eq!(rows(&reader), ["one"]);
    assert_eq!(rows(&database.another()), ["one", "three", "two"]);
    assert_sound(&reader);

    let crashed = TempDir::new().expect("room");
    for name in [open::DATABASE_FILE, "divvy.db-wal"] {
        fs::copy(database.path(name), crashed.path().join(name)).expect("room");
    }
    let db = open::open(crashed.path()).expect("it is sound").db;
    assert_eq!(rows(&db), ["one", "three", "two"]);
    assert_sound(&db);
}

#[test]
fn a_log_that_another_program_writes_is_not_cut() {
    let database = Database::new();
    database.leave_frames();
    let length = database.backend.log_file.length();
    let writer = database.another();
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO dropped_objects (object) VALUES ('two')").expect("room");
    database.backend.db.busy_timeout(Duration::ZERO).expect("a setting");
    assert!(database.backend.cut_log().is_err(), "the other program holds the lock");
    assert_eq!(database.backend.log_file.length(), length);
    writer.execute_batch("COMMIT").expect("room");
    assert_eq!(rows(&database.backend.db), ["one", "two"]);
    database.backend.cut_log().expect("no other program writes");
    assert!(database.backend.log_file.length() < MIB, "{}", database.backend.log_file.length());
    assert_eq!(rows(&database.another()), ["one", "two"]);
}

#[test]
fn a_log_that_takes_the_place_of_the_open_one_is_left_as_it_is() {
    let database = Database::new();
    database.leave_frames();
    let (place, aside) = (database.path("divvy.db-wal"), database.path("aside"));
    fs::rename(&place, &aside).expect("the same file system");
    let other = vec![7_u8; 2 * MIB as usize];
    fs::write(&place, &other).expect("room");
    database.backend.cut_log().expect("no other program writes");
    assert_eq!(fs::read(&place).expect("there"), other);
    assert!(fs::metadata(&aside).expect("there").len() < MIB);
}
