//! What can go wrong, one enum for each operation.

use std::path::PathBuf;

use model::JobId;

/// Why a store could not be opened. Nothing that was found has been changed or deleted then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("the data directory {} cannot be used: {source}; check that the path and its permissions are right", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
    #[error("{} cannot be written: {source}; check its permissions and whether its file system is read-only", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
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
        /// Bytes that there must be.
        expected: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// The file is damaged inside.
    #[error("the database {} is damaged ({detail}); restore it from a backup", path.display())]
    Corrupt {
        /// The database's file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A newer program has written it.
    #[error("the database {} has schema {found}, this program knows {known} at most; run the newer program again", path.display())]
    NewerSchema {
        /// The database's file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that is known here.
        known: u32,
    },
    /// The file could not be read or brought up to date.
    #[error("the database {} cannot be opened: {detail}", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// The place for large results cannot be used.
    #[error("results cannot be stored at {url}: {detail}; check the URL")]
    Results {
        /// The place.
        url: String,
        /// What was wrong with it.
        detail: String,
    },
}

/// Why a change has not been made durable. It will not be later either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There is no room.
    #[error("the disk is full")]
    DiskFull,
    /// The file system or the file cannot be written.
    #[error("the database is read-only")]
    ReadOnly,
    /// Reading or writing failed.
    #[error("the database cannot be written: {0}")]
    Io(String),
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The place for large results refused one.
    #[error("the result cannot be stored: {0}")]
    Results(String),
    /// The change contradicts what is stored, such as a task that is done twice.
    #[error("the change cannot be made: {0}")]
    Refused(String),
    /// The store has stopped.
    #[error("the store is closed")]
    Closed,
}

/// Why a job was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Its id or its idempotency key stands for another job.
    #[error("job {existing} has the same id or idempotency key and another body")]
    Mismatch {
        /// That job.
        existing: JobId,
    },
    /// It could not be made durable.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was stored.
    #[error("{place} is damaged: {detail}")]
    Corrupt {
        /// The file, or the row's table and job.
        place: String,
        /// What was found.
        detail: String,
    },
    /// There are no such tasks.
    #[error("job {job} has no tasks {first} to {beyond}")]
    NoSuchTasks {
        /// The job that was asked about.
        job: JobId,
        /// The first task that was asked for.
        first: u64,
        /// The task after the last.
        beyond: u64,
    },
    /// Reading failed.
    #[error("the store cannot be read: {0}")]
    Io(String),
}

/// Why no result could be made of what the tasks answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// What they answered could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The result could not be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why nothing, or not everything, was pruned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    /// What there is could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be deleted.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Corrupt { place: crate::open::DATABASE_FILE.to_owned(), detail: error.to_string() }
            }
            _ => Self::Io(error.to_string()),
        }
    }
}
