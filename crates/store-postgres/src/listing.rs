//! Pages of jobs. The part of the filter with the fewest jobs leads, in the order of an index; the other parts are checked job
//! by job.

use jiff::Timestamp;
use model::{JobKind, JobState};
use store::stored::StoredName;
use store::{Cursor, JobFilter, JobRecord, Unreadable};
use tokio_postgres::types::ToSql;

use crate::error::DbError;
use crate::jobs::{RECORD, record};
use crate::link::Link;
use crate::rows::{self, Column};

/// Most jobs of a part that are counted to find the smallest part.
const COUNTED: i64 = 2000;
/// Least number of further jobs that are read in place of unreadable ones.
const MORE: usize = 200;

/// A statement under construction.
#[derive(Default)]
struct Statement {
    sql: String,
    params: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Statement {
    fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    fn value(&mut self, value: impl ToSql + Sync + Send + 'static) -> &mut Self {
        self.params.push(Box::new(value));
        let number = self.params.len();
        self.push(&format!("${number}"))
    }

    async fn query(&self, link: &Link) -> Result<Vec<tokio_postgres::Row>, DbError> {
        let params: Vec<_> = self.params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect();
        Ok(link.client.query(&self.sql, &params).await?)
    }
}

/// The leading index: a tag by its place in the filter, or the states and the kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    Tag(usize),
    States,
    Nothing,
}

/// The states and kinds of a filter, each pair one run of an index.
struct Pairs {
    states: Vec<String>,
    kinds: Vec<String>,
}

pub(crate) async fn page(
    link: &Link,
    unreadable: &Unreadable,
    filter: &JobFilter,
    mut before: Option<Cursor>,
    limit: usize,
) -> Result<Vec<JobRecord>, DbError> {
    let pairs = pairs(link, filter).await?;
    let lead = choose(link, filter, pairs.as_ref()).await?;
    let (mut page, mut wanted) = (Vec::new(), limit);
    loop {
        let found = page_of(lead, pairs.as_ref(), filter, before, wanted).query(link).await?;
        for row in &found {
            match record(row) {
                Ok(record) => page.push(record),
                Err(error) => unreadable.note_job(rows::job_id(row, 0)?, &error),
            }
        }
        match found.last() {
            // Unreadable jobs are replaced by later ones.
            Some(last) if page.len() < limit && found.len() >= wanted => {
                before = Some(Cursor { submitted_at: rows::time(last, 9)?, id: rows::job_id(last, 0)? });
                wanted = (limit - page.len()).max(MORE);
            }
            Some(_) | None => {
                page.truncate(limit);
                return Ok(page);
            }
        }
    }
}

fn page_of(lead: Lead, pairs: Option<&Pairs>, filter: &JobFilter, before: Option<Cursor>, limit: usize) -> Statement {
    let mut statement = Statement::default();
    statement.push("SELECT ").push(RECORD).push(" FROM ");
    match (lead, pairs) {
        (Lead::Tag(place), _) => {
            statement.push("tags JOIN jobs ON jobs.key = tags.job WHERE tags.name = ");
            by_tag(&mut statement, &filter.tags[place]);
            rest(&mut statement, filter, lead, "tags", before);
            end(&mut statement, "tags", limit);
        }
        (Lead::States, Some(Pairs { states, kinds })) => {
            statement.push("unnest(").value(states.clone()).push("::text[], ").value(kinds.clone());
            statement.push("::text[]) AS pair (state, kind) CROSS JOIN LATERAL (SELECT * FROM jobs ");
            statement.push("WHERE jobs.state = pair.state AND jobs.kind = pair.kind");
            rest(&mut statement, filter, lead, "jobs", before);
            end(&mut statement, "jobs", limit);
            statement.push(") AS jobs");
            end(&mut statement, "jobs", limit);
        }
        (Lead::States | Lead::Nothing, _) => {
            statement.push("jobs WHERE true");
            rest(&mut statement, filter, lead, "jobs", before);
            end(&mut statement, "jobs", limit);
        }
    }
    statement
}

/// Number of jobs that a filter finds among those submitted at `since` or later.
pub(crate) async fn count(link: &Link, filter: &JobFilter, since: Option<Timestamp>) -> Result<u64, DbError> {
    let pairs = pairs(link, filter).await?;
    let lead = choose(link, filter, pairs.as_ref()).await?;
    let mut statement = Statement::default();
    statement.push("SELECT count(*) FROM ");
    match (lead, &pairs) {
        (Lead::Tag(place), _) => {
            statement.push("tags JOIN jobs ON jobs.key = tags.job WHERE tags.name = ");
            by_tag(&mut statement, &filter.tags[place]);
            not_before(&mut statement, "tags", since);
            rest(&mut statement, filter, lead, "tags", None);
        }
        (Lead::States, Some(Pairs { states, kinds })) => {
            statement.push("unnest(").value(states.clone()).push("::text[], ").value(kinds.clone());
            statement
                .push("::text[]) AS pair (state, kind) JOIN jobs ON jobs.state = pair.state AND jobs.kind = pair.kind");
            statement.push(" WHERE true");
            not_before(&mut statement, "jobs", since);
            rest(&mut statement, filter, lead, "jobs", None);
        }
        (Lead::States | Lead::Nothing, _) => {
            statement.push("jobs WHERE true");
            not_before(&mut statement, "jobs", since);
            rest(&mut statement, filter, lead, "jobs", None);
        }
    }
    let rows = statement.query(link).await?;
    rows.first().map_or(Ok(0), |row| rows::count(row, 0))
}

