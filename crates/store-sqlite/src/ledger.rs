//! Reads ledgers from their rows and writes them.

use model::{JobId, JobState};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use store::rules::{JobLedger, SpanKind};
use store::statistics::Subject;
use store::stored::{self, StoredName};

use crate::column::{self, Column};

pub(crate) fn span_kind(row: &Row<'_>, index: usize) -> rusqlite::Result<SpanKind> {
    match row.get(index)? {
        0 => Ok(SpanKind::Done),
        1 => Ok(SpanKind::Failed),
        2 => Ok(SpanKind::Retry),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(index, other)),
    }
}

fn what(kind: SpanKind) -> i64 {
    match kind {
        SpanKind::Done => 0,
        SpanKind::Failed => 1,
        SpanKind::Retry => 2,
    }
}

/// The ledger of a job with its key. `None` if there is no such job, or if it is over and `even_over` is false.
pub(crate) fn load(db: &Connection, job: JobId, even_over: bool) -> rusqlite::Result<Option<(i64, JobLedger)>> {
    let mut select = db.prepare_cached(
        "SELECT state, key, kind, tasks, bytes, value, attempts, started_at, finished_at, retried_at, error, work,
         task, submitted_at, uncounted, verified FROM jobs WHERE id = ?1",
    )?;
    let read = |row: &Row<'_>| {
        let state: JobState = column::name(row, 0)?;
        if state.is_over() && !even_over {
            return Ok(None);
        }
        let kind = column::parse(row, 2)?;
        let is_individual = column::stored(row, 11, |text| stored::is_individual(kind, text))?;
        let subject = Subject { kind, task: row.get(12)?, submitted_at: column::time(row, 13)? };
        let mut ledger = JobLedger::new(subject, is_individual, column::count(row, 3)?, column::count(row, 4)?);
        ledger.state = state;
        (ledger.value, ledger.check) = column::stored(row, 5, stored::values_from_stored)?;
        ledger.attempts = column::count(row, 6)?;
        ledger.started_at = column::optional_time(row, 7)?;
        ledger.finished_at = column::optional_time(row, 8)?;
        ledger.retried_at = column::optional_time(row, 9)?;
        ledger.error = row.get(10)?;
        ledger.uncounted = column::counts(row, 14)?;
        ledger.verified = column::verified(row, 15)?;
        Ok(Some((row.get(1)?, ledger)))
    };
    let Some((key, mut ledger)) = select.query_row([job.0.as_bytes()], read).optional()?.flatten() else {
        return Ok(None);
    };
    let mut select = db.prepare_cached("SELECT what, first, beyond, failures FROM spans WHERE job = ?1")?;
    let mut rows = select.query([key])?;
    while let Some(row) = rows.next()? {
        let tasks = column::count(row, 1)?..column::count(row, 2)?;
        ledger
            .load_span(span_kind(row, 0)?, &tasks, row.get(3)?)
            .map_err(|error| column::wrong(1, Type::Integer, error))?;
    }
    Ok(Some((key, ledger)))
}

/// Writes the changes since the last call.
pub(crate) fn store(db: &Connection, key: i64, ledger: &mut JobLedger) -> rusqlite::Result<()> {
    let mut put = db.prepare_cached(
        "INSERT OR REPLACE INTO spans (job, what, first, beyond, failures) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut delete = db.prepare_cached("DELETE FROM spans WHERE job = ?1 AND what = ?2 AND first = ?3")?;
    for (kind, first, span) in ledger.take_changed_spans() {
        match span {
            Some((beyond, failures)) => put.execute((key, what(kind), first.column(), beyond.column(), failures))?,
            None => delete.execute((key, what(kind), first.column()))?,
        };
    }
    db.prepare_cached(
        "UPDATE jobs SET state = ?2, tasks_done = ?3, tasks_failed = ?4, value = ?5, bytes = ?6, attempts = ?7,
         started_at = ?8, finished_at = ?9, retried_at = ?10, error = ?11, uncounted = ?12, verified = ?13
         WHERE key = ?1",
    )?
    .execute((
        key,
        ledger.state.stored_name(),
        ledger.tasks_done().column(),
        ledger.tasks_failed().column(),
        stored::values_to_stored(ledger.value, ledger.check),
        ledger.bytes().column(),
        ledger.attempts.column(),
        ledger.started_at.map(|at| at.column()),
        ledger.finished_at.map(|at| at.column()),
        ledger.retried_at.map(|at| at.column()),
        &ledger.error,
        stored::counts_to_stored(&ledger.uncounted),
        stored::verified_to_stored(&ledger.verified),
    ))?;
    Ok(())
}
