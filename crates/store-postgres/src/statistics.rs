//! Rows of statistics: added to at the end of a batch, by statements that need no answer in between, and read.

use std::sync::LazyLock;

use jiff::Timestamp;
use model::{BEYOND_US, Counts, Grain, JobKind};
use store::Unreadable;
use store::statistics::{
    self, MAX_TASK_NAMES, OTHER_TASKS, PendingRow, PeriodKey, PeriodRow, Query, Tally, TaskKey, TaskRow,
};
use store::stored::StoredName;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::DbError;
use crate::link::{Link, Param, Step};
use crate::rows::{self, Column};

/// A transaction that changes the pending figures of a kind locks the rows of the kind up to its commit.
const ADD_PENDING: &str = "INSERT INTO statistics_pending (kind, jobs, tasks) \
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (kind, jobs, tasks) ORDER BY kind COLLATE \"C\" \
     ON CONFLICT (kind) DO UPDATE SET jobs = statistics_pending.jobs + excluded.jobs, \
     tasks = statistics_pending.tasks + excluded.tasks";
const ADD_DURATIONS: &str = "INSERT INTO statistics_durations (grain, start, kind, what, up_to_us, count) \
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
     ON CONFLICT (grain, start, kind, what, up_to_us) DO UPDATE SET count = statistics_durations.count + excluded.count";
/// Names beyond the first ones are counted together: the existing names, then the new ones in the order of the events.
const ADD_STARTS: &str = "WITH new AS (SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[]) \
     WITH ORDINALITY AS new (grain, start, kind, task, starts, place)), \
     names AS (SELECT grain, start, kind, (SELECT count(*) FROM statistics_tasks AS old WHERE old.grain = period.grain \
     AND old.start = period.start AND old.kind = period.kind) AS count \
     FROM (SELECT DISTINCT grain, start, kind FROM new) AS period), \
     placed AS (SELECT new.*, old.task IS NOT NULL AS is_known, count(*) FILTER (WHERE old.task IS NULL) \
     OVER (PARTITION BY new.grain, new.start, new.kind ORDER BY new.place) AS number FROM new \
     LEFT JOIN statistics_tasks AS old ON old.grain = new.grain AND old.start = new.start AND old.kind = new.kind \
     AND old.task = new.task), \
     named AS (SELECT placed.grain, placed.start, placed.kind, \
     CASE WHEN is_known OR names.count + placed.number <= $6::bigint THEN task ELSE $7::text END AS task, starts \
     FROM placed JOIN names ON names.grain = placed.grain AND names.start = placed.start AND names.kind = placed.kind) \
     INSERT INTO statistics_tasks (grain, start, kind, task, starts) \
     SELECT grain, start, kind, task, sum(starts)::bigint FROM named GROUP BY grain, start, kind, task \
     ORDER BY grain COLLATE \"C\", start, kind COLLATE \"C\", task COLLATE \"C\" \
     ON CONFLICT (grain, start, kind, task) DO UPDATE SET starts = statistics_tasks.starts + excluded.starts";

/// The columns of the sums, those of [`Counts::figures`] first.
static FIGURES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let counts = Counts::default();
    let sums = counts.durations().map(|(what, _)| format!("{what}_us"));
    counts.figures().map(|(name, _)| name.to_owned()).into_iter().chain(sums).collect()
});

/// The pending figures after a row's last event are the present ones less those of later events.
static ADD_ROWS: LazyLock<String> = LazyLock::new(|| {
    let columns = FIGURES.join(", ");
    let places: Vec<_> = (0..FIGURES.len()).map(|place| format!("${}::bigint[]", place + 6)).collect();
    let sums: Vec<_> = FIGURES.iter().map(|name| format!("{name} = statistics.{name} + excluded.{name}")).collect();
    let values: Vec<_> = FIGURES.iter().map(|name| format!("new.{name}")).collect();
    format!(
        "INSERT INTO statistics (grain, start, kind, jobs_pending, tasks_pending, {columns}) \
         SELECT new.grain, new.start, new.kind, pending.jobs - new.jobs_behind, pending.tasks - new.tasks_behind, {} \
         FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], {}) \
         AS new (grain, start, kind, jobs_behind, tasks_behind, {columns}) \
         JOIN statistics_pending AS pending ON pending.kind = new.kind \
         ORDER BY new.grain COLLATE \"C\", new.start, new.kind COLLATE \"C\" \
         ON CONFLICT (grain, start, kind) DO UPDATE SET jobs_pending = excluded.jobs_pending, \
         tasks_pending = excluded.tasks_pending, {}",
        values.join(", "),
        places.join(", "),
        sums.join(", ")
    )
});

