//! Conversions between values and columns.

use std::str::FromStr;

use jiff::Timestamp;
use model::{Counts, JobId};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use store::rules::SpanKind;
use store::stored::{InvalidStored, StoredName, counts_from_stored, verified_from_stored};
use store::{StoredSpan, Verified};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::error::DbError;

/// A value as a column's integer.
pub(crate) trait Column {
    fn column(&self) -> i64;
}

impl Column for u64 {
    /// Counts stay far below the limit: a job has at most 2^53 tasks.
    fn column(&self) -> i64 {
        i64::try_from(*self).unwrap_or(i64::MAX)
    }
}

impl Column for Timestamp {
    /// Nanoseconds since 1970, which last until the year 2262.
    fn column(&self) -> i64 {
        let nanos = self.as_nanosecond();
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }
}

/// The error of a value in a column.
pub(crate) fn damaged(row: &Row, column: usize, error: impl std::fmt::Display) -> DbError {
    let name = row.columns().get(column).map_or("?", |column| column.name());
    DbError::Damaged(format!("column {name}: {error}"))
}

pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, DbError> {
    row.try_get(column).map_err(|error| damaged(row, column, error))
}

pub(crate) fn count(row: &Row, column: usize) -> Result<u64, DbError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|error| damaged(row, column, error))
}

/// A count that only estimates work: an impossible count reads as 0.
pub(crate) fn about(row: &Row, column: usize) -> Result<u64, DbError> {
    get::<i64>(row, column).map(|number| u64::try_from(number).unwrap_or(0))
}

pub(crate) fn small(row: &Row, column: usize) -> Result<u32, DbError> {
    u32::try_from(get::<i64>(row, column)?).map_err(|error| damaged(row, column, error))
}

pub(crate) fn time(row: &Row, column: usize) -> Result<Timestamp, DbError> {
    to_time(row, column, get(row, column)?)
}

pub(crate) fn optional_time(row: &Row, column: usize) -> Result<Option<Timestamp>, DbError> {
    get::<Option<i64>>(row, column)?.map(|nanos| to_time(row, column, nanos)).transpose()
}

fn to_time(row: &Row, column: usize, nanos: i64) -> Result<Timestamp, DbError> {
    Timestamp::from_nanosecond(i128::from(nanos)).map_err(|error| damaged(row, column, error))
}

pub(crate) fn parse<T: FromStr<Err: std::fmt::Display>>(row: &Row, column: usize) -> Result<T, DbError> {
    get::<&str>(row, column)?.parse().map_err(|error| damaged(row, column, error))
}

/// A value that is stored in the column by its name.
pub(crate) fn name<T: StoredName>(row: &Row, column: usize) -> Result<T, DbError> {
    stored(row, column, T::from_stored_name)
}

/// A value in its stored form.
pub(crate) fn stored<T>(
    row: &Row,
    column: usize,
    from_stored: impl FnOnce(&str) -> Result<T, InvalidStored>,
) -> Result<T, DbError> {
    from_stored(get(row, column)?).map_err(|error| damaged(row, column, error))
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T, DbError> {
    serde_json::from_str(get(row, column)?).map_err(|error| damaged(row, column, error))
}

pub(crate) fn raw_json(row: &Row, column: usize) -> Result<Box<RawValue>, DbError> {
    RawValue::from_string(get(row, column)?).map_err(|error| damaged(row, column, error))
}

/// Figures of an event.
pub(crate) fn counts(row: &Row, column: usize) -> Result<Counts, DbError> {
    counts_from_stored(get(row, column)?).map_err(|error| damaged(row, column, error))
}

/// Verification of a job.
pub(crate) fn verified(row: &Row, column: usize) -> Result<Verified, DbError> {
    verified_from_stored(get(row, column)?).map_err(|error| damaged(row, column, error))
}

pub(crate) fn job_id(row: &Row, column: usize) -> Result<JobId, DbError> {
    get::<Uuid>(row, column).map(JobId)
}

fn span_kind(row: &Row, column: usize) -> Result<SpanKind, DbError> {
    match get::<i16>(row, column)? {
        0 => Ok(SpanKind::Done),
        1 => Ok(SpanKind::Failed),
        2 => Ok(SpanKind::Retry),
        other => Err(damaged(row, column, format!("{other} is no kind of run"))),
    }
}

/// The readable rows of a list of `asked` requested rows, at most `limit`. `None` if some cannot be read and there are more:
/// then the caller requests more.
pub(crate) fn page<T>(
    found: &[Row],
    limit: usize,
    asked: &mut usize,
    read: impl FnMut(&Row) -> Option<T>,
) -> Option<Vec<T>> {
    let mut page: Vec<_> = found.iter().filter_map(read).collect();
    if page.len() < limit && found.len() >= *asked {
        *asked = asked.saturating_mul(4);
        return None;
    }
    page.truncate(limit);
    Some(page)
}

/// A run of tasks: its state, its tasks and its failures, in four columns from this one on.
pub(crate) fn span(row: &Row, column: usize) -> Result<StoredSpan, DbError> {
    let tasks = count(row, column + 1)?..count(row, column + 2)?;
    Ok((span_kind(row, column)?, tasks, small(row, column + 3)?))
}

pub(crate) fn what(kind: SpanKind) -> i16 {
    match kind {
        SpanKind::Done => 0,
        SpanKind::Failed => 1,
        SpanKind::Retry => 2,
    }
}
