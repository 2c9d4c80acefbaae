//! Conversions between values and columns.

use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use model::{Counts, JobId};
use rusqlite::types::Type;
use rusqlite::{Error as SqlError, Row, Rows};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use store::stored::{InvalidStored, StoredName, counts_from_stored, verified_from_stored};
use store::{Unreadable, Verified};
use uuid::Uuid;

use crate::error::is_of_a_row;

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

/// The value, or `None` after noting its row as unreadable. Other errors are those of the whole read.
pub(crate) fn skip<T>(
    unreadable: &Unreadable,
    what: &'static str,
    key: &(impl Display + ?Sized),
    read: rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    match read {
        Err(error) if !is_of_a_row(&error) => Err(error),
        read => Ok(unreadable.skip(what, key, read)),
    }
}

/// Steps through rows up to `limit` that can be read.
pub(crate) fn readable<T>(
    rows: &mut Rows<'_>,
    limit: usize,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Vec<T>> {
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        found.extend(read(row)?);
    }
    Ok(found)
}

/// The error of a value in a column.
pub(crate) fn wrong(index: usize, kind: Type, error: impl Error + Send + Sync + 'static) -> SqlError {
    SqlError::FromSqlConversionFailure(index, kind, Box::new(error))
}

pub(crate) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| SqlError::IntegralValueOutOfRange(index, number))
}

/// A count that only estimates work: an impossible count reads as 0.
pub(crate) fn about(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(|number| u64::try_from(number).unwrap_or(0))
}

pub(crate) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    to_time(row.get(index)?)
}

pub(crate) fn optional_time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    let nanos: Option<i64> = row.get(index)?;
    nanos.map(to_time).transpose()
}

/// A time from its nanoseconds since 1970.
pub(crate) fn to_time(nanos: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanos)).map_err(|error| wrong(0, Type::Integer, error))
}

pub(crate) fn parse<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    row.get_ref(index)?.as_str()?.parse().map_err(|error| wrong(index, Type::Text, error))
}

/// A value that is stored in the column by its name.
pub(crate) fn name<T: StoredName>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    stored(row, index, T::from_stored_name)
}

/// A value in its stored form.
pub(crate) fn stored<T>(
    row: &Row<'_>,
    index: usize,
    from_stored: impl FnOnce(&str) -> Result<T, InvalidStored>,
) -> rusqlite::Result<T> {
    from_stored(row.get_ref(index)?.as_str()?).map_err(|error| wrong(index, Type::Text, error))
}

/// Figures of an event.
pub(crate) fn counts(row: &Row<'_>, index: usize) -> rusqlite::Result<Counts> {
    let text = row.get_ref(index)?.as_str_or_null()?;
    counts_from_stored(text).map_err(|error| wrong(index, Type::Text, error))
}

/// Verification of a job.
pub(crate) fn verified(row: &Row<'_>, index: usize) -> rusqlite::Result<Verified> {
    let text = row.get_ref(index)?.as_str_or_null()?;
    verified_from_stored(text).map_err(|error| wrong(index, Type::Text, error))
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(index)?.as_str()?).map_err(|error| wrong(index, Type::Text, error))
}

pub(crate) fn raw_json(row: &Row<'_>, index: usize) -> rusqlite::Result<Box<RawValue>> {
    RawValue::from_string(row.get(index)?).map_err(|error| wrong(index, Type::Text, error))
}

pub(crate) fn uuid(row: &Row<'_>, index: usize) -> rusqlite::Result<Uuid> {
    Uuid::from_slice(row.get_ref(index)?.as_blob()?).map_err(|error| wrong(index, Type::Blob, error))
}

pub(crate) fn job_id(row: &Row<'_>, index: usize) -> rusqlite::Result<JobId> {
    uuid(row, index).map(JobId)
}
