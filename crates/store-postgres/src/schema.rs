//! The schema: the first coordinator to start brings it up to date, in one transaction, under a lock.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{DbError, OpenError};

/// Migrations: each brings the schema from its place in the list to the next. A coordinator of the release before goes on with a
/// newer schema until it is replaced: a migration adds new parts, and removes only parts that that release no longer uses.
const MIGRATIONS: [&str; 7] = [
    include_str!("../migrations/0001_jobs.sql"),
    include_str!("../migrations/0002_programs.sql"),
    include_str!("../migrations/0003_positions.sql"),
    include_str!("../migrations/0004_verified.sql"),
    include_str!("../migrations/0005_drains.sql"),
    include_str!("../migrations/0006_finished.sql"),
    include_str!("../migrations/0007_lease_duration.sql"),
];
pub(crate) const SCHEMA: i32 = MIGRATIONS.len() as i32;
/// The advisory lock of a migration, held to the end of its transaction: "dvvy".
const LOCK: i64 = 0x6476_7679;
/// The oldest server: since 14 it notices that its client is gone while a statement runs.
const LEAST_SERVER: u32 = 14;

/// The reason why the schema could not be brought up to date. Nothing of it is changed.
#[derive(Debug)]
pub(crate) enum MigrationError {
    /// A statement has failed.
    Statement(DbError),
    /// The database is not supported.
    Refused(OpenError),
}

impl From<tokio_postgres::Error> for MigrationError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error.into())
    }
}

impl MigrationError {
    /// The error, if a repetition may succeed: another transaction was in the way, or the session has ended.
    pub(crate) fn passing(&self) -> Option<&DbError> {
        let Self::Statement(error) = self else { return None };
        let states =
            [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::LOCK_NOT_AVAILABLE];
        let passes = states.iter().any(|state| error.is(state)) || error.is_of_the_session();
        passes.then_some(error)
    }

    pub(crate) fn told(self, place: &str) -> OpenError {
        let error = match self {
            Self::Refused(error) => return error,
            Self::Statement(error) => error,
        };
        let mut detail = error.to_string();
        if error.is(&SqlState::LOCK_NOT_AVAILABLE) {
            detail += ": the schema cannot be brought up to date while another session uses a table, as a backup does";
        }
        OpenError::Unavailable { place: place.to_owned(), detail }
    }
}

pub(crate) async fn migrate(client: &Client, place: &str) -> Result<(), MigrationError> {
    check_server(client, place).await?;
    // Other starting coordinators may migrate for a while. The wait for the tables' own locks is as long as a writer's.
    let begin = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1min'; SET LOCAL lock_timeout = '1min'";
    client.batch_execute(begin).await?;
    // The text of a number is the same in every version of the protocol.
    let lock = format!("SELECT pg_advisory_xact_lock({LOCK}); SET LOCAL lock_timeout = '5s'");
    client.batch_execute(&lock).await?;
    let is_there = client.query_one("SELECT to_regclass('divvy.schema_version') IS NOT NULL", &[]).await;
    let found = if is_there?.get(0) {
        client.query_one("SELECT version FROM divvy.schema_version", &[]).await?.get(0)
    } else {
        let create = "CREATE SCHEMA IF NOT EXISTS divvy; CREATE TABLE divvy.schema_version (version integer NOT NULL); \
                      INSERT INTO divvy.schema_version VALUES (0)";
        client.batch_execute(create).await?;
        0
    };
    if found > SCHEMA {
        client.batch_execute("ROLLBACK").await?;
        let place = place.to_owned();
        return Err(MigrationError::Refused(OpenError::NewerSchema { place, found, known: SCHEMA }));
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        client.batch_execute(migration).await?;
    }
    if found < SCHEMA {
        client.execute("UPDATE divvy.schema_version SET version = $1", &[&SCHEMA]).await?;
    }
    client.batch_execute("COMMIT").await?;
    if found < SCHEMA {
        tracing::info!(from = found, to = SCHEMA, "the schema of the database is up to date");
    }
    Ok(())
}

async fn check_server(client: &Client, place: &str) -> Result<(), MigrationError> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
               current_setting('server_encoding')";
    let row = client.query_one(sql, &[]).await?;
    let place = place.to_owned();
    if row.get::<_, i32>(0) < LEAST_SERVER as i32 * 10_000 {
        return Err(MigrationError::Refused(OpenError::OldServer { place, found: row.get(1), least: LEAST_SERVER }));
    }
    let found: String = row.get(2);
    // SQL_ASCII keeps the bytes of any text.
    if !["UTF8", "SQL_ASCII"].contains(&found.as_str()) {
        return Err(MigrationError::Refused(OpenError::Encoding { place, found }));
    }
    Ok(())
}
