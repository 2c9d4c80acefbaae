//! Pages of jobs. The part of the filter with the fewest jobs leads, in the order of an index; the other parts are checked job
//! by job.

use std::cmp::Reverse;

use jiff::Timestamp;
use model::{JobId, JobKind, JobState};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use store::stored::StoredName;
use store::{Cursor, JobFilter, JobRecord, Unreadable};

use crate::column::{self, Column};
use crate::error::is_of_a_row;
use crate::jobs::{RECORD, record};

/// Most jobs of a part that are counted to find the smallest part.
const COUNTED: i64 = 2000;
/// Least number of further jobs that are read in place of unreadable ones.
const MORE: usize = 200;

/// A walk through the jobs, newest first.
struct Way {
    from: &'static str,
    /// The table whose `submitted_at` and `id` are in the order of the index.
    ordered: &'static str,
    condition: &'static str,
    values: Vec<Value>,
}

pub(crate) fn page(
    db: &Connection,
    unreadable: &Unreadable,
    filter: &JobFilter,
    mut before: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<Vec<JobRecord>> {
    let transaction = db.unchecked_transaction()?;
    let (ways, led_by) = choose(&transaction, filter)?;
    let mut select = transaction.prepare_cached(&format!("SELECT {RECORD} FROM jobs WHERE key = ?1"))?;
    let (mut page, mut wanted) = (Vec::new(), limit);
    loop {
        let mut found = Vec::new();
        for way in &ways {
            found.extend(walk(&transaction, filter, way, led_by, before, wanted)?);
        }
        found.sort_unstable_by_key(|&found| Reverse(found));
        found.truncate(wanted);
        for &(_, id, key) in &found {
            match select.query_row([key], record) {
                Ok(record) => page.push(record),
                Err(error) if is_of_a_row(&error) => unreadable.note_job(id, &error),
                Err(error) => return Err(error),
            }
        }
        match found.last() {
            // Unreadable jobs are replaced by later ones.
            Some(&(submitted_at, id, _)) if page.len() < limit && found.len() >= wanted => {
                before = Some(Cursor { submitted_at: column::to_time(submitted_at)?, id });
                wanted = (limit - page.len()).max(MORE);
            }
            Some(_) | None => {
                page.truncate(limit);
                return Ok(page);
            }
        }
    }
}

/// Number of jobs that a filter finds among those submitted at `since` or later.
pub(crate) fn count(db: &Connection, filter: &JobFilter, since: Option<Timestamp>) -> rusqlite::Result<u64> {
    let transaction = db.unchecked_transaction()?;
    let (ways, led_by) = choose(&transaction, filter)?;
    let mut counted = 0;
    for Way { from, ordered, condition, mut values } in ways {
        let mut sql = format!("SELECT count(*) FROM {from} WHERE {condition}");
        if let Some(since) = since {
            sql += &format!(" AND {ordered}.submitted_at >= ?");
            values.push(Value::from(since.column()));
        }
        rest(&mut sql, &mut values, filter, led_by);
        counted +=
            transaction.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| column::count(row, 0))?;
    }
    Ok(counted)
}

/// The leading index: a tag by its place in the filter, or the states and the kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    Tag(usize),
    States,
    Nothing,
}

fn choose(db: &Connection, filter: &JobFilter) -> rusqlite::Result<(Vec<Way>, Lead)> {
    let mut parts: Vec<(Vec<Way>, Lead)> =
        filter.tags.iter().enumerate().map(|(place, tag)| (vec![by_tag(tag)], Lead::Tag(place))).collect();
    if !filter.states.is_empty() || filter.kind.is_some() {
        parts.push((by_state(db, filter)?, Lead::States));
    }
    if parts.len() < 2 {
        return Ok(parts.pop().unwrap_or_else(|| (vec![by_time()], Lead::Nothing)));
    }
    let mut smallest = None;
    for part in parts {
        let mut count = 0;
        for way in &part.0 {
            count += size(db, way)?;
        }
        if smallest.as_ref().is_none_or(|&(least, _)| count < least) {
            smallest = Some((count, part));
        }
    }
    Ok(smallest.map_or_else(|| (vec![by_time()], Lead::Nothing), |(_, part)| part))
}

fn size(db: &Connection, way: &Way) -> rusqlite::Result<i64> {
    // The query uses the walk's own table alone: only the index is read.
    let table = way.ordered;
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {} LIMIT {COUNTED})", way.condition);
    db.prepare_cached(&sql)?.query_row(params_from_iter(&way.values), |row| row.get(0))
}