/// Columns that name a row.
#[derive(Default)]
struct Keys {
    grain: Vec<&'static str>,
    start: Vec<i64>,
    kind: Vec<String>,
}

impl Keys {
    fn push(&mut self, (grain, start, kind): statistics::Row) {
        self.grain.push(grain.stored_name());
        self.start.push(start.as_second());
        self.kind.push(kind.as_str().to_owned());
    }

    fn params<'a>(self, more: Vec<Param<'a>>) -> Vec<Param<'a>> {
        let mut params: Vec<Param<'a>> = vec![Box::new(self.grain), Box::new(self.start), Box::new(self.kind)];
        params.extend(more);
        params
    }
}

/// The steps that add the figures of the batch's events.
pub(crate) fn steps<'a>(tally: &Tally) -> Vec<Step<'a>> {
    if tally.is_empty() {
        return Vec::new();
    }
    let (mut kinds, mut jobs, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, of_jobs, of_tasks) in tally.pending() {
        kinds.push(kind.as_str().to_owned());
        jobs.push(of_jobs);
        tasks.push(of_tasks);
    }
    let mut steps =
        vec![Step::Run { sql: ADD_PENDING, params: vec![Box::new(kinds), Box::new(jobs), Box::new(tasks)] }];
    steps.push(add_rows(tally));
    steps.extend(add_durations(tally));
    steps.extend(add_starts(tally));
    steps
}

fn add_rows<'a>(tally: &Tally) -> Step<'a> {
    let mut keys = Keys::default();
    let (mut jobs_behind, mut tasks_behind) = (Vec::new(), Vec::new());
    let mut figures = vec![Vec::new(); FIGURES.len()];
    for (row, counts) in tally.rows() {
        let all = tally.pending().find(|(kind, ..)| *kind == row.2).map_or((0, 0), |(_, jobs, tasks)| (jobs, tasks));
        keys.push(row);
        jobs_behind.push(all.0 - counts.jobs_pending);
        tasks_behind.push(all.1 - counts.tasks_pending);
        let sums = counts.durations().map(|(_, durations)| durations.sum_us);
        let values = counts.figures().map(|(_, figure)| figure).into_iter().chain(sums);
        figures.iter_mut().zip(values).for_each(|(column, value)| column.push(value.column()));
    }
    let mut more: Vec<Param<'a>> = vec![Box::new(jobs_behind), Box::new(tasks_behind)];
    more.extend(figures.into_iter().map(|column| Box::new(column) as Param<'a>));
    Step::Run { sql: &ADD_ROWS, params: keys.params(more) }
}

fn add_durations<'a>(tally: &Tally) -> Option<Step<'a>> {
    let mut keys = Keys::default();
    let (mut whats, mut bounds, mut counted) = (Vec::new(), Vec::new(), Vec::new());
    for (row, counts) in tally.rows() {
        // In the order of the table's key, as in all transactions that add rows.
        let mut durations = counts.durations();
        durations.sort_unstable_by_key(|(what, _)| *what);
        for (what, durations) in durations {
            for (bound, count) in &durations.buckets {
                keys.push(row);
                whats.push(what);
                bounds.push(bound.column());
                counted.push(count.column());
            }
        }
    }
    let more: Vec<Param<'a>> = vec![Box::new(whats), Box::new(bounds), Box::new(counted.clone())];
    (!counted.is_empty()).then(|| Step::Run { sql: ADD_DURATIONS, params: keys.params(more) })
}

fn add_starts<'a>(tally: &Tally) -> Option<Step<'a>> {
    let mut keys = Keys::default();
    let (mut tasks, mut starts) = (Vec::new(), Vec::new());
    for (row, task, count) in tally.starts() {
        keys.push(row);
        tasks.push(clean(task));
        starts.push(count.column());
    }
    let is_none = starts.is_empty();
    let most = (MAX_TASK_NAMES as u64).column();
    let more: Vec<Param<'a>> = vec![Box::new(tasks), Box::new(starts), Box::new(most), Box::new(OTHER_TASKS)];
    (!is_none).then(|| Step::Run { sql: ADD_STARTS, params: keys.params(more) })
}

/// The name of tasks as text that PostgreSQL takes.
fn clean(task: &str) -> String {
    task.replace('\0', "\u{fffd}")
}

/// The first full second at or after a time.
fn second(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

fn start(row: &Row, column: usize) -> Result<Timestamp, DbError> {
    let second = rows::get(row, column)?;
    Timestamp::from_second(second).map_err(|error| rows::damaged(row, column, error))
}

/// A place before every kind and every moment.
fn place(after: Option<(Timestamp, JobKind)>) -> (i64, String) {
    after.map_or((i64::MIN, String::new()), |(start, kind)| (start.as_second(), kind.as_str().to_owned()))
}

static PERIODS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT start, kind, jobs_pending, tasks_pending, ARRAY(SELECT what || ' ' || up_to_us || ' ' || count \
         FROM statistics_durations AS durations WHERE durations.grain = statistics.grain \
         AND durations.start = statistics.start AND durations.kind = statistics.kind), {} FROM statistics \
         WHERE grain = $1 AND start >= $2 AND start < $3 AND ($4::text IS NULL OR kind = $4) AND (start, kind) > ($5, $6) \
         ORDER BY start, kind LIMIT $7",
        FIGURES.join(", ")
    )
});

