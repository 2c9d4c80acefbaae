//! Rows of statistics: written at the end of a batch, and read.

use std::fmt::{self, Display, Formatter};
use std::sync::LazyLock;

use jiff::Timestamp;
use model::{BEYOND_US, Counts, Grain, JobKind};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params_from_iter};
use store::Unreadable;
use store::statistics::{
    self, MAX_TASK_NAMES, OTHER_TASKS, PendingRow, PeriodKey, PeriodRow, Query, Tally, TaskKey, TaskRow,
};
use store::stored::StoredName;

use crate::column::{self, Column};

/// Rows of each table that are deleted in one transaction: some 10 ms.
const FORGOTTEN_AT_ONCE: usize = 2000;

/// The columns of the sums, those of [`Counts::figures`] first.
static FIGURES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let counts = Counts::default();
    let sums = counts.durations().map(|(what, _)| format!("{what}_us"));
    counts.figures().map(|(name, _)| name.to_owned()).into_iter().chain(sums).collect()
});

static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let columns = FIGURES.join(", ");
    let places = vec!["?"; 5 + FIGURES.len()].join(", ");
    let sums = FIGURES.iter().map(|name| format!("{name} = {name} + excluded.{name}")).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO statistics (grain, start, kind, jobs_pending, tasks_pending, {columns}) VALUES ({places})
         ON CONFLICT DO UPDATE SET jobs_pending = excluded.jobs_pending, tasks_pending = excluded.tasks_pending, {sums}"
    )
});

/// Key of a row as columns.
struct RowKey(&'static str, i64, JobKind);

impl From<statistics::Row> for RowKey {
    fn from((grain, start, kind): statistics::Row) -> Self {
        Self(grain.stored_name(), start.as_second(), kind)
    }
}

/// Adds the figures of the batch's events.
pub(crate) fn add(db: &Connection, tally: &Tally) -> rusqlite::Result<()> {
    let mut before = Vec::new();
    let mut pending = db.prepare_cached(
        "INSERT INTO statistics_pending (kind, jobs, tasks) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs, tasks = tasks + excluded.tasks RETURNING jobs, tasks",
    )?;
    for (kind, jobs, tasks) in tally.pending() {
        let now = pending.query_row((kind.as_str(), jobs, tasks), |row| Ok((row.get(0)?, row.get(1)?)));
        let (all_jobs, all_tasks): (i64, i64) = now?;
        before.push((kind, all_jobs - jobs, all_tasks - tasks));
    }
    let mut upsert = db.prepare_cached(&UPSERT)?;
    let mut upsert_duration = db.prepare_cached(
        "INSERT INTO statistics_durations (grain, start, kind, what, up_to_us, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET count = count + excluded.count",
    )?;
    for (row, counts) in tally.rows() {
        let RowKey(grain, start, kind) = row.into();
        let (_, jobs, tasks) = before.iter().find(|(of, ..)| *of == kind).copied().unwrap_or((kind, 0, 0));
        let (jobs, tasks) = (jobs + counts.jobs_pending, tasks + counts.tasks_pending);
        let figures = counts.figures().map(|(_, figure)| figure.column());
        let sums = counts.durations().map(|(_, durations)| durations.sum_us.column());
        let name = kind.as_str();
        let mut values: Vec<&dyn ToSql> = vec![&grain, &start, &name, &jobs, &tasks];
        values.extend(figures.iter().chain(&sums).map(|figure| figure as &dyn ToSql));
        upsert.execute(values.as_slice())?;
        for (what, durations) in counts.durations() {
            for (bound, count) in &durations.buckets {
                upsert_duration.execute((grain, start, name, what, bound.column(), count.column()))?;
            }
        }
    }
    tally.starts().try_for_each(|(row, task, starts)| add_starts(db, row.into(), task, starts.column()))
}

fn add_starts(db: &Connection, row: RowKey, task: &str, starts: i64) -> rusqlite::Result<()> {
    let RowKey(grain, start, kind) = row;
    let kind = kind.as_str();
    let mut update = db.prepare_cached(
        "UPDATE statistics_tasks SET starts = starts + ?5 WHERE grain = ?1 AND start = ?2 AND kind = ?3 AND task = ?4",
    )?;
    if update.execute((grain, start, kind, task, starts))? > 0 {
        return Ok(());
    }
    let mut count =
        db.prepare_cached("SELECT count(*) FROM statistics_tasks WHERE grain = ?1 AND start = ?2 AND kind = ?3")?;
    let names: u64 = count.query_row((grain, start, kind), |row| column::count(row, 0))?;
    let task = if names < MAX_TASK_NAMES as u64 { task } else { OTHER_TASKS };
    db.prepare_cached(
        "INSERT INTO statistics_tasks (grain, start, kind, task, starts) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET starts = starts + excluded.starts",
    )?
    .execute((grain, start, kind, task, starts))?;
    Ok(())
}

/// The first full second at or after a time.
fn second(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

/// The rows of a query after a key, as a condition with its values.
fn condition(query: &Query, after: Option<(&Timestamp, JobKind, Option<&str>)>) -> (String, Vec<Value>) {
    let mut sql = "grain = ? AND start >= ? AND start < ?".to_owned();
    let grain = Value::from(query.grain.stored_name().to_owned());
    let mut values = vec![grain, second(query.starts.start).into(), second(query.starts.end).into()];
    if let Some(kind) = query.kind {
        sql += " AND kind = ?";
        values.push(kind.as_str().to_owned().into());
    }
    if let Some((start, kind, task)) = after {
        sql += if task.is_some() { " AND (start, kind, task) > (?, ?, ?)" } else { " AND (start, kind) > (?, ?)" };
        values.extend([start.as_second().into(), kind.as_str().to_owned().into()]);
        values.extend(task.map(|task| task.to_owned().into()));
    }
    (sql, values)
}

fn start(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    let second: i64 = row.get(index)?;
    Timestamp::from_second(second).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, second))
}

