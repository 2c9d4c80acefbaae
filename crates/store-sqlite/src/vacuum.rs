//! Returns pages to the file system. A database of an earlier release must be rewritten before.

use rusqlite::Connection;

/// Size above which files are not rewritten at the start.
const CONVERTED_BYTES: u64 = 256 * 1024 * 1024;
/// Value of `auto_vacuum` for incremental vacuuming.
const INCREMENTAL: i64 = 2;
/// Pages that are returned at once: some 10 ms.
const PAGES_AT_ONCE: i64 = 1024;

/// Rewrites a database that cannot return pages, if that takes a second or two.
pub(crate) fn convert(db: &Connection) -> rusqlite::Result<()> {
    if number(db, "auto_vacuum")? == INCREMENTAL {
        return Ok(());
    }
    let bytes = bytes(db)?;
    if bytes > CONVERTED_BYTES {
        tracing::info!(
            bytes,
            "the database reuses free pages but gives none back; to let it, stop the coordinator and run \
             `sqlite3 divvy.db 'PRAGMA auto_vacuum = incremental; VACUUM'`"
        );
        return Ok(());
    }
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // The rewriting needs as much room again; if it fails, the database is unchanged.
    if let Err(error) = db.execute_batch("VACUUM") {
        tracing::warn!(%error, "cannot rewrite the database, which gives no pages back therefore");
    }
    Ok(())
}

/// Gives some of the free pages back, at most `most`, since each may move a page by way of the log; `kept` stay for later rows.
/// Returns whether there are more.
pub(crate) fn give_back(db: &Connection, kept: i64, most: i64) -> rusqlite::Result<bool> {
    let spare = number(db, "freelist_count")? - kept;
    let at_once = PAGES_AT_ONCE.min(most);
    if spare <= 0 || number(db, "auto_vacuum")? != INCREMENTAL {
        return Ok(false);
    }
    let mut vacuum = db.prepare(&format!("PRAGMA incremental_vacuum({})", spare.min(at_once)))?;
    // Each step of the statement frees a page.
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(spare > at_once)
}

/// Length of the database with the pages that only the log has.
pub(crate) fn bytes(db: &Connection) -> rusqlite::Result<u64> {
    Ok(number(db, "page_count")?.unsigned_abs() * page_size(db)?)
}

pub(crate) fn page_size(db: &Connection) -> rusqlite::Result<u64> {
    number(db, "page_size").map(i64::unsigned_abs)
}

fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, pragma, |row| row.get(0))
}