fn not_before(statement: &mut Statement, ordered: &str, since: Option<Timestamp>) {
    if let Some(since) = since {
        statement.push(&format!(" AND {ordered}.submitted_at >= ")).value(since.column());
    }
}

fn by_tag(statement: &mut Statement, (name, value): &(String, Option<String>)) {
    statement.value(clean(name));
    if let Some(value) = value {
        statement.push(" AND tags.value = ").value(clean(value));
    }
}

/// No stored text has a zero in it.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn end(statement: &mut Statement, ordered: &str, limit: usize) {
    statement.push(&format!(" ORDER BY {ordered}.submitted_at DESC, {ordered}.id DESC LIMIT "));
    statement.value((limit as u64).column());
}

/// The place of the page, and the parts of the filter that do not lead.
fn rest(statement: &mut Statement, filter: &JobFilter, lead: Lead, ordered: &str, before: Option<Cursor>) {
    if let Some(Cursor { submitted_at, id }) = before {
        statement.push(&format!(" AND ({ordered}.submitted_at, {ordered}.id) < ("));
        statement.value(submitted_at.column()).push(", ").value(id.0).push(")");
    }
    if lead != Lead::States {
        if !filter.states.is_empty() {
            let states: Vec<_> = filter.states.iter().map(|state| state.stored_name().to_owned()).collect();
            statement.push(" AND jobs.state = ANY(").value(states).push("::text[])");
        }
        if let Some(kind) = filter.kind {
            statement.push(" AND jobs.kind = ").value(kind.as_str().to_owned());
        }
    }
    for (place, (name, value)) in filter.tags.iter().enumerate() {
        if lead == Lead::Tag(place) {
            continue;
        }
        // A step down an index for each tag: a tag's rows hold their job's time and id.
        statement.push(
            " AND EXISTS (SELECT 1 FROM tags AS other WHERE other.submitted_at = jobs.submitted_at \
             AND other.id = jobs.id AND other.name = ",
        );
        statement.value(clean(name));
        if let Some(value) = value {
            statement.push(" AND other.value = ").value(clean(value));
        }
        // The offset keeps the planner from reading all jobs of the tag instead.
        statement.push(" OFFSET 0)");
    }
}

/// The pairs of a filter; `None` if it names neither state nor kind.
async fn pairs(link: &Link, filter: &JobFilter) -> Result<Option<Pairs>, DbError> {
    /// A step down the index for each kind of each state.
    const KINDS: &str = "WITH RECURSIVE pair (state, kind) AS (\
         SELECT state, (SELECT min(kind) FROM jobs WHERE jobs.state = wanted.state) FROM unnest($1::text[]) AS wanted (state) \
         UNION ALL SELECT state, (SELECT min(kind) FROM jobs WHERE jobs.state = pair.state AND jobs.kind > pair.kind) \
         FROM pair WHERE kind IS NOT NULL) SELECT state, kind FROM pair WHERE kind IS NOT NULL";
    if filter.states.is_empty() && filter.kind.is_none() {
        return Ok(None);
    }
    let wanted = |state: &&JobState| filter.states.is_empty() || filter.states.contains(state);
    let states: Vec<String> =
        <JobState as StoredName>::ALL.iter().filter(wanted).map(|state| state.stored_name().to_owned()).collect();
    if let Some(kind) = filter.kind {
        let kinds = vec![JobKind::as_str(&kind).to_owned(); states.len()];
        return Ok(Some(Pairs { states, kinds }));
    }
    let mut pairs = Pairs { states: Vec::new(), kinds: Vec::new() };
    for row in link.query(KINDS, &[&states]).await? {
        pairs.states.push(rows::get(&row, 0)?);
        pairs.kinds.push(rows::get(&row, 1)?);
    }
    Ok(Some(pairs))
}

async fn choose(link: &Link, filter: &JobFilter, pairs: Option<&Pairs>) -> Result<Lead, DbError> {
    const OF_PAIRS: &str = "SELECT coalesce(sum(counted), 0)::bigint FROM \
         unnest($1::text[], $2::text[]) AS pair (state, kind) CROSS JOIN LATERAL (SELECT count(*) AS counted FROM \
         (SELECT 1 FROM jobs WHERE jobs.state = pair.state AND jobs.kind = pair.kind LIMIT $3) AS part) AS counts";
    const OF_NAME: &str = "SELECT count(*) FROM (SELECT 1 FROM tags WHERE name = $1 LIMIT $2) AS part";
    const OF_TAG: &str = "SELECT count(*) FROM (SELECT 1 FROM tags WHERE name = $1 AND value = $2 LIMIT $3) AS part";
    match (pairs, filter.tags.len()) {
        (None, 0) => return Ok(Lead::Nothing),
        (None, 1) => return Ok(Lead::Tag(0)),
        (Some(_), 0) => return Ok(Lead::States),
        _ => {}
    }
    let mut smallest = (u64::MAX, Lead::Nothing);
    for (place, (name, value)) in filter.tags.iter().enumerate() {
        let counted = match value {
            Some(value) => link.query_opt(OF_TAG, &[&clean(name), &clean(value), &COUNTED]).await?,
            None => link.query_opt(OF_NAME, &[&clean(name), &COUNTED]).await?,
        };
        let count = counted.map_or(Ok(0), |row| rows::count(&row, 0))?;
        if count < smallest.0 {
            smallest = (count, Lead::Tag(place));
        }
    }
    if let Some(Pairs { states, kinds }) = pairs {
        let counted = link.query_opt(OF_PAIRS, &[states, kinds, &COUNTED]).await?;
        if counted.map_or(Ok(0), |row| rows::count(&row, 0))? < smallest.0 {
            smallest.1 = Lead::States;
        }
    }
    Ok(smallest.1)
}