/// The key of a row of statistics, as far as it can be read. It is written only where the row cannot be read.
struct KeyOf<'r, 's>(&'r Row<'s>);

impl Display for KeyOf<'_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(row) = self;
        let kind = row.get_ref(1).ok().and_then(|kind| kind.as_str().ok()).unwrap_or_default();
        write!(f, "{} {kind}", row.get::<_, i64>(0).unwrap_or(0))
    }
}

pub(crate) fn periods(
    db: &Connection,
    unreadable: &Unreadable,
    query: &Query,
    after: Option<&PeriodKey>,
    limit: usize,
) -> rusqlite::Result<Vec<PeriodRow>> {
    // A single transaction, so that both tables are of the same moment.
    let transaction = db.unchecked_transaction()?;
    let (condition, values) = condition(query, after.map(|(start, kind)| (start, *kind, None)));
    let columns = FIGURES.join(", ");
    let mut select = transaction.prepare_cached(&format!(
        "SELECT start, kind, jobs_pending, tasks_pending, {columns} FROM statistics WHERE {condition}
         ORDER BY start, kind"
    ))?;
    let mut rows = column::readable(&mut select.query(params_from_iter(values))?, limit, |row| {
        column::skip(unreadable, "statistics", &KeyOf(row), period(row))
    })?;
    add_buckets(&transaction, unreadable, query, &mut rows)?;
    Ok(rows)
}

/// The buckets of all rows from one key to another, in the order of the rows.
const BUCKETS: &str = "SELECT start, kind, what, up_to_us, count FROM statistics_durations
     WHERE grain = ?1 AND (start, kind) >= (?2, ?3) AND (start, kind) <= (?4, ?5) AND (?6 IS NULL OR kind = ?6)
     ORDER BY start, kind";

/// A bucket of a row. A page has many of them, so that nothing of one is copied.
struct Bucket<'r> {
    key: (i64, &'r str),
    what: &'r str,
    bound: u64,
    count: u64,
}