/// The key of a row of statistics, as far as it can be read.
fn key_of(row: &Row) -> String {
    let (start, kind) = (rows::get::<i64>(row, 0).unwrap_or(0), rows::get::<&str>(row, 1).unwrap_or_default());
    format!("{start} {kind}")
}

pub(crate) async fn periods(
    link: &Link,
    unreadable: &Unreadable,
    query: &Query,
    after: Option<PeriodKey>,
    limit: usize,
) -> Result<Vec<PeriodRow>, DbError> {
    let (after_start, after_kind) = place(after);
    let kind = query.kind.map(|kind| kind.as_str().to_owned());
    let (from, to) = (second(query.starts.start), second(query.starts.end));
    let (grain, mut asked) = (query.grain.stored_name(), limit);
    loop {
        let most = (asked as u64).column();
        let params: [&(dyn ToSql + Sync); 7] = [&grain, &from, &to, &kind, &after_start, &after_kind, &most];
        let found = link.query(&PERIODS, &params).await?;
        let read = |row: &Row| unreadable.skip("statistics", &key_of(row), period(row));
        if let Some(page) = rows::page(&found, limit, &mut asked, read) {
            return Ok(page);
        }
    }
}

fn period(row: &Row) -> Result<PeriodRow, DbError> {
    let mut figures = [0; Counts::FIGURES];
    for (place, figure) in figures.iter_mut().enumerate() {
        *figure = rows::count(row, 5 + place)?;
    }
    let mut counts = Counts::from_figures(figures);
    (counts.jobs_pending, counts.tasks_pending) = (rows::get(row, 2)?, rows::get(row, 3)?);
    for (place, name) in Counts::default().durations().map(|(name, _)| name).into_iter().enumerate() {
        if let Some(durations) = counts.durations_mut(name) {
            durations.sum_us = rows::count(row, 5 + Counts::FIGURES + place)?;
        }
    }
    for bucket in rows::get::<Vec<&str>>(row, 4)? {
        let mut parts = bucket.split(' ');
        let what = parts.next().unwrap_or_default();
        let mut number = || parts.next().and_then(|digits| digits.parse::<u64>().ok());
        let (Some(bound), Some(count)) = (number(), number()) else {
            return Err(DbError::Damaged(format!("a duration: {bucket}")));
        };
        if let Some(durations) = counts.durations_mut(what) {
            durations.buckets.insert(bound.min(BEYOND_US), count);
        }
    }
    Ok(PeriodRow { start: start(row, 0)?, kind: rows::parse(row, 1)?, counts })
}

