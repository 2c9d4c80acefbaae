//! Errors of opening a store, and the meaning of PostgreSQL's errors for a reader and for a writer.

use store::backend::BatchError;
use store::{LeadershipError, ObjectsError, ROW, ReadError, WriteError};
use tokio_postgres::error::SqlState;

/// The reason why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be read.
    #[error("DIVVY_STORE_URL cannot be used: {0}")]
    Url(String),
    /// `DIVVY_RESULTS_URL` is not set.
    #[error(
        "DIVVY_RESULTS_URL must be set with PostgreSQL, to a place that all coordinators share, such as s3://bucket/results \
         or file:///mnt/shared/results"
    )]
    NoResultsUrl,
    /// The database cannot be reached, or refuses.
    #[error("the database {place} cannot be used: {detail}")]
    Unavailable {
        /// Host and database.
        place: String,
        /// Text of the error.
        detail: String,
    },
    /// The server's version is not supported.
    #[error("the database {place} is of PostgreSQL {found}; version {least} or later is needed")]
    OldServer {
        /// Host and database.
        place: String,
        /// Version of the server.
        found: String,
        /// Oldest supported version.
        least: u32,
    },
    /// The database's encoding cannot store all texts.
    #[error(
        "the database {place} has the encoding {found}; UTF8 is needed: create it with ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding {
        /// Host and database.
        place: String,
        /// Encoding of the database.
        found: String,
    },
    /// A pooler changes the session between transactions.
    #[error(
        "{place} hands each transaction to another session, as a pooler in transaction mode does; connect to PostgreSQL \
         itself, or use the pooler in session mode"
    )]
    Pooler {
        /// Host and database.
        place: String,
    },
    /// A newer program has written it.
    #[error("the database {place} has schema {found}, this program knows {known} at most; run the newer program")]
    NewerSchema {
        /// Host and database.
        place: String,
        /// Schema of the database.
        found: i32,
        /// The newest schema that this version knows.
        known: i32,
    },
    /// The place for large results cannot be used.
    #[error(transparent)]
    Results(#[from] ObjectsError),
    /// A thread cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[from] std::io::Error),
}

/// Beginning of the driver's error when nothing listens, or a host has no address.
pub(crate) const UNREACHABLE: &str = "error connecting to server";

/// The reason why a query failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    /// Error of the driver or the server.
    #[error("{}", describe(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// The server has not answered.
    #[error("the database does not answer")]
    NoAnswer,
    /// The pool is used up.
    #[error("all {0} connections for reads are in use")]
    Busy(usize),
    /// A damaged value.
    #[error("{0}")]
    Damaged(String),
}

/// The error with the server's message; the driver's own text is only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let (message, code) = (db.message(), db.code().code());
        // The server's own message may tell of reserved connections only.
        let told = if *db.code() == SqlState::TOO_MANY_CONNECTIONS { "all connections are taken: " } else { "" };
        return format!("{told}{message} ({code})");
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl DbError {
    fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Sql(error) => error.code(),
            Self::NoAnswer | Self::Busy(_) | Self::Damaged(_) => None,
        }
    }

    /// Whether the server has answered, so that the transaction is known to be rolled back.
    pub(crate) fn is_answer(&self) -> bool {
        // The connection is closed after such an error: it may concern the statement after COMMIT.
        self.state().is_some_and(|state| !is_end_of_session(state)) || matches!(self, Self::Damaged(_))
    }

    /// Whether the server has said it.
    pub(crate) fn is_of_server(&self) -> bool {
        self.state().is_some()
    }

    /// Whether another session may succeed: this one was ended, or was read-only from its beginning.
    pub(crate) fn is_of_the_session(&self) -> bool {
        let is_closed = matches!(self, Self::Sql(error) if error.is_closed());
        is_closed || self.is(&SqlState::READ_ONLY_SQL_TRANSACTION) || self.state().is_some_and(is_end_of_session)
    }

    /// Whether the database may be available a little later: it does not listen, starts, or has no connection left.
    pub(crate) fn may_pass(&self) -> bool {
        match self.state() {
            Some(state) => ["57P", "53", "08"].iter().any(|class| state.code().starts_with(class)),
            None => matches!(self, Self::NoAnswer) || self.to_string().starts_with(UNREACHABLE),
        }
    }

    /// Whether the server, or its limit for this role or database, allows no more connections.
    pub(crate) fn is_full(&self) -> bool {
        self.is(&SqlState::TOO_MANY_CONNECTIONS)
    }

    /// Whether the requested data is damaged, as this program or the server finds.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_)) || self.state().is_some_and(|state| state.code().starts_with("XX"))
    }

    pub(crate) fn is(&self, state: &SqlState) -> bool {
        self.state() == Some(state)
    }
}

/// Class 57P: an operator, a crash or a timeout has ended the session. 25P03 and 25P04: its transaction stood idle or lasted too
/// long, as that of a process that was halted for some seconds.
fn is_end_of_session(state: &SqlState) -> bool {
    state.code().starts_with("57P") || ["25P03", "25P04"].contains(&state.code())
}

pub(crate) fn read_error(error: &DbError) -> ReadError {
    if error.is_damage() {
        ReadError::Corrupt { place: ROW.to_owned(), detail: error.to_string() }
    } else {
        ReadError::Unavailable(error.to_string())
    }
}

pub(crate) fn write_error(error: &DbError) -> WriteError {
    let code = error.state().map_or("", SqlState::code);
    match code {
        "53100" => WriteError::Full("the disk of the database is full".to_owned()),
        "25006" => WriteError::ReadOnly("the database is read-only".to_owned()),
        _ if error.is_damage() => WriteError::Corrupt(error.to_string()),
        _ => WriteError::Unavailable(error.to_string()),
    }
}

/// The error of a batch that was rolled back.
pub(crate) fn batch_error(error: &DbError) -> BatchError {
    // Data exceptions, violated constraints and limits of the server: the same entry would fail again.
    let class = error.state().map_or("", |state| &state.code()[..2]);
    if matches!(class, "22" | "23" | "54") {
        BatchError::Deterministic { entry: None, reason: error.to_string() }
    } else if error.is_damage() {
        BatchError::Damaged { error: write_error(error), of_one: matches!(error, DbError::Damaged(_)) }
    } else {
        BatchError::RolledBack(write_error(error))
    }
}

pub(crate) fn leadership_error(error: &DbError) -> LeadershipError {
    LeadershipError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_the_server_ends_are_told_from_statements_that_fail() {
        for (code, is_end) in [
            ("57P01", true),
            ("57P05", true),
            ("25P03", true),
            ("25P04", true),
            ("25006", false),
            ("23505", false),
            ("57014", false),
        ] {
            assert_eq!(is_end_of_session(&SqlState::from_code(code)), is_end, "{code}");
        }
    }
}