impl<'r> Bucket<'r> {
    fn read(row: &'r Row<'_>) -> rusqlite::Result<Self> {
        let key = (row.get(0)?, row.get_ref(1)?.as_str()?);
        let (bound, count) = (column::count(row, 3)?.min(BEYOND_US), column::count(row, 4)?);
        Ok(Self { key, what: row.get_ref(2)?.as_str()?, bound, count })
    }
}

/// Adds their buckets to rows, which are in the order of their keys.
fn add_buckets(
    db: &Connection,
    unreadable: &Unreadable,
    query: &Query,
    rows: &mut [PeriodRow],
) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let (first, last) = ((first.start.as_second(), first.kind), (last.start.as_second(), last.kind));
    let kind = query.kind.as_ref().map(JobKind::as_str);
    let wanted = (query.grain.stored_name(), first.0, first.1.as_str(), last.0, last.1.as_str(), kind);
    let mut select = db.prepare_cached(BUCKETS)?;
    let mut found = select.query(wanted)?;
    let mut place = 0;
    while let Some(bucket) = found.next()? {
        let read = Bucket::read(bucket);
        let read = column::skip(unreadable, "durations of statistics", &KeyOf(bucket), read)?;
        let Some(Bucket { key, what, bound, count }) = read else { continue };
        let is_before = |row: &PeriodRow| (row.start.as_second(), row.kind.as_str()) < key;
        while rows.get(place).is_some_and(is_before) {
            place += 1;
        }
        // A row that cannot be read has no place.
        let row = rows.get_mut(place).filter(|row| (row.start.as_second(), row.kind.as_str()) == key);
        if let Some(durations) = row.and_then(|row| row.counts.durations_mut(what)) {
            durations.buckets.insert(bound, count);
        }
    }
    Ok(())
}

fn period(row: &Row<'_>) -> rusqlite::Result<PeriodRow> {
    let mut figures = [0; Counts::FIGURES];
    for (place, figure) in figures.iter_mut().enumerate() {
        *figure = column::count(row, 4 + place)?;
    }
    let mut counts = Counts::from_figures(figures);
    (counts.jobs_pending, counts.tasks_pending) = (row.get(2)?, row.get(3)?);
    for (place, name) in Counts::default().durations().map(|(name, _)| name).into_iter().enumerate() {
        if let Some(durations) = counts.durations_mut(name) {
            durations.sum_us = column::count(row, 4 + Counts::FIGURES + place)?;
        }
    }
    Ok(PeriodRow { start: start(row, 0)?, kind: column::parse(row, 1)?, counts })
}

/// The last row of each kind whose period begins before a moment: the columns beside a maximum are those of its row.
pub(crate) fn pending(
    db: &Connection,
    unreadable: &Unreadable,
    grain: Grain,
    before: Timestamp,
) -> rusqlite::Result<Vec<PendingRow>> {
    let mut select = db.prepare_cached(
        "SELECT max(start), kind, jobs_pending, tasks_pending FROM statistics WHERE grain = ?1 AND start < ?2 GROUP BY kind",
    )?;
    let read = |row: &Row<'_>| {
        Ok(PendingRow { start: start(row, 0)?, kind: column::parse(row, 1)?, jobs: row.get(2)?, tasks: row.get(3)? })
    };
    column::readable(&mut select.query((grain.stored_name(), second(before)))?, usize::MAX, |row| {
        column::skip(unreadable, "statistics", &KeyOf(row), read(row))
    })
}

pub(crate) fn task_starts(
    db: &Connection,
    unreadable: &Unreadable,
    query: &Query,
    after: Option<&TaskKey>,
    limit: usize,
) -> rusqlite::Result<Vec<TaskRow>> {
    let (condition, values) = condition(query, after.map(|(start, kind, task)| (start, *kind, Some(task.as_str()))));
    let mut select = db.prepare_cached(&format!(
        "SELECT start, kind, task, starts FROM statistics_tasks WHERE {condition} ORDER BY start, kind, task"
    ))?;
    let read = |row: &Row<'_>| {
        let (kind, task) = (column::parse(row, 1)?, row.get(2)?);
        Ok(TaskRow { start: start(row, 0)?, kind, task, starts: column::count(row, 3)? })
    };
    column::readable(&mut select.query(params_from_iter(values))?, limit, |row| {
        column::skip(unreadable, "statistics of tasks", &KeyOf(row), read(row))
    })
}

