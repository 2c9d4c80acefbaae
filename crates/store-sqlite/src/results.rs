//! Rows of results.

use model::JobId;
use rusqlite::{Connection, OptionalExtension, Row};
use store::backend::{ResultRow, ResultRowBody};

use crate::column::{self, Column};

fn result_row(row: &Row<'_>) -> rusqlite::Result<ResultRow> {
    let body = match row.get(1)? {
        Some(json) => ResultRowBody::Json(json),
        None => ResultRowBody::Object { name: row.get(2)?, sha256: row.get(3)?, bytes: column::count(row, 4)? },
    };
    Ok(ResultRow { job: column::job_id(row, 0)?, body })
}

pub(crate) fn by_job(db: &Connection, job: JobId) -> rusqlite::Result<Option<ResultRow>> {
    let mut select = db.prepare_cached(
        "SELECT id, json, object, sha256, results.bytes FROM jobs JOIN results ON results.job = jobs.key
         WHERE id = ?1",
    )?;
    select.query_row([job.0.as_bytes()], result_row).optional()
}

pub(crate) fn by_name(db: &Connection, output: &str) -> rusqlite::Result<Option<ResultRow>> {
    let mut select = db.prepare_cached(
        "SELECT id, json, object, sha256, results.bytes FROM jobs JOIN results ON results.job = jobs.key
         WHERE output = ?1 AND state = 'succeeded' ORDER BY finished_at DESC LIMIT 1",
    )?;
    select.query_row([output], result_row).optional()
}

/// Objects that no row names any more.
pub(crate) fn dropped(db: &Connection, limit: usize) -> rusqlite::Result<Vec<String>> {
    let mut select = db.prepare_cached("SELECT object FROM dropped_objects LIMIT ?1")?;
    select.query_map([(limit as u64).column()], |row| row.get(0))?.collect()
}

/// The objects of `names` that a row names.
pub(crate) fn named(db: &Connection, names: Vec<String>) -> rusqlite::Result<Vec<String>> {
    let mut select = db.prepare_cached("SELECT 1 FROM results WHERE object = ?1")?;
    let mut named = Vec::new();
    for name in names {
        if select.exists([&name])? {
            named.push(name);
        }
    }
    Ok(named)
}
