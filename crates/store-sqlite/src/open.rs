//! Opens the data directory: checks it first, and changes it only if all is well.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::OpenError;
use crate::{log, vacuum};

pub(crate) const DATABASE_FILE: &str = "divvy.db";
const LOCK_FILE: &str = "divvy.lock";
/// Mark in the file's header by which `file` recognizes the database: "dvvy".
const APPLICATION_ID: i32 = 0x6476_7679;
/// Migrations: each brings the schema from its place in the list to the next.
const MIGRATIONS: [&str; 8] = [
    include_str!("../migrations/0001_jobs.sql"),
    include_str!("../migrations/0002_epochs.sql"),
    include_str!("../migrations/0003_statistics.sql"),
    include_str!("../migrations/0004_programs.sql"),
    include_str!("../migrations/0005_positions.sql"),
    include_str!("../migrations/0006_verified.sql"),
    include_str!("../migrations/0007_drains.sql"),
    include_str!("../migrations/0008_finished.sql"),
];
const SCHEMA: u32 = MIGRATIONS.len() as u32;
/// Size up to which a file is checked from end to end, which takes about as long as reading it.
const CHECKED_BYTES: u64 = 64 * 1024 * 1024;
/// Time to wait for another program that has the database locked.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Statements that stay prepared for each connection.
const STATEMENTS: usize = 64;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The opened directory.
pub(crate) struct Opened {
    pub(crate) db: Connection,
    pub(crate) path: PathBuf,
    /// Lock that is held as long as the directory is in use.
    pub(crate) lock: File,
}

pub(crate) fn open(data_dir: &Path) -> Result<Opened, OpenError> {
    let lock = lock(data_dir)?;
    let path = data_dir.join(DATABASE_FILE);
    if path.try_exists().map_err(|cause| OpenError::Directory { path: data_dir.to_owned(), cause })? {
        inspect(&path)?;
    } else {
        create(&path)?;
    }
    let mut db = writing(&path).map_err(|error| database_error(&path, &error))?;
    migrate(&mut db).map_err(|error| database_error(&path, &error))?;
    vacuum::convert(&db).map_err(|error| database_error(&path, &error))?;
    if let Err(error) = sum_up(&db) {
        tracing::warn!(%error, "cannot sum up the bytes of finished jobs, which retention compares with its limit");
    }
    Ok(Opened { db, path, lock })
}

fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let unusable = |cause| OpenError::Directory { path: data_dir.to_owned(), cause };
    fs::create_dir_all(data_dir).map_err(unusable)?;
    let path = data_dir.join(LOCK_FILE);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|cause| OpenError::NotWritable { path: path.clone(), cause })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(OpenError::NotWritable { path, cause }),
    }
}

/// Makes a database under another name first: a database with the right name is complete, however early its process ended.
fn create(path: &Path) -> Result<(), OpenError> {
    let log = log::path_of(path);
    if log::length(&log) > 0 {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    let not_writable = |cause| OpenError::NotWritable { path: path.to_owned(), cause };
    let draft = path.with_extension("db.new");
    for file in [draft.clone(), log::path_of(&draft)] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(not_writable(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let draw_up = || -> rusqlite::Result<()> {
        let mut db = writing(&draft)?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        migrate(&mut db)?;
        db.close().map_err(|(_, error)| error)
    };
    draw_up().map_err(|error| database_error(path, &error))?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(not_writable)?;
    fs::rename(&draft, path).map_err(not_writable)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(not_writable)
}

/// Checks an existing database, without changing it.
fn inspect(path: &Path) -> Result<(), OpenError> {
    let not_writable = |cause| OpenError::NotWritable { path: path.to_owned(), cause };
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(not_writable)?;
    let length = file.metadata().map_err(not_writable)?.len();
    let mut header = [0; HEADER_BYTES];
    if length < HEADER_BYTES as u64 {
        return Err(OpenError::Truncated { path: path.to_owned(), expected: HEADER_BYTES as u64, actual: length });
    }
    file.read_exact(&mut header).map_err(not_writable)?;
    if !header.starts_with(MAGIC) || number(&header, 68) != APPLICATION_ID.cast_unsigned() {
        return Err(OpenError::NotADatabase { path: path.to_owned() });
    }
    check_length(path, length, &header)?;
    let check = || -> rusqlite::Result<(u32, Option<String>)> {
        let db = reading(path)?;
        // Closing the last connection would copy the log back: the file stays unchanged until it is known to be sound.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let version = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if length > CHECKED_BYTES {
            return Ok((version, None));
        }
        let verdict: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        Ok((version, (verdict != "ok").then_some(verdict)))
    };
    match check().map_err(|error| database_error(path, &error))? {
        (_, Some(detail)) => Err(OpenError::Corrupt { path: path.to_owned(), detail }),
        (found, None) if found > SCHEMA => Err(OpenError::NewerSchema { path: path.to_owned(), found, known: SCHEMA }),
        (_, None) => Ok(()),
    }
}

/// Checks that each page that the header counts is in the file, or in the log that is not copied back.
fn check_length(path: &Path, length: u64, header: &[u8]) -> Result<(), OpenError> {
    let page_size = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65536,
        size => size,
    };
    if !page_size.is_power_of_two() || page_size < 512 {
        return Err(OpenError::Corrupt { path: path.to_owned(), detail: format!("its page size is {page_size}") });
    }
    let log = log::read(&log::path_of(path), page_size)
        .map_err(|cause| OpenError::NotWritable { path: log::path_of(path), cause })?;
    let pages = log.as_ref().map_or_else(|| number(header, 28), |log| log.pages);
    let in_log = |page: &u32| log.as_ref().is_some_and(|log| log.holds.contains(page));
    let complete = u32::try_from(length / page_size).unwrap_or(u32::MAX);
    if (complete.saturating_add(1)..=pages).all(|page| in_log(&page)) {
        return Ok(());
    }
    Err(OpenError::Truncated { path: path.to_owned(), expected: u64::from(pages) * page_size, actual: length })
}

fn number(header: &[u8], at: usize) -> u32 {
    header[at..at + 4].iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn writing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Set before the first page is written: an existing database is not changed by it.
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // The writer copies the log back when no change waits.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    db.pragma_update(None, "cache_size", -32 * 1024)?;
    Ok(db)
}

pub(crate) fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.pragma_update(None, "cache_size", -8 * 1024)?;
    Ok(db)
}

fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        let transaction = db.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index as u32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Corrects the sum of the bytes of all jobs that are over: the deletion of a damaged row subtracts other bytes than were added
/// for it.
fn sum_up(db: &Connection) -> rusqlite::Result<usize> {
    let sql = "UPDATE finished SET bytes = found.bytes FROM \
         (SELECT CAST(max(0, min(total(bytes), 9e18)) AS INTEGER) AS bytes FROM jobs WHERE finished_at IS NOT NULL) AS found \
         WHERE finished.bytes <> found.bytes";
    db.execute(sql, [])
}

pub(crate) fn database_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    // The file that readers share with the writer cannot be lengthened: SQLite tells that in a code of its own.
    if error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) {
        return OpenError::Full { path };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Corrupt { path, detail: error.to_string() },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path },
        Some(ErrorCode::DiskFull) => OpenError::Full { path },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            OpenError::NotWritable { path, cause: io::Error::other(error.to_string()) }
        }
        _ => OpenError::Database { path, detail: error.to_string() },
    }
}