fn by_time() -> Way {
    Way { from: "jobs", ordered: "jobs", condition: "1", values: Vec::new() }
}

fn by_tag((name, value): &(String, Option<String>)) -> Way {
    let from = "tags JOIN jobs ON jobs.key = tags.job";
    let name = Value::from(name.clone());
    match value {
        Some(value) => Way {
            from,
            ordered: "tags",
            condition: "tags.name = ? AND tags.value = ?",
            values: vec![name, Value::from(value.clone())],
        },
        None => Way { from, ordered: "tags", condition: "tags.name = ?", values: vec![name] },
    }
}

/// A walk for each state and kind, so that each is one run of the index.
fn by_state(db: &Connection, filter: &JobFilter) -> rusqlite::Result<Vec<Way>> {
    let wanted = |state: &&JobState| filter.states.is_empty() || filter.states.contains(state);
    let mut ways = Vec::new();
    for state in <JobState as StoredName>::ALL.iter().filter(wanted).map(|state| state.stored_name()) {
        let kinds = match filter.kind {
            Some(kind) => vec![kind.as_str().to_owned()],
            None => kinds_in(db, state)?,
        };
        ways.extend(kinds.into_iter().map(|kind| Way {
            from: "jobs",
            ordered: "jobs",
            condition: "jobs.state = ? AND jobs.kind = ?",
            values: vec![Value::from(state.to_owned()), Value::from(kind)],
        }));
    }
    Ok(ways)
}

/// The kinds of the jobs in a state: one step down the index for each.
fn kinds_in(db: &Connection, state: &str) -> rusqlite::Result<Vec<String>> {
    let mut next = db.prepare_cached("SELECT min(kind) FROM jobs WHERE state = ?1 AND kind > ?2")?;
    let mut kinds: Vec<String> = Vec::new();
    loop {
        let last = kinds.last().map_or("", String::as_str);
        match next.query_row((state, last), |row| row.get(0))? {
            Some(kind) => kinds.push(kind),
            None => return Ok(kinds),
        }
    }
}

/// Submission time, id and key of a job.
type Found = (i64, JobId, i64);

fn walk(
    db: &Connection,
    filter: &JobFilter,
    way: &Way,
    led_by: Lead,
    before: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<Vec<Found>> {
    let Way { from, ordered, condition, values } = way;
    let mut sql = format!("SELECT {ordered}.submitted_at, {ordered}.id, jobs.key FROM {from} WHERE {condition}");
    let mut values = values.clone();
    if let Some(Cursor { submitted_at, id }) = before {
        sql += &format!(" AND ({ordered}.submitted_at, {ordered}.id) < (?, ?)");
        values.extend([Value::from(submitted_at.column()), Value::from(id.0.as_bytes().to_vec())]);
    }
    rest(&mut sql, &mut values, filter, led_by);
    sql += &format!(" ORDER BY {ordered}.submitted_at DESC, {ordered}.id DESC LIMIT ?");
    values.push(Value::from((limit as u64).column()));
    let mut select = db.prepare_cached(&sql)?;
    let rows =
        select.query_map(params_from_iter(values), |row| Ok((row.get(0)?, column::job_id(row, 1)?, row.get(2)?)))?;
    rows.collect()
}

/// Adds the parts of the filter that do not lead.
fn rest(sql: &mut String, values: &mut Vec<Value>, filter: &JobFilter, led_by: Lead) {
    if led_by != Lead::States {
        for (column, names) in [
            ("state", filter.states.iter().map(|state| state.stored_name()).collect::<Vec<_>>()),
            ("kind", filter.kind.iter().map(JobKind::as_str).collect()),
        ] {
            if !names.is_empty() {
                // The plus excludes an index with another order.
                *sql += &format!(" AND +jobs.{column} IN ({})", vec!["?"; names.len()].join(", "));
                values.extend(names.into_iter().map(|name| Value::from(name.to_owned())));
            }
        }
    }
    for (place, (name, value)) in filter.tags.iter().enumerate() {
        if led_by == Lead::Tag(place) {
            continue;
        }
        // A step down an index for each tag: a tag's rows hold their job's time and id.
        *sql += " AND EXISTS (SELECT 1 FROM tags AS other WHERE other.submitted_at = jobs.submitted_at
                 AND other.id = jobs.id AND other.name = ?";
        values.push(Value::from(name.clone()));
        if let Some(value) = value {
            *sql += " AND other.value = ?";
            values.push(Value::from(value.clone()));
        }
        *sql += ")";
    }
}
