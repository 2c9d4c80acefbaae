//! Pages of figures. Rows of weeks and months are sums of days.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::Grain;

use super::{PeriodKey, PeriodRow, Query, TaskKey, TaskRow};
use crate::backend::Reading;
use crate::error::ReadError;

/// Rows of days that are read at once.
const DAYS: usize = 1000;

/// A row that rows of shorter periods add up to.
pub(crate) trait Summed: Clone {
    /// The row's place in the order of rows.
    type Key: Clone + Ord;

    /// See [`Self::Key`].
    fn key(&self) -> Self::Key;

    /// Start of the period of a key.
    fn start_of(key: &Self::Key) -> Timestamp;

    /// Start of the row's period.
    fn start(&self) -> Timestamp;

    /// The row with its period moved to `start`.
    fn at(self, start: Timestamp) -> Self;

    /// Adds a later row.
    fn add(&mut self, later: &Self);
}

impl Summed for PeriodRow {
    type Key = PeriodKey;

    fn key(&self) -> PeriodKey {
        (self.start, self.kind)
    }

    fn start_of(key: &PeriodKey) -> Timestamp {
        key.0
    }

    fn start(&self) -> Timestamp {
        self.start
    }

    fn at(self, start: Timestamp) -> Self {
        Self { start, ..self }
    }

    fn add(&mut self, later: &Self) {
        self.counts.add(&later.counts);
        (self.counts.jobs_pending, self.counts.tasks_pending) = (later.counts.jobs_pending, later.counts.tasks_pending);
    }
}

impl Summed for TaskRow {
    type Key = TaskKey;

    fn key(&self) -> TaskKey {
        (self.start, self.kind, self.task.clone())
    }

    fn start_of(key: &TaskKey) -> Timestamp {
        key.0
    }

    fn start(&self) -> Timestamp {
        self.start
    }

    fn at(self, start: Timestamp) -> Self {
        Self { start, ..self }
    }

    fn add(&mut self, later: &Self) {
        self.starts += later.starts;
    }
}

/// At most `limit` rows after a key, in order, by a reader of stored rows. The range of the query is widened to begin with a
/// whole period.
pub(crate) async fn page<'a, R: Summed>(
    query: Query,
    after: Option<R::Key>,
    limit: usize,
    read: impl Fn(Query, Option<R::Key>, usize) -> Reading<'a, Vec<R>>,
) -> Result<Vec<R>, ReadError> {
    let grain = query.grain;
    let start = grain.start_of(query.starts.start);
    if grain.stored() == grain {
        return read(Query { starts: start..query.starts.end, ..query }, after, limit).await;
    }
    // The last period begins in the range and ends behind it.
    let end = last_before(query.starts.end).map_or(query.starts.end, |last| grain.end_of(last));
    let start = after.as_ref().map_or(start, |after| start.max(R::start_of(after)));
    let days = Query { grain: Grain::Day, starts: start..end, ..query };
    let mut rows: BTreeMap<R::Key, R> = BTreeMap::new();
    let mut last_day: Option<R::Key> = None;
    loop {
        let some = read(days.clone(), last_day, DAYS).await?;
        let is_last = some.len() < DAYS;
        let unfinished = some.last().map(|row| grain.start_of(row.start()));
        last_day = some.last().map(Summed::key);
        for row in some {
            let start = grain.start_of(row.start());
            let row = row.at(start);
            let key = row.key();
            if after.as_ref().is_some_and(|after| key <= *after) {
                continue;
            }
            rows.entry(key).and_modify(|sum| sum.add(&row)).or_insert(row);
        }
        let finished = rows.values().filter(|row| Some(row.start()) < unfinished).count();
        if is_last || finished >= limit {
            return Ok(rows.into_values().take(limit).collect());
        }
    }
}

fn last_before(end: Timestamp) -> Option<Timestamp> {
    end.checked_sub(jiff::SignedDuration::from_nanos(1)).ok()
}
