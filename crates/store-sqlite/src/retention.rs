//! Forgets jobs that are over: first hides them, in one small transaction; then deletes their rows in parts, so that no change
//! waits long.

use jiff::Timestamp;
use model::JobId;
use rusqlite::Connection;
use store::{JobKey, OUTBOX, OUTBOX_LOST, Retention};

use crate::apply;
use crate::column::{self, Column};
use crate::positions;

/// Rows of each table that are deleted in one transaction: some 10 ms.
const SWEPT_AT_ONCE: i64 = 2000;
/// Jobs that are forgotten at once: a shorter retention may end that of millions.
const EXPIRED: usize = 100_000;

/// Jobs to be forgotten, with their sizes in bytes, the first to end in front.
pub(crate) fn expired(db: &Connection, retention: Retention, now: Timestamp) -> rusqlite::Result<Vec<(JobKey, u64)>> {
    first_expired(db, retention, now, EXPIRED)
}

fn first_expired(
    db: &Connection,
    retention: Retention,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<(JobKey, u64)>> {
    let total = db.prepare_cached("SELECT bytes FROM finished")?.query_row([], |row| column::about(row, 0))?;
    let mut excess = total.saturating_sub(retention.max_bytes);
    let oldest = now.checked_sub(retention.max_age).unwrap_or(Timestamp::MIN).column();
    let mut select = db.prepare_cached(
        "SELECT key, bytes, finished_at FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at",
    )?;
    let mut rows = select.query([])?;
    let mut expired = Vec::new();
    while expired.len() < limit
        && let Some(row) = rows.next()?
    {
        if excess == 0 && row.get::<_, i64>(2)? > oldest {
            break;
        }
        let bytes = column::about(row, 1)?;
        excess = excess.saturating_sub(bytes);
        expired.push((JobKey(row.get(0)?), bytes));
    }
    Ok(expired)
}

/// Hides those of the jobs that are still over. Returns their number.
pub(crate) fn forget(db: &Connection, keys: &[JobKey]) -> rusqlite::Result<u64> {
    let mut note = db.prepare_cached(
        "INSERT INTO swept (job, id) SELECT key, id FROM jobs WHERE key = ?1 AND finished_at IS NOT NULL",
    )?;
    let mut delete = db.prepare_cached("DELETE FROM jobs WHERE key = ?1 AND finished_at IS NOT NULL")?;
    let mut forgotten = 0;
    let outbox = positions::one(db, OUTBOX)?.map(|position| position.next);
    let mut lost = 0;
    for &JobKey(key) in keys {
        note.execute([key])?;
        let deleted = delete.execute([key])?;
        if deleted > 0 {
            apply::drop_result(db, key)?;
            if let Some(from) = outbox {
                lost += positions::events_from(db, key, from)?;
            }
        }
        forgotten += deleted as u64;
    }
    if lost > 0 {
        positions::add(db, OUTBOX_LOST, lost)?;
    }
    Ok(forgotten)
}

/// Deletes some rows of a hidden job. Returns their number: 0 when all are gone.
pub(crate) fn sweep(db: &Connection, JobKey(key): JobKey) -> rusqlite::Result<u64> {
    let mut is_forgotten = db.prepare_cached("SELECT 1 FROM swept WHERE job = ?1")?;
    if !is_forgotten.exists([key])? {
        return Ok(0);
    }
    let mut rows = 0;
    for (table, name) in
        [("attempts", "rowid"), ("payloads", "rowid"), ("events", "seq"), ("logs", "rowid"), ("spans", "first")]
    {
        let sql = if table == "spans" {
            "DELETE FROM spans WHERE job = ?1 AND (what, first) IN (SELECT what, first FROM spans WHERE job = ?1 LIMIT ?2)"
                .to_owned()
        } else {
            format!("DELETE FROM {table} WHERE {name} IN (SELECT {name} FROM {table} WHERE job = ?1 LIMIT ?2)")
        };
        rows += db.prepare_cached(&sql)?.execute((key, SWEPT_AT_ONCE))? as u64;
    }
    if rows == 0 {
        db.prepare_cached("DELETE FROM swept WHERE job = ?1")?.execute([key])?;
    }
    Ok(rows)
}

/// Hidden jobs with remaining rows.
pub(crate) fn unswept(db: &Connection) -> rusqlite::Result<Vec<(JobKey, JobId)>> {
    let mut select = db.prepare_cached("SELECT job, id FROM swept ORDER BY job")?;
    select.query_map([], |row| Ok((JobKey(row.get(0)?), column::job_id(row, 1)?)))?.collect()
}

/// Forgets the names of deleted objects.
pub(crate) fn objects_deleted(db: &Connection, names: &[String]) -> rusqlite::Result<u64> {
    let mut delete = db.prepare_cached("DELETE FROM dropped_objects WHERE object = ?1")?;
    let mut deleted = 0;
    for name in names {
        deleted += delete.execute([name])? as u64;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::open;

    #[test]
    fn of_very_many_jobs_those_that_ended_first_are_forgotten_first() {
        let directory = tempfile::tempdir().expect("room");
        let db = open::open(directory.path()).expect("a store").db;
        for finished_at in [3, 1, 2] {
            let sql = "INSERT INTO jobs (id, kind, work, params, options, fingerprint, state, tasks, tasks_done, tasks_failed, \
                 value, bytes, submitted_at, finished_at) VALUES (randomblob(16), 'sleep', '', '{}', '{}', zeroblob(32), \
                 'canceled', 1, 0, 0, '0', 10, 0, ?1)";
            db.execute(sql, [finished_at]).expect("room");
        }
        let named = |retention, limit| {
            let found = first_expired(&db, retention, Timestamp::now(), limit).expect("readable");
            found.into_iter().map(|(JobKey(key), _)| key).collect::<Vec<_>>()
        };
        let by_age = Retention { max_age: Duration::ZERO, max_bytes: u64::MAX };
        let by_size = Retention { max_age: Duration::MAX, max_bytes: 0 };
        for retention in [by_age, by_size] {
            assert_eq!(named(retention, 2), [2, 3]);
            assert_eq!(named(retention, EXPIRED), [2, 3, 1]);
        }
    }
}
