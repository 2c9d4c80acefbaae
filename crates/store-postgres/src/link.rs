//! A connection: how it is made, its session, its prepared statements, and several statements in one flight.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, TryStreamExt};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Statement};

use crate::error::{DbError, UNREACHABLE};
use crate::target::Target;

/// Bound on the time to connect, over all ways and hosts together.
const CONNECT_DEADLINE: Duration = Duration::from_millis(2500);

/// Plans by index alone: tables that have just grown have no statistics yet. A stricter isolation, which a role or a database
/// may have as its default, would refuse every other of two writers that number events. Limits that only some versions of the
/// server know are lifted where they exist: they would end long reads, migrations and transfers. A server on Windows cannot look
/// whether a client is gone, and refuses to.
const COMMON: &str = "SET search_path = divvy; SET client_min_messages = warning; SET jit = off; SET enable_seqscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; \
     DO $$ BEGIN SET client_connection_check_interval = '1s'; EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$; \
     SET default_transaction_isolation = 'read committed'; \
     SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";
/// The server ends a read that takes longer, and one of a process that is gone without a word: its snapshot would keep old rows.
const READING: &str = "SET default_transaction_read_only = on; SET statement_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = '10s'";
/// There is no timeout of statements: it would interrupt a COMMIT that waits for a replica. A writer that is paused half way
/// through a transaction must not keep its locks.
const WRITING: &str = "SET synchronous_commit = on; SET lock_timeout = '5s'; SET statement_timeout = 0; \
     SET idle_in_transaction_session_timeout = '2s'";
/// For the lease: short statements that wait for one row.
const LEASING: &str = "SET synchronous_commit = on; SET lock_timeout = '200ms'; SET statement_timeout = 0; \
     SET idle_in_transaction_session_timeout = '1s'";

/// Purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Reading,
    Writing,
    Leasing,
}

impl Purpose {
    fn session(self) -> &'static str {
        match self {
            Self::Reading => READING,
            Self::Writing => WRITING,
            Self::Leasing => LEASING,
        }
    }
}

/// A connection with its session set up.
pub(crate) struct Link {
    pub(crate) client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    task: AbortHandle,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("is_closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}

impl Drop for Link {
    /// Closes the connection at once, with running statements.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Handler of the server's messages on a connection.
pub(crate) type Listener = Box<dyn Fn(AsyncMessage) + Send>;

impl Link {
    /// Connects on the runtime that it is called on.
    pub(crate) async fn connect(target: &Target, purpose: Purpose) -> Result<Self, DbError> {
        Self::connect_listening(target, purpose, Box::new(|_| ())).await
    }

    pub(crate) async fn connect_listening(
        target: &Target,
        purpose: Purpose,
        listener: Listener,
    ) -> Result<Self, DbError> {
        let connecting = async {
            let (client, task) = connect_any(target, listener).await?;
            let link = Self { client, statements: Mutex::default(), task };
            link.client.batch_execute(&format!("{COMMON}; {}", purpose.session())).await?;
            Ok(link)
        };
        timeout(CONNECT_DEADLINE, connecting).await.unwrap_or(Err(DbError::NoAnswer))
    }

    /// Prepares statements in one flight.
    pub(crate) async fn prepare(&self, sqls: &[&'static str]) -> Result<(), DbError> {
        let prepared = join_all(sqls.iter().map(|sql| self.client.prepare(sql))).await;
        for (sql, statement) in sqls.iter().zip(prepared) {
            self.lock().insert(sql, statement?);
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statement, prepared at its first use.
    async fn statement(&self, sql: &'static str) -> Result<Statement, DbError> {
        let known = self.lock().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.lock().insert(sql, statement.clone());
        Ok(statement)
    }

    /// The rows of a statement.
    pub(crate) async fn query(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, DbError> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, params).await?)
    }

    /// The only row of a statement, if there is one.
    pub(crate) async fn query_opt(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, DbError> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query_opt(&statement, params).await?)
    }

    /// Passes on the rows of a statement without parameters, one by one as they come: no more are in memory than fit into the
    /// connection.
    pub(crate) async fn each(
        &self,
        sql: &'static str,
        mut take: impl FnMut(&Row) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let statement = self.statement(sql).await?;
        let none: [i64; 0] = [];
        let mut rows = pin!(self.client.query_raw(&statement, none).await?);
        while let Some(row) = rows.try_next().await? {
            take(&row)?;
        }
        Ok(())
    }

    /// Sends all steps without waiting in between, once they are prepared, and returns the rows of each.
    ///
    /// # Errors
    /// The error of the first step that failed: within a transaction no later step had an effect.
    pub(crate) async fn fly(&self, steps: Vec<Step<'_>>) -> Result<Vec<Vec<Row>>, FlightError> {
        let mut rows = Vec::with_capacity(steps.len());
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            // `join_all` polls up to 30 futures in their order, which is the order in which they are sent.
            let some: Vec<_> = steps.by_ref().take(30).collect();
            let sqls: Vec<_> = some.iter().filter_map(Step::sql).filter(|sql| !self.lock().contains_key(sql)).collect();
            let at = rows.len();
            self.prepare(&sqls).await.map_err(|error| FlightError { step: at, error })?;
            for (place, outcome) in join_all(some.iter().map(|step| self.take(step))).await.into_iter().enumerate() {
                rows.push(outcome.map_err(|error| FlightError { step: at + place, error })?);
            }
        }
        Ok(rows)
    }

    fn take<'a>(&'a self, step: &'a Step<'_>) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        match step {
            // A COMMIT after a failed step of its transaction succeeds: the step's own error shows the failure.
            Step::Plain(sql) => async move {
                self.client.batch_execute(sql).await?;
                Ok(Vec::new())
            }
            .boxed(),
            Step::Run { sql, params } => async move {
                let statement = self.lock().get(sql).cloned();
                let statement = statement.ok_or_else(|| DbError::Damaged(format!("{sql} is not prepared")))?;
                let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| &**param as _).collect();
                Ok(self.client.query(&statement, &params).await?)
            }
            .boxed(),
        }
    }
}

