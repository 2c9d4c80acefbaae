//! The store as a source and as a target of [`store::transfer`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use store::transfer::{ColumnKind, Marks, Row, Source, TABLES, Table, Target as TransferTarget, TransferError};
use tokio_postgres::types::ToSql;

use crate::error::DbError;
use crate::io::Io;
use crate::link::Link;
use crate::open::{connect, prepare};
use crate::reads::SUM_UP;
use crate::rows::{self, Column};
use crate::target::Target;

/// Rows that are passed on at once, and the bytes above which fewer are.
const ROWS: usize = 1000;
const BYTES: usize = 4 * 1024 * 1024;
/// A coordinator with a recent sign of life is running.
const RUNS: &str = "SELECT name FROM members WHERE seen_at > clock_timestamp() - interval '10 s' ORDER BY name";
const LEADS: &str = "SELECT holder::text FROM lease WHERE expires_at > clock_timestamp()";
/// How long a database that cannot be reached is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Locks the tables: no coordinator leads, submits or changes anything until the transaction ends.
const LOCK: &str = "LOCK TABLE lease, fence, counter, jobs IN EXCLUSIVE MODE";

/// A database as source or target of a transfer. It is locked until the value is dropped.
pub struct Transfer {
    io: Arc<Io>,
    link: Arc<Link>,
    place: String,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("place", &self.place).finish_non_exhaustive()
    }
}

fn failed(error: impl Into<DbError>) -> TransferError {
    TransferError::of("PostgreSQL", error.into())
}

impl Transfer {
    /// Opens a database, and brings its schema up to date.
    ///
    /// # Errors
    /// The database cannot be used, or a coordinator uses it.
    pub fn source(url: &str) -> Result<Self, TransferError> {
        Self::open(url)
    }

    /// Opens a database, with a schema if it has none, and begins to write.
    ///
    /// # Errors
    /// The database holds jobs or events, or a coordinator uses it.
    pub fn target(url: &str) -> Result<Self, TransferError> {
        let opened = Self::open(url)?;
        let held = TABLES.map(|table| format!("EXISTS (SELECT 1 FROM {})", table.name)).join(" OR ");
        let held = format!("SELECT {held} OR (SELECT event FROM counter) > 0");
        let link = &opened.link;
        let row = opened.io.run(async { link.client.query_one(&held, &[]).await }).map_err(failed)?;
        if row.get(0) {
            return Err(TransferError(format!("the database {} is not empty", opened.place)));
        }
        Ok(opened)
    }

    fn open(url: &str) -> Result<Self, TransferError> {
        let target = Target::parse(url).map_err(|error| TransferError(error.to_string()))?;
        let io = Io::start("store-transfer-io").map_err(|error| TransferError::of("a thread", error))?;
        let place = target.place.clone();
        io.run(prepare(&target, PATIENCE)).map_err(|error| TransferError(error.to_string()))?;
        let in_use = |who: &str| {
            let advice = "stop every coordinator, and wait 10 s where one was killed";
            TransferError(format!("the database {place} is in use by {who}: {advice}"))
        };
        let opening = async {
            let link = connect(&target, PATIENCE).await.map_err(|error| TransferError(error.to_string()))?;
            // A transfer waits for the other side as long as that takes.
            let begin = format!("SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '5s'; BEGIN; {LOCK}");
            link.client.batch_execute(&begin).await.map_err(failed)?;
            let who = link.query(RUNS, &[]).await.map_err(failed)?;
            let who: Vec<String> = who.iter().map(|row| rows::get(row, 0)).collect::<Result<_, _>>().map_err(failed)?;
            if !who.is_empty() {
                return Err(in_use(&who.join(", ")));
            }
            if let Some(holder) = link.query_opt(LEADS, &[]).await.map_err(failed)? {
                return Err(in_use(&rows::get::<String>(&holder, 0).map_err(failed)?));
            }
            Ok(link)
        };
        let link = Arc::new(io.run(opening)?);
        Ok(Self { io, link, place })
    }
}

impl Source for Transfer {
    fn tables(&mut self) -> Result<Vec<String>, TransferError> {
        let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'divvy' ORDER BY tablename";
        let link = &self.link;
        let found = self.io.run(async { link.query(sql, &[]).await }).map_err(failed)?;
        found.iter().map(|row| rows::get(row, 0)).collect::<Result<_, _>>().map_err(failed)
    }

    fn marks(&mut self) -> Result<Marks, TransferError> {
        let link = &self.link;
        let sql = "SELECT fence.epoch, event, store FROM fence, counter";
        let row = self.io.run(async { link.query_opt(sql, &[]).await }).map_err(failed)?;
        let row = row.ok_or_else(|| TransferError("the fence's row is gone".to_owned()))?;
        let read = || -> Result<Marks, DbError> {
            let (epoch, latest_event) = (rows::count(&row, 0)?, rows::count(&row, 1)?);
            Ok(Marks { epoch, latest_event, store: rows::get(&row, 2)? })
        };
        read().map_err(failed)
    }