/// The last row of each kind whose period begins before a moment.
const PENDING: &str = "SELECT DISTINCT ON (kind) start, kind, jobs_pending, tasks_pending FROM statistics \
     WHERE grain = $1 AND start < $2 ORDER BY kind, start DESC";

pub(crate) async fn pending(
    link: &Link,
    unreadable: &Unreadable,
    grain: Grain,
    before: Timestamp,
) -> Result<Vec<PendingRow>, DbError> {
    let rows = link.query(PENDING, &[&grain.stored_name(), &second(before)]).await?;
    let pending = |row: &Row| {
        let (kind, jobs, tasks) = (rows::parse(row, 1)?, rows::get(row, 2)?, rows::get(row, 3)?);
        Ok::<_, DbError>(PendingRow { start: start(row, 0)?, kind, jobs, tasks })
    };
    Ok(rows.iter().filter_map(|row| unreadable.skip("statistics", &key_of(row), pending(row))).collect())
}

pub(crate) async fn task_starts(
    link: &Link,
    unreadable: &Unreadable,
    query: &Query,
    after: Option<&TaskKey>,
    limit: usize,
) -> Result<Vec<TaskRow>, DbError> {
    const SQL: &str = "SELECT start, kind, task, starts FROM statistics_tasks WHERE grain = $1 AND start >= $2 AND start < $3 \
         AND ($4::text IS NULL OR kind = $4) AND (start, kind, task) > ($5, $6, $7) ORDER BY start, kind, task LIMIT $8";
    let (after_start, after_kind) = place(after.map(|(start, kind, _)| (*start, *kind)));
    // No stored name has a zero in it.
    let after_task = after.map_or_else(String::new, |(_, _, task)| clean(task));
    let kind = query.kind.map(|kind| kind.as_str().to_owned());
    let (from, to) = (second(query.starts.start), second(query.starts.end));
    let read = |row: &Row| {
        let (kind, task) = (rows::parse(row, 1)?, rows::get(row, 2)?);
        Ok::<_, DbError>(TaskRow { start: start(row, 0)?, kind, task, starts: rows::count(row, 3)? })
    };
    let (grain, mut asked) = (query.grain.stored_name(), limit);
    loop {
        let most = (asked as u64).column();
        let params: [&(dyn ToSql + Sync); 8] =
            [&grain, &from, &to, &kind, &after_start, &after_kind, &after_task, &most];
        let found = link.query(SQL, &params).await?;
        let read = |row: &Row| unreadable.skip("statistics of tasks", &key_of(row), read(row));
        if let Some(page) = rows::page(&found, limit, &mut asked, read) {
            return Ok(page);
        }
    }
}

/// Deletes some rows that begin before a moment. Returns their number.
pub(crate) async fn forget(link: &Link, grain: Grain, before: Timestamp) -> Result<u64, DbError> {
    const STATEMENTS: [&str; 3] = [
        "DELETE FROM statistics WHERE ctid = ANY(ARRAY(SELECT ctid FROM statistics WHERE grain = $1 AND start < $2 LIMIT 2000)) RETURNING 1",
        "DELETE FROM statistics_durations WHERE ctid = ANY(ARRAY(SELECT ctid FROM statistics_durations WHERE grain = $1 AND start < $2 LIMIT 2000)) RETURNING 1",
        "DELETE FROM statistics_tasks WHERE ctid = ANY(ARRAY(SELECT ctid FROM statistics_tasks WHERE grain = $1 AND start < $2 LIMIT 2000)) RETURNING 1",
    ];
    let mut deleted = 0;
    for sql in STATEMENTS {
        deleted += link.query(sql, &[&grain.stored_name(), &second(before)]).await?.len() as u64;
    }
    Ok(deleted)
}
