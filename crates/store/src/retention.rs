//! Forgetting jobs that are over: first out of sight, in one small transaction; then, piece by piece, what belonged to
//! them, so that no change waits long.

use std::time::Duration;

use jiff::Timestamp;
use model::JobId;
use rusqlite::Connection;

use crate::column::{self, Column};
use crate::error::ReadError;

/// How long and how much is kept of jobs that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest time since a job's end.
    pub max_age: Duration,
    /// Most bytes that they may take up together, as rows and as results.
    pub max_bytes: u64,
}

/// Jobs that are taken out of sight in one transaction.
pub(crate) const DOOMED_AT_ONCE: usize = 256;
/// Rows of each table that are deleted in one transaction: some 10 ms.
const SWEPT_AT_ONCE: i64 = 2000;

/// Jobs to be forgotten, with the bytes that they take up, the oldest first.
pub(crate) fn victims(db: &Connection, retention: Retention, now: Timestamp) -> Result<Vec<(i64, u64)>, ReadError> {
    let total = "SELECT coalesce(sum(bytes), 0) FROM jobs WHERE finished_at IS NOT NULL";
    let total = db.prepare_cached(total)?.query_row([], |row| column::count(row, 0))?;
    let mut excess = total.saturating_sub(retention.max_bytes);
    let oldest = now.checked_sub(retention.max_age).unwrap_or(Timestamp::MIN).column();
    let mut select = db.prepare_cached(
        "SELECT key, bytes, finished_at FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at",
    )?;
    let mut rows = select.query([])?;
    let mut victims = Vec::new();
    while let Some(row) = rows.next()? {
        if excess == 0 && row.get::<_, i64>(2)? > oldest {
            break;
        }
        let bytes = column::count(row, 1)?;
        excess = excess.saturating_sub(bytes);
        victims.push((row.get(0)?, bytes));
    }
    Ok(victims)
}

/// Takes jobs out of sight, those that are still over. Returns how many.
pub(crate) fn doom(db: &Connection, keys: &[i64]) -> rusqlite::Result<u64> {
    let mut note = db.prepare_cached(
        "INSERT INTO swept (job, id) SELECT key, id FROM jobs WHERE key = ?1 AND finished_at IS NOT NULL",
    )?;
    let mut delete = db.prepare_cached("DELETE FROM jobs WHERE key = ?1 AND finished_at IS NOT NULL")?;
    let mut doomed = 0;
    for key in keys {
        note.execute([key])?;
        doomed += delete.execute([key])? as u64;
    }
    Ok(doomed)
}

/// Deletes some of what belonged to a job that is out of sight. Returns how many rows: none when all are gone.
pub(crate) fn sweep(db: &Connection, key: i64) -> rusqlite::Result<u64> {
    let mut rows = 0;
    for (table, name) in [("attempts", "rowid"), ("payloads", "rowid"), ("events", "seq"), ("spans", "first")] {
        let sql = if table == "spans" {
            "DELETE FROM spans WHERE job = ?1 AND (what, first) IN (SELECT what, first FROM spans WHERE job = ?1 LIMIT ?2)"
                .to_owned()
        } else {
            format!("DELETE FROM {table} WHERE {name} IN (SELECT {name} FROM {table} WHERE job = ?1 LIMIT ?2)")
        };
        rows += db.prepare_cached(&sql)?.execute((key, SWEPT_AT_ONCE))? as u64;
    }
    if rows == 0 {
        db.prepare_cached("DELETE FROM results WHERE job = ?1")?.execute([key])?;
        db.prepare_cached("DELETE FROM swept WHERE job = ?1")?.execute([key])?;
    }
    Ok(rows)
}

/// Jobs that are out of sight while something of them is left, and whether their object is another job's by now.
pub(crate) fn unswept(db: &Connection) -> Result<Vec<(i64, JobId, bool)>, ReadError> {
    let mut select = db.prepare_cached("SELECT job, id, id IN (SELECT id FROM jobs) FROM swept ORDER BY job")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, column::job_id(row, 1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