    fn read(
        &mut self,
        table: &Table,
        take: &mut dyn FnMut(&[Row]) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let texts: Vec<_> = table.columns.iter().map(|&(name, kind)| to_text(name, kind)).collect();
        let sql = format!("SELECT {} FROM {}{}", texts.join(", "), table.name, order(table));
        let link = self.link.clone();
        let stream = async {
            let none: [&(dyn ToSql + Sync); 0] = [];
            link.client.query_raw(&sql, none).await
        };
        let stream = self.io.run(stream).map_err(failed)?;
        let stream = stream.fuse();
        pin_mut!(stream);
        loop {
            let (mut rows, mut bytes): (Vec<Row>, usize) = (Vec::new(), 0);
            while rows.len() < ROWS
                && bytes < BYTES
                && let Some(row) = self.io.run(stream.next())
            {
                let row = row.map_err(failed)?;
                let texts = (0..table.columns.len()).map(|place| rows::get(&row, place)).collect::<Result<Row, _>>();
                let texts = texts.map_err(failed)?;
                bytes += texts.iter().flatten().map(String::len).sum::<usize>();
                rows.push(texts);
            }
            if rows.is_empty() {
                return Ok(());
            }
            take(&rows)?;
        }
    }
}

/// Logs come in the order in which their attempts ended, since the target numbers them anew.
fn order(table: &Table) -> &'static str {
    if table.name == "logs" { " ORDER BY job, task, seq" } else { "" }
}

fn to_text(name: &str, kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Integer | ColumnKind::Uuid => format!("{name}::text"),
        ColumnKind::Text => name.to_owned(),
        ColumnKind::Bytes => format!("encode({name}, 'hex')"),
        ColumnKind::Boolean => format!("{name}::int::text"),
    }
}

fn from_text(table: &Table, name: &str, kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Integer if table.name == "spans" && name == "what" => format!("{name}::smallint"),
        ColumnKind::Integer => format!("{name}::bigint"),
        ColumnKind::Text => name.to_owned(),
        ColumnKind::Uuid => format!("{name}::uuid"),
        ColumnKind::Bytes => format!("decode({name}, 'hex')"),
        ColumnKind::Boolean => format!("({name} = '1')"),
    }
}

impl TransferTarget for Transfer {
    fn write(&mut self, table: &Table, rows: &[Row]) -> Result<(), TransferError> {
        let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<_> = table.columns.iter().map(|&(name, kind)| from_text(table, name, kind)).collect();
        let places: Vec<_> = (1..=names.len()).map(|place| format!("${place}::text[]")).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        let sql = format!(
            "INSERT INTO {} ({names}) SELECT {values} FROM unnest({}) AS new ({names})",
            table.name,
            places.join(", ")
        );
        // PostgreSQL has no text with a zero in it.
        let clean = |text: &Option<String>| text.as_ref().map(|text| text.replace('\0', "\u{fffd}"));
        let column = |place: usize| rows.iter().map(|row| row.get(place).and_then(clean)).collect::<Vec<_>>();
        let columns: Vec<_> = (0..table.columns.len()).map(column).collect();
        let params: Vec<_> = columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
        let link = &self.link;
        self.io.run(async { link.client.execute(&sql, &params).await }).map(|_| ()).map_err(failed)
    }

    fn count(&mut self, table: &Table) -> Result<u64, TransferError> {
        let (sql, link) = (format!("SELECT count(*) FROM {}", table.name), &self.link);
        let row = self.io.run(async { link.client.query_one(&sql, &[]).await }).map_err(failed)?;
        rows::count(&row, 0).map_err(failed)
    }

    fn finish(&mut self, marks: &Marks) -> Result<(), TransferError> {
        let Marks { epoch, latest_event, store } = marks;
        let (epoch, event, link) = (epoch.column(), latest_event.column(), &self.link);
        // Blocks of numbers begin behind the used ones, also behind those of hidden jobs, of which rows may be left.
        let blocks = "SELECT setval('job_blocks', (SELECT coalesce(max(taken), 0) / 1024 + 1 FROM \
             (SELECT max(key) AS taken FROM jobs UNION ALL SELECT max(job) FROM swept) AS used)), \
             setval('attempt_blocks', (SELECT coalesce(max(id), 0) / 1048576 + 1 FROM attempts))";
        let finishing = async {
            link.client.execute("UPDATE lease SET epoch = $1, holder = NULL, expires_at = 'epoch'", &[&epoch]).await?;
            link.client.execute("UPDATE fence SET epoch = $1, batch = 0, store = $2", &[&epoch, store]).await?;
            link.client.execute("UPDATE counter SET event = $1", &[&event]).await?;
            link.client.batch_execute(SUM_UP).await?;
            link.client.batch_execute(blocks).await
        };
        self.io.run(finishing).map_err(failed)?;
        self.io.run(link.client.batch_execute("COMMIT")).map_err(|error| uncommitted(error.into()))?;
        // The tables have no planner statistics yet, and the first reads would be slow. The rows are stored in any case.
        let analyze = format!("ANALYZE {}", TABLES.map(|table| table.name).join(", "));
        if let Err(error) = self.io.run(link.client.batch_execute(&analyze)).map_err(DbError::from) {
            tracing::warn!(%error, "cannot collect planner statistics of the new tables: the server does it later");
        }
        Ok(())
    }
}

/// The error of the last step.
fn uncommitted(error: DbError) -> TransferError {
    if error.is_answer() {
        return failed(error);
    }
    TransferError(format!(
        "PostgreSQL: {error}; the answer to the last step is lost: if the database is no longer empty, everything was moved"
    ))
}
