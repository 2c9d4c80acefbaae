//! The store as a source and as a target of [`store::transfer`].

use std::path::Path;

use rusqlite::{Row as SqlRow, params_from_iter};
use store::transfer::{ColumnKind, Marks, Row, Source, TABLES, Table, Target, TransferError};
use uuid::Uuid;

use crate::apply::latest_event;
use crate::column;
use crate::error::OpenError;
use crate::open::{self, Opened};

/// Rows that are passed on at once, and the bytes above which fewer are.
const ROWS: usize = 1000;
const BYTES: usize = 4 * 1024 * 1024;

/// A data directory as source or target of a transfer. It is locked until the value is dropped.
pub struct Transfer(Opened);

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("path", &self.0.path).finish_non_exhaustive()
    }
}

fn failed(error: rusqlite::Error) -> TransferError {
    TransferError::of("SQLite", error)
}

/// SQLite numbers attempts by itself.
fn column_of(table: &Table, name: &'static str) -> &'static str {
    if table.name == "attempts" && name == "id" { "rowid" } else { name }
}

impl Transfer {
    /// Opens a directory with a database.
    ///
    /// # Errors
    /// There is no database, or another process uses the directory.
    pub fn source(data_dir: &Path) -> Result<Self, TransferError> {
        if !data_dir.join(open::DATABASE_FILE).exists() {
            return Err(TransferError(format!("there is no {} in {}", open::DATABASE_FILE, data_dir.display())));
        }
        Self::open(data_dir)
    }

    /// Opens a directory, made if it does not exist, and begins to write.
    ///
    /// # Errors
    /// The directory holds jobs or events, or another process uses it.
    pub fn target(data_dir: &Path) -> Result<Self, TransferError> {
        let opened = Self::open(data_dir)?;
        let held = TABLES.map(|table| format!("EXISTS (SELECT 1 FROM {})", table.name)).join(" OR ");
        let held: i64 = opened.0.db.query_row(&format!("SELECT {held}"), [], |row| row.get(0)).map_err(failed)?;
        let latest = latest_event(&opened.0.db).map_err(failed)?;
        if held > 0 || latest > 0 {
            return Err(TransferError(format!("the data directory {} is not empty", data_dir.display())));
        }
        opened.0.db.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        Ok(opened)
    }

    fn open(data_dir: &Path) -> Result<Self, TransferError> {
        open::open(data_dir).map(Self).map_err(|error: OpenError| TransferError(error.to_string()))
    }
}

impl Source for Transfer {
    fn tables(&mut self) -> Result<Vec<String>, TransferError> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut select = self.0.db.prepare(sql).map_err(failed)?;
        let names = select.query_map([], |row| row.get(0)).map_err(failed)?;
        names.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    fn marks(&mut self) -> Result<Marks, TransferError> {
        let read = |row: &SqlRow<'_>| Ok((column::count(row, 0)?, column::uuid(row, 1)?));
        let (epoch, store): (u64, Uuid) =
            self.0.db.query_row("SELECT epoch, store FROM fence", [], read).map_err(failed)?;
        Ok(Marks { epoch, latest_event: latest_event(&self.0.db).map_err(failed)?, store })
    }

    fn read(
        &mut self,
        table: &Table,
        take: &mut dyn FnMut(&[Row]) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let texts: Vec<_> = table.columns.iter().map(|&(name, kind)| to_text(column_of(table, name), kind)).collect();
        let sql = format!("SELECT {} FROM {}", texts.join(", "), table.name);
        let mut select = self.0.db.prepare(&sql).map_err(failed)?;
        let mut found = select.query([]).map_err(failed)?;
        let (mut rows, mut bytes): (Vec<Row>, usize) = (Vec::new(), 0);
        while let Some(row) = found.next().map_err(failed)? {
            let texts = (0..table.columns.len()).map(|place| row.get(place)).collect::<rusqlite::Result<Row>>();
            let texts = texts.map_err(failed)?;
            bytes += texts.iter().flatten().map(String::len).sum::<usize>();
            rows.push(texts);
            if rows.len() == ROWS || bytes > BYTES {
                take(&rows)?;
                rows.clear();
                bytes = 0;
            }
        }
        if rows.is_empty() { Ok(()) } else { take(&rows) }
    }
}

fn to_text(name: &str, kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Integer | ColumnKind::Boolean => format!("CAST({name} AS TEXT)"),
        ColumnKind::Text => name.to_owned(),
        ColumnKind::Bytes | ColumnKind::Uuid => format!("CASE WHEN {name} IS NULL THEN NULL ELSE hex({name}) END"),
    }
}

impl Target for Transfer {
    fn write(&mut self, table: &Table, rows: &[Row]) -> Result<(), TransferError> {
        let names: Vec<_> = table.columns.iter().map(|(name, _)| column_of(table, name)).collect();
        let values = table.columns.iter().map(|(_, kind)| match kind {
            ColumnKind::Integer | ColumnKind::Boolean => "CAST(? AS INTEGER)",
            ColumnKind::Text => "?",
            ColumnKind::Bytes | ColumnKind::Uuid => "unhex(replace(?, '-', ''))",
        });
        let values = values.collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES ({values})", table.name, names.join(", "));
        let mut insert = self.0.db.prepare_cached(&sql).map_err(failed)?;
        for row in rows {
            insert.execute(params_from_iter(row)).map_err(failed)?;
        }
        Ok(())
    }

    fn count(&mut self, table: &Table) -> Result<u64, TransferError> {
        let sql = format!("SELECT count(*) FROM {}", table.name);
        self.0.db.query_row(&sql, [], |row| column::count(row, 0)).map_err(failed)
    }

    fn finish(&mut self, marks: &Marks) -> Result<(), TransferError> {
        let Marks { epoch, latest_event, store } = marks;
        let db = &self.0.db;
        let number = |number: &u64| i64::try_from(*number).unwrap_or(i64::MAX);
        let fence = "UPDATE fence SET epoch = ?1, batch = 0, store = ?2";
        db.execute(fence, (number(epoch), store.as_bytes())).map_err(failed)?;
        // The newest event may be gone, and its number must not be used again.
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'events'", []).map_err(failed)?;
        let sequence = "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?1)";
        db.execute(sequence, [number(latest_event)]).map_err(failed)?;
        // The key of a hidden job must not be used again either: rows of it may be left.
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'", []).map_err(failed)?;
        let sequence = "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', coalesce(max(taken), 0) FROM \
             (SELECT max(key) AS taken FROM jobs UNION ALL SELECT max(job) FROM swept)";
        db.execute(sequence, []).map_err(failed)?;
        db.execute_batch("COMMIT").map_err(failed)
    }
}

/// Checks that every table of this store is moved, or known to be left behind.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_moved_with_all_its_columns() {
        let directory = tempfile::TempDir::new().expect("there is room");
        let mut transfer = Transfer::target(directory.path()).expect("it is empty");
        for name in transfer.tables().expect("readable") {
            let Some(table) = TABLES.iter().find(|table| table.name == name) else {
                assert!(store::transfer::LEFT_BEHIND.iter().any(|table| table.name == name), "{name} is not moved");
                continue;
            };
            let mut select =
                transfer.0.db.prepare(&format!("SELECT name FROM pragma_table_info('{name}')")).expect("SQL");
            let columns = select.query_map([], |row| row.get::<_, String>(0)).expect("SQL");
            for column in columns {
                let column = column.expect("readable");
                assert!(table.columns.iter().any(|(name, _)| *name == column), "{name}.{column} is not moved");
            }
        }
    }
}
