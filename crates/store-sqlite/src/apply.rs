//! Applies entries one after another, inside the writer's transaction. An entry that is refused has written nothing.

use jiff::Timestamp;
use model::{JobId, JobState};
use rusqlite::Connection;
use store::retention::log_bytes;
use store::rules::{self, AttemptRow, Effects, EventRow, JobLedger, Ledgers, ResultEffect, RowTasks, canceled_unread};
use store::statistics::{Subject, Tally};
use store::stored::{StoredName, counts_to_stored};
use store::{Answer, Change, ChangeKind, Entry, Housekeeping, ResultBody, TaskLog};

use crate::column::{self, Column};
use crate::{attempts, drains, ledger, positions, programs, retention, statistics, submit};

pub(crate) fn apply(
    db: &Connection,
    ledgers: &mut Ledgers<i64>,
    tally: &mut Tally,
    entry: &Entry,
) -> rusqlite::Result<Answer> {
    match entry {
        Entry::Submission(job) => submit::insert(db, tally, job, None),
        Entry::Change(change) => apply_change(db, ledgers, tally, change),
        Entry::Advance(advance) => positions::advance(db, tally, advance),
        Entry::Housekeeping(Housekeeping::Forget(keys)) => {
            // The entry reads rows, so touched ledgers must be in them, and must be read again if they are rolled back.
            store_touched(db, ledgers)?;
            ledgers.forget();
            retention::forget(db, keys).map(Answer::Deleted)
        }
        Entry::Housekeeping(Housekeeping::CancelUnread { job, at, why }) => {
            store_touched(db, ledgers)?;
            ledgers.forget();
            ledgers.discard(*job);
            cancel_unread(db, tally, *job, *at, why).map(Answer::Deleted)
        }
        Entry::Housekeeping(Housekeeping::Sweep(key)) => retention::sweep(db, *key).map(Answer::Deleted),
        Entry::Housekeeping(Housekeeping::ObjectsDeleted(names)) => {
            retention::objects_deleted(db, names).map(Answer::Deleted)
        }
        Entry::Housekeeping(Housekeeping::ForgetStatistics(grain, before)) => {
            statistics::forget(db, *grain, *before).map(Answer::Deleted)
        }
        Entry::Program(change) => {
            // A deletion reads the states of jobs.
            store_touched(db, ledgers)?;
            programs::apply(db, change)
        }
        Entry::Log(log) => put_log(db, ledgers, log).map(|()| Answer::Done),
        Entry::Drain(change) => drains::apply(db, change).map(|()| Answer::Done),
        Entry::Nothing => Ok(Answer::Done),
    }
}

fn cancel_unread(db: &Connection, tally: &mut Tally, job: JobId, at: Timestamp, why: &str) -> rusqlite::Result<u64> {
    let mut update = db.prepare_cached(
        "UPDATE jobs SET state = ?2, finished_at = ?3 WHERE id = ?1 AND finished_at IS NULL
         RETURNING key, tasks_done, tasks_failed, tasks, uncounted, kind, task, submitted_at",
    )?;
    let mut rows = update.query((job.0.as_bytes(), JobState::Canceled.stored_name(), at.column()))?;
    let Some(row) = rows.next()? else { return Ok(0) };
    let number = |index| column::about(row, index).unwrap_or(0);
    let tasks = RowTasks { done: number(1), failed: number(2), total: number(3) };
    let (key, uncounted) = (row.get(0)?, column::counts(row, 4));
    if uncounted.is_ok() {
        db.prepare_cached("UPDATE jobs SET uncounted = NULL WHERE key = ?1")?.execute([key])?;
    }
    let event = canceled_unread(at, why, tasks, uncounted.unwrap_or_default());
    match (column::parse(row, 5), row.get(6), column::time(row, 7)) {
        (Ok(kind), Ok(task), Ok(submitted_at)) => {
            put_event(db, tally, key, &Subject { kind, task, submitted_at }, &event)?;
        }
        // The event has no figures: its kind cannot be read.
        _ => insert_event(db, key, &event)?,
    }
    Ok(1)
}

/// Keeps a log, which counts in the size of its job.
fn put_log(db: &Connection, ledgers: &mut Ledgers<i64>, log: &TaskLog) -> rusqlite::Result<()> {
    if !programs::put_log(db, log)? {
        return Ok(());
    }
    if let Some((_, ledger)) = ledgers.find(log.job, || Ok::<_, rusqlite::Error>(None))? {
        ledger.grew(log_bytes(log));
        return Ok(());
    }
    // Within the bounds of an integer, also where the size is damaged.
    let mut update = db.prepare_cached("UPDATE jobs SET bytes = min(bytes + ?2, 9000000000000000000) WHERE id = ?1")?;
    update.execute((log.job.0.as_bytes(), log_bytes(log).column()))?;
    Ok(())
}