async fn connect_any(target: &Target, listener: Listener) -> Result<(Client, AbortHandle), DbError> {
    let mut listener = Some(listener);
    let mut first_error = None;
    for way in &target.ways {
        match connect(way, target, &mut listener).await {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                // If nothing listens, another way does not help.
                let is_unreachable = error.to_string().starts_with(UNREACHABLE);
                let error = first_error.get_or_insert(error);
                if is_unreachable {
                    tracing::debug!(%error, "the database cannot be reached");
                    break;
                }
            }
        }
    }
    Err(first_error.map_or(DbError::NoAnswer, DbError::from))
}

async fn connect(
    way: &Config,
    target: &Target,
    listener: &mut Option<Listener>,
) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    let (client, connection) = way.connect(target.tls.clone()).await?;
    let listener = listener.take().unwrap_or_else(|| Box::new(|_| ()));
    let task = tokio::spawn(drive(connection, listener));
    Ok((client, task.abort_handle()))
}

async fn drive<S, T>(mut connection: Connection<S, T>, listener: Listener)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(message)) => listener(message),
            // Every statement that waits for an answer gets the error, too.
            Some(Err(error)) => return tracing::debug!(error = %DbError::from(error), "a connection has ended"),
            None => return,
        }
    }
}

pub(crate) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// A statement of a flight.
pub(crate) enum Step<'a> {
    /// A statement without parameters and rows.
    Plain(&'static str),
    /// A prepared statement.
    Run { sql: &'static str, params: Vec<Param<'a>> },
}

impl Step<'_> {
    fn sql(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Run { sql, .. } => Some(sql),
        }
    }
}

/// The error of a flight.
#[derive(Debug)]
pub(crate) struct FlightError {
    /// The place of the step.
    pub(crate) step: usize,
    pub(crate) error: DbError,
}

#[cfg(test)]
mod tests {
    use test_postgres::Server;

    use super::*;

    #[tokio::test]
    async fn no_session_keeps_a_transaction_that_stands_idle() {
        let server = Server::shared();
        let target = Target::parse(&server.url(&server.create_database())).expect("a URL");
        for (purpose, timeout) in [(Purpose::Reading, "10s"), (Purpose::Writing, "2s"), (Purpose::Leasing, "1s")] {
            let link = Link::connect(&target, purpose).await.expect("reachable");
            let row = link.client.query_one("SHOW idle_in_transaction_session_timeout", &[]).await.expect("a setting");
            assert_eq!(row.get::<_, &str>(0), timeout, "{purpose:?}");
        }
    }

    #[tokio::test]
    async fn every_session_looks_whether_its_client_is_gone() {
        let server = Server::shared();
        let target = Target::parse(&server.url(&server.create_database())).expect("a URL");
        for purpose in [Purpose::Reading, Purpose::Writing, Purpose::Leasing] {
            let link = Link::connect(&target, purpose).await.expect("reachable");
            let row = link.client.query_one("SHOW client_connection_check_interval", &[]).await.expect("a setting");
            assert_eq!(row.get::<_, &str>(0), "1s", "{purpose:?}");
        }
    }

    #[tokio::test]
    async fn limits_of_the_database_for_whole_sessions_and_transactions_reach_no_session() {
        let server = Server::shared();
        let database = server.create_database();
        let sql = "SELECT name FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";
        // A server before version 17 knows only the first.
        let known = server.psql(&database, sql);
        for name in known.lines() {
            server.psql(&database, &format!("ALTER DATABASE {database} SET {name} = '1h'"));
        }
        let target = Target::parse(&server.url(&database)).expect("a URL");
        for purpose in [Purpose::Reading, Purpose::Writing, Purpose::Leasing] {
            let link = Link::connect(&target, purpose).await.expect("reachable");
            for name in known.lines() {
                let row = link.client.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting");
                assert_eq!(row.get::<_, &str>(0), "0", "{name} of {purpose:?}");
            }
        }
        assert!(known.contains("idle_session_timeout"), "{known}");
    }
}
