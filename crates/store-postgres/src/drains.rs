//! Rows of drained workers.

use model::{BootId, WorkerId};
use store::{Drain, DrainChange, DrainedWorker, Unreadable};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::DbError;
use crate::link::Link;
use crate::rows::{self, Column};

const PUT: &str = "INSERT INTO drains (worker, boot, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const REMOVE: &str = "DELETE FROM drains WHERE worker = $1 AND boot = $2";
const ALL: &str = "SELECT worker, boot, at FROM drains ORDER BY worker, boot";

pub(crate) async fn apply(link: &Link, change: &DrainChange) -> Result<(), DbError> {
    match change {
        DrainChange::Put(Drain { drained, at }) => {
            link.query(PUT, &[&drained.worker.as_str(), &boot(drained), &at.column()]).await?;
        }
        DrainChange::Remove(drained) => {
            link.query(REMOVE, &[&drained.worker.as_str(), &boot(drained)]).await?;
        }
    }
    Ok(())
}

pub(crate) async fn all(link: &Link, unreadable: &Unreadable) -> Result<Vec<Drain>, DbError> {
    let read = |row: &Row| {
        let worker = rows::get::<&str>(row, 0).unwrap_or_default();
        unreadable.skip("drain of a worker", worker, drain(row))
    };
    Ok(link.query(ALL, &[]).await?.iter().filter_map(read).collect())
}

fn boot(drained: &DrainedWorker) -> Uuid {
    drained.boot.map_or(Uuid::nil(), |BootId(boot)| boot)
}

fn drain(row: &Row) -> Result<Drain, DbError> {
    let name: String = rows::get(row, 0)?;
    let worker = WorkerId::try_from(name).map_err(|error| rows::damaged(row, 0, error))?;
    let boot: Uuid = rows::get(row, 1)?;
    let boot = (!boot.is_nil()).then_some(BootId(boot));
    Ok(Drain { drained: DrainedWorker { worker, boot }, at: rows::time(row, 2)? })
}