/// Writes the ledgers that the batch has changed.
pub(crate) fn store_touched(db: &Connection, ledgers: &mut Ledgers<i64>) -> rusqlite::Result<()> {
    ledgers.visit_touched(|&key, ledger| ledger::store(db, key, ledger))
}

fn apply_change(
    db: &Connection,
    ledgers: &mut Ledgers<i64>,
    tally: &mut Tally,
    change: &Change,
) -> rusqlite::Result<Answer> {
    let is_retry = matches!(change.kind, ChangeKind::Retried);
    let Some((key, ledger)) = ledgers.find(change.job, || ledger::load(db, change.job, is_retry))? else {
        drop_abandoned(db, &rules::without_effect(change).result)?;
        return Ok(Answer::Done);
    };
    match ledger.apply(change) {
        Ok(effects) => {
            write(db, tally, *key, ledger, &effects)?;
            Ok(Answer::Done)
        }
        Err(refused) => Ok(Answer::Refused(refused.to_string())),
    }
}

fn write(
    db: &Connection,
    tally: &mut Tally,
    key: i64,
    ledger: &mut JobLedger,
    effects: &Effects<'_>,
) -> rusqlite::Result<()> {
    match &effects.attempt {
        None => {}
        Some(AttemptRow::Completed { tasks, outcome }) => attempts::put_completed(db, key, tasks, outcome)?,
        Some(AttemptRow::Failed(failure)) => ledger.freed(attempts::put_failed(db, key, failure)?),
    }
    match &effects.result {
        ResultEffect::Keep => {}
        ResultEffect::Drop => ledger.freed(drop_result(db, key)?),
        ResultEffect::Put(result) => {
            ledger.freed(drop_result(db, key)?);
            put_result(db, key, result)?;
        }
        abandoned @ ResultEffect::Abandon(_) => drop_abandoned(db, abandoned)?,
    }
    effects.event.as_ref().map_or(Ok(()), |event| put_event(db, tally, key, &ledger.subject, event))
}

fn drop_abandoned(db: &Connection, effect: &ResultEffect<'_>) -> rusqlite::Result<()> {
    if let ResultEffect::Abandon(object) = effect {
        db.prepare_cached("INSERT OR IGNORE INTO dropped_objects (object) VALUES (?1)")?.execute([object])?;
    }
    Ok(())
}

/// Deletes the row; the caller deletes its object. Returns the bytes of the result.
pub(crate) fn drop_result(db: &Connection, key: i64) -> rusqlite::Result<u64> {
    let mut delete = db.prepare_cached("DELETE FROM results WHERE job = ?1 RETURNING bytes, object")?;
    let mut rows = delete.query([key])?;
    let mut bytes = 0;
    let mut dropped = None;
    while let Some(row) = rows.next()? {
        bytes += column::count(row, 0)?;
        dropped = row.get::<_, Option<String>>(1)?;
    }
    if let Some(object) = dropped {
        drop_abandoned(db, &ResultEffect::Abandon(&object))?;
    }
    Ok(bytes)
}

fn put_result(db: &Connection, key: i64, result: &ResultBody) -> rusqlite::Result<()> {
    let mut insert =
        db.prepare_cached("INSERT INTO results (job, json, object, bytes, sha256) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let bytes = rules::result_bytes(result).column();
    match result {
        ResultBody::Inline(json) => insert.execute((key, json.get(), None::<&str>, bytes, None::<&[u8]>))?,
        ResultBody::Object(object) => {
            insert.execute((key, None::<&str>, &object.name, bytes, object.sha256.as_slice()))?
        }
    };
    Ok(())
}

pub(crate) fn put_event(
    db: &Connection,
    tally: &mut Tally,
    key: i64,
    subject: &Subject,
    event: &EventRow<'_>,
) -> rusqlite::Result<()> {
    tally.count(subject, event.at, &event.counts);
    insert_event(db, key, event)
}

fn insert_event(db: &Connection, key: i64, event: &EventRow<'_>) -> rusqlite::Result<()> {
    let EventRow { kind, at, tasks_done, tasks_total, error, source, counts } = event;
    let (kind, counts, source) =
        (kind.stored_name(), counts_to_stored(counts), source.map(positions::source_to_stored));
    db.prepare_cached(
        "INSERT INTO events (job, kind, at, tasks_done, tasks_total, error, counts, source)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((key, kind, at.column(), tasks_done.column(), tasks_total.column(), error, counts, source))?;
    Ok(())
}

/// The newest event's number; it stays when the event itself is gone.
pub(crate) fn latest_event(db: &Connection) -> rusqlite::Result<u64> {
    let mut select = db.prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'")?;
    select.query_row([], |row| column::count(row, 0))
}
