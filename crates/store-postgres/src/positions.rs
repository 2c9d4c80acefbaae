//! Positions in outside streams, and unpublished events.

use std::collections::BTreeMap;

use model::EventSource;
use store::{JobKey, Position};
use tokio_postgres::Row;

use crate::error::DbError;
use crate::jobs::BEGIN;
use crate::link::{Link, Step};
use crate::rows::{self, Column};

const PUT: &str = "INSERT INTO positions (stream, next, mark) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) \
     ON CONFLICT (stream) DO UPDATE SET next = excluded.next, mark = excluded.mark";
const ALL: &str = "SELECT stream, next, mark FROM positions ORDER BY stream";
const WITH_EVENTS: &str = "SELECT key FROM unnest($1::bigint[]) AS job (key) \
     WHERE EXISTS (SELECT 1 FROM events WHERE events.job = job.key AND seq >= $2)";

/// The positions that a batch has moved.
#[derive(Default)]
pub(crate) struct Positions(BTreeMap<String, Position>);

impl Positions {
    pub(crate) fn put(&mut self, stream: &str, position: Position) {
        self.0.insert(stream.to_owned(), position);
    }

    pub(crate) fn step<'a>(self) -> Option<Step<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let (next, mark): (Vec<_>, Vec<_>) =
            self.0.values().map(|position| (position.next.column(), position.mark.cast_signed())).unzip();
        let streams: Vec<_> = self.0.into_keys().collect();
        Some(Step::Run { sql: PUT, params: vec![Box::new(streams), Box::new(next), Box::new(mark)] })
    }
}

/// A stream, its next record and the mark.
pub(crate) fn read(row: &Row) -> Result<(String, Position), DbError> {
    let position = Position { next: rows::count(row, 1)?, mark: rows::get::<i64>(row, 2)?.cast_unsigned() };
    Ok((rows::get(row, 0)?, position))
}

pub(crate) async fn all(link: &Link) -> Result<Vec<(String, Position)>, DbError> {
    link.query(ALL, &[]).await?.iter().map(read).collect()
}

/// The jobs of `jobs` that have an event with this number or a higher one. Retention must end however many jobs there are.
pub(crate) async fn with_events_from(link: &Link, seq: u64, jobs: &[JobKey]) -> Result<Vec<JobKey>, DbError> {
    let keys: Vec<i64> = jobs.iter().map(|key| key.0).collect();
    link.client.batch_execute(BEGIN).await?;
    let found = link.query(WITH_EVENTS, &[&keys, &seq.column()]).await;
    // Sent also after an error, so that the next read finds no transaction.
    let ended = link.client.batch_execute("COMMIT").await;
    let found = found?;
    ended?;
    found.iter().map(|row| rows::get(row, 0).map(JobKey)).collect()
}

pub(crate) fn source_to_stored(source: &EventSource) -> String {
    serde_json::json!(source).to_string()
}

pub(crate) fn source(row: &Row, column: usize) -> Result<Option<EventSource>, DbError> {
    if rows::get::<Option<&str>>(row, column)?.is_none() {
        return Ok(None);
    }
    rows::json(row, column).map(Some)
}