/// Deletes some rows that begin before a moment. Returns their number.
pub(crate) fn forget(db: &Connection, grain: Grain, before: Timestamp) -> rusqlite::Result<u64> {
    let (grain, before) = (grain.stored_name(), before.as_second());
    let mut deleted = 0;
    for table in ["statistics", "statistics_durations", "statistics_tasks"] {
        // The oldest rows, up to a row at this distance from the first.
        let sql = format!(
            "SELECT start FROM {table} WHERE grain = ?1 AND start < ?2 ORDER BY start LIMIT 1 OFFSET {FORGOTTEN_AT_ONCE}"
        );
        let bound: Option<i64> = db.prepare_cached(&sql)?.query_row((grain, before), |row| row.get(0)).optional()?;
        // At least one period is deleted, otherwise none would ever be.
        let bound = bound.map_or(before, |bound| bound.saturating_add(1).min(before));
        let sql = format!("DELETE FROM {table} WHERE grain = ?1 AND start < ?2");
        deleted += db.prepare_cached(&sql)?.execute((grain, bound))? as u64;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::open;

    const MINUTES: i64 = 400;
    const KINDS: [JobKind; 2] = [JobKind::COUNT_PRIMES, JobKind::SLEEP];

    /// The figure that a row's only bucket has.
    fn figure(minute: i64, kind: JobKind) -> u64 {
        (2 * minute).unsigned_abs() + u64::from(kind == KINDS[1]) + 1
    }

    fn fill(db: &Connection) -> rusqlite::Result<()> {
        let (columns, zeros) = (FIGURES.join(", "), vec!["0"; FIGURES.len()].join(", "));
        let mut row = db.prepare(&format!(
            "INSERT INTO statistics (grain, start, kind, jobs_pending, tasks_pending, {columns}) VALUES ('minute', ?1, ?2, 0, 0, {zeros})"
        ))?;
        let mut bucket =
            db.prepare("INSERT INTO statistics_durations VALUES ('minute', ?1, ?2, 'waiting', 1000, ?3)")?;
        for (minute, kind) in (0..MINUTES).flat_map(|minute| KINDS.map(|kind| (minute, kind))) {
            row.execute((60 * minute, kind.as_str()))?;
            bucket.execute((60 * minute, kind.as_str(), figure(minute, kind).column()))?;
        }
        Ok(())
    }

    #[test]
    fn the_buckets_of_a_page_are_read_at_once_and_each_belongs_to_its_row() {
        let directory = tempfile::tempdir().expect("a directory");
        let db = open::open(directory.path()).expect("a new database").db;
        db.execute_batch("BEGIN").and_then(|()| fill(&db)).and_then(|()| db.execute_batch("COMMIT")).expect("room");
        // The bucket of a row that is gone.
        db.execute("DELETE FROM statistics WHERE start = 60 AND kind = 'sleep'", []).expect("there");
        let runs = || db.prepare_cached(BUCKETS).expect("SQL").get_status(StatementStatus::Run);
        for kind in [None, Some(KINDS[1])] {
            let query = Query { grain: Grain::Minute, starts: Timestamp::MIN..Timestamp::MAX, kind };
            let (mut after, mut seen, before) = (None, 0, runs());
            for page in 1.. {
                let rows = periods(&db, &Unreadable::default(), &query, after.as_ref(), 150).expect("readable");
                let Some(last) = rows.last() else { break };
                after = Some((last.start, last.kind));
                seen += rows.len();
                assert_eq!(runs() - before, page, "one statement a page");
                for row in rows {
                    let buckets: Vec<_> = row.counts.waiting.buckets.into_iter().collect();
                    assert_eq!(buckets, [(1000, figure(row.start.as_second() / 60, row.kind))], "{}", row.start);
                }
            }
            assert_eq!(seen, if kind.is_none() { 799 } else { 399 });
        }
    }
}
