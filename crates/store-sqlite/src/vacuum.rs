//! Giving pages back to the file system. A database that an earlier release has made cannot do so until it is rewritten.

use rusqlite::Connection;

/// Larger files are not rewritten at the start.
const CONVERTED_BYTES: u64 = 256 * 1024 * 1024;
/// Value of `auto_vacuum` for incremental vacuuming.
const INCREMENTAL: i64 = 2;
/// So many free pages of 4 KiB are kept for what comes next.
const KEPT_PAGES: i64 = 256;
/// Pages that are given back at once: some 10 ms.
const PAGES_AT_ONCE: i64 = 1024;

/// Rewrites a database that cannot give pages back, where that takes a second or two.
pub(crate) fn convert(db: &Connection) -> rusqlite::Result<()> {
    if number(db, "auto_vacuum")? == INCREMENTAL {
        return Ok(());
    }
    let bytes = number(db, "page_count")?.unsigned_abs() * number(db, "page_size")?.unsigned_abs();
    if bytes > CONVERTED_BYTES {
        tracing::info!(
            bytes,
            "the database reuses free pages but gives none back; to let it, stop the coordinator and run \
             `sqlite3 divvy.db 'PRAGMA auto_vacuum = incremental; VACUUM'`"
        );
        return Ok(());
    }
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // It takes as much room again; without that the database is as good as before.
    if let Err(error) = db.execute_batch("VACUUM") {
        tracing::warn!(%error, "cannot rewrite the database, which gives no pages back therefore");
    }
    Ok(())
}

/// Gives some free pages back. Returns whether there are more.
pub(crate) fn give_back(db: &Connection) -> rusqlite::Result<bool> {
    let spare = number(db, "freelist_count")? - KEPT_PAGES;
    if spare <= 0 || number(db, "auto_vacuum")? != INCREMENTAL {
        return Ok(false);
    }
    let mut vacuum = db.prepare(&format!("PRAGMA incremental_vacuum({})", spare.min(PAGES_AT_ONCE)))?;
    // Each row that is stepped over is a page.
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(spare > PAGES_AT_ONCE)
}

fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, pragma, |row| row.get(0))
}
