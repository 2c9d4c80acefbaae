//! Rows of drained workers.

use model::{BootId, WorkerId};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row};
use store::{Drain, DrainChange, DrainedWorker, Unreadable};
use uuid::Uuid;

use crate::column::{self, Column};

pub(crate) fn apply(db: &Connection, change: &DrainChange) -> rusqlite::Result<()> {
    match change {
        DrainChange::Put(Drain { drained, at }) => {
            let mut insert =
                db.prepare_cached("INSERT OR IGNORE INTO drains (worker, boot, at) VALUES (?1, ?2, ?3)")?;
            insert.execute((drained.worker.as_str(), boot(drained).as_bytes(), at.column()))?;
        }
        DrainChange::Remove(drained) => {
            let mut delete = db.prepare_cached("DELETE FROM drains WHERE worker = ?1 AND boot = ?2")?;
            delete.execute((drained.worker.as_str(), boot(drained).as_bytes()))?;
        }
    }
    Ok(())
}

pub(crate) fn all(db: &Connection, unreadable: &Unreadable) -> rusqlite::Result<Vec<Drain>> {
    let mut select = db.prepare_cached("SELECT worker, boot, at FROM drains ORDER BY worker, boot")?;
    column::readable(&mut select.query([])?, usize::MAX, |row| {
        let worker = row.get_ref(0)?.as_str().unwrap_or_default();
        column::skip(unreadable, "drain of a worker", worker, drain(row))
    })
}

fn boot(drained: &DrainedWorker) -> Uuid {
    drained.boot.map_or(Uuid::nil(), |BootId(boot)| boot)
}

fn drain(row: &Row<'_>) -> rusqlite::Result<Drain> {
    let worker = WorkerId::try_from(row.get::<_, String>(0)?)
        .map_err(|error| Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
    let boot = column::uuid(row, 1)?;
    let boot = (!boot.is_nil()).then_some(BootId(boot));
    Ok(Drain { drained: DrainedWorker { worker, boot }, at: column::time(row, 2)? })
}
