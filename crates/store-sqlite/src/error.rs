//! Errors of opening a store, and the meaning of SQLite's errors for a reader and for the writer.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use store::backend::BatchError;
use store::{ObjectsError, ROW, ReadError, WriteError};

/// The reason why a store could not be opened. Existing files are unchanged then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("the data directory {} cannot be used: {cause}; check that the path and its permissions are right", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Error of the system.
        cause: std::io::Error,
    },
    /// Another process uses the directory.
    #[error("the data directory {} is in use by another process; stop that one, or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file holds a lock of another program.
    #[error("the database {} is locked by another program; close that one", path.display())]
    Locked {
        /// The database's file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{} cannot be written: {cause}; check its permissions and whether its file system is read-only", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: std::io::Error,
    },
    /// The file is no database of divvy.
    #[error("{} is not a database of this program; move it away, or choose another data directory", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// There is a write-ahead log, but not the database that it belongs to.
    #[error("{} is missing, though its write-ahead log is there; restore both, or move the log away to begin anew", path.display())]
    Missing {
        /// The database's file.
        path: PathBuf,
    },
    /// The file has lost its end.
    #[error("the database {} is cut short: it has {actual} bytes of {expected}; restore it from a backup", path.display())]
    Truncated {
        /// The database's file.
        path: PathBuf,
        /// Bytes that the file must have.
        expected: u64,
        /// Bytes that the file has.
        actual: u64,
    },
    /// The file is damaged inside.
    #[error("the database {} is damaged ({detail}); restore it from a backup", path.display())]
    Corrupt {
        /// The database's file.
        path: PathBuf,
        /// Description of the damage.
        detail: String,
    },
    /// A newer program has written it.
    #[error("the database {} has schema {found}, this program knows {known} at most; run the newer program again", path.display())]
    NewerSchema {
        /// The database's file.
        path: PathBuf,
        /// The file's schema.
        found: u32,
        /// The newest schema that this version knows.
        known: u32,
    },
    /// Its disk has no room for the files that an open database needs.
    #[error("the database {} cannot be opened: the disk is full; make room on it", path.display())]
    Full {
        /// The database's file.
        path: PathBuf,
    },
    /// The file could not be read or brought up to date.
    #[error("the database {} cannot be opened: {detail}", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// Error of SQLite.
        detail: String,
    },
    /// The place for large results cannot be used.
    #[error(transparent)]
    Results(#[from] ObjectsError),
}

/// Whether a value in a row is damaged while the file itself is sound.
pub(crate) fn is_of_a_row(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..))
}

/// The error of a read.
pub(crate) fn read_error(error: &rusqlite::Error) -> ReadError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ReadError::Corrupt { place: crate::open::DATABASE_FILE.to_owned(), detail: error.to_string() }
        }
        None if is_of_a_row(error) => ReadError::Corrupt { place: ROW.to_owned(), detail: error.to_string() },
        _ => ReadError::Unavailable(error.to_string()),
    }
}

/// The error of a batch that was rolled back; `entry` is the faulty entry, if one is known.
pub(crate) fn batch_error(error: &rusqlite::Error, entry: Option<usize>) -> BatchError {
    let of_one = is_of_a_row(error);
    if of_one || error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
        BatchError::Damaged { error: write_error(error), of_one }
    } else if is_of_the_file(error) {
        BatchError::RolledBack(write_error(error))
    } else {
        BatchError::Deterministic { entry, reason: error.to_string() }
    }
}

/// Whether a later try may succeed, as no entry is at fault.
fn is_of_the_file(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::NotADatabase
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
        )
    )
}

pub(crate) fn write_error(error: &rusqlite::Error) -> WriteError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => WriteError::Full("the disk is full".to_owned()),
        Some(ErrorCode::ReadOnly) => WriteError::ReadOnly("the database is read-only".to_owned()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => WriteError::Corrupt(error.to_string()),
        None if is_of_a_row(error) => WriteError::Corrupt(error.to_string()),
        _ => WriteError::Unavailable(error.to_string()),
    }
}
