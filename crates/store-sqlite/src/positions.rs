//! Positions in outside streams, and the outbox: unpublished events.

use model::EventSource;
use rusqlite::{Connection, OptionalExtension, Row};
use store::statistics::Tally;
use store::{Advance, Answer, JobKey, Position};

use crate::column::{self, Column};
use crate::submit;

pub(crate) fn advance(db: &Connection, tally: &mut Tally, advance: &Advance) -> rusqlite::Result<Answer> {
    let position = one(db, &advance.stream)?.unwrap_or_default();
    if position.next != advance.from {
        return Ok(Answer::Elsewhere(position));
    }
    let answer = match &advance.job {
        Some((new, source)) => submit::insert(db, tally, new, Some(source))?,
        None => Answer::Done,
    };
    if matches!(answer, Answer::Done | Answer::Submitted(_)) {
        db.prepare_cached("INSERT OR REPLACE INTO positions (stream, next, mark) VALUES (?1, ?2, ?3)")?.execute((
            &advance.stream,
            advance.to.next.column(),
            advance.to.mark.cast_signed(),
        ))?;
    }
    Ok(answer)
}

fn position(row: &Row<'_>) -> rusqlite::Result<Position> {
    Ok(Position { next: column::count(row, 0)?, mark: row.get::<_, i64>(1)?.cast_unsigned() })
}

pub(crate) fn one(db: &Connection, stream: &str) -> rusqlite::Result<Option<Position>> {
    db.prepare_cached("SELECT next, mark FROM positions WHERE stream = ?1")?.query_row([stream], position).optional()
}

pub(crate) fn all(db: &Connection) -> rusqlite::Result<Vec<(String, Position)>> {
    let mut select = db.prepare_cached("SELECT next, mark, stream FROM positions ORDER BY stream")?;
    select.query_map([], |row| Ok((row.get(2)?, position(row)?)))?.collect()
}

/// Adds to a position that is a counter.
pub(crate) fn add(db: &Connection, stream: &str, count: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO positions (stream, next, mark) VALUES (?1, ?2, 0)
         ON CONFLICT (stream) DO UPDATE SET next = next + excluded.next";
    db.prepare_cached(sql)?.execute((stream, count.column()))?;
    Ok(())
}

/// Number of events of a job with this number or a higher one.
pub(crate) fn events_from(db: &Connection, key: i64, seq: u64) -> rusqlite::Result<u64> {
    let mut count = db.prepare_cached("SELECT count(*) FROM events WHERE job = ?1 AND seq >= ?2")?;
    count.query_row((key, seq.column()), |row| column::count(row, 0))
}

/// The jobs of `jobs` that have an event with this number or a higher one.
pub(crate) fn with_events_from(db: &Connection, seq: u64, jobs: Vec<JobKey>) -> rusqlite::Result<Vec<JobKey>> {
    let mut select = db.prepare_cached("SELECT 1 FROM events WHERE job = ?1 AND seq >= ?2")?;
    let mut found = Vec::new();
    for key in jobs {
        if select.exists((key.0, seq.column()))? {
            found.push(key);
        }
    }
    Ok(found)
}

pub(crate) fn source_to_stored(source: &EventSource) -> String {
    serde_json::json!(source).to_string()
}

pub(crate) fn source(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<EventSource>> {
    if row.get_ref(index)?.as_str_or_null()?.is_none() {
        return Ok(None);
    }
    column::json(row, index).map(Some)
}
