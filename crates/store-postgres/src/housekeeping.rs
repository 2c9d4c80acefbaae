//! Deletes rows that are no longer kept, in parts, within the writer's transaction.

use jiff::Timestamp;
use model::JobId;
use store::rules::{RowTasks, canceled_unread};
use store::statistics::Subject;
use store::{Housekeeping, JobKey};

use crate::error::DbError;
use crate::link::Link;
use crate::plan::Plan;
use crate::rows::Column;
use crate::{rows, statistics};

/// Hides those of the jobs that are still over, and counts their unpublished events ([`store::OUTBOX`], [`store::OUTBOX_LOST`]).
const FORGET: &str = "WITH gone AS (DELETE FROM jobs WHERE key = ANY($1::bigint[]) AND finished_at IS NOT NULL \
     RETURNING key, id), noted AS (INSERT INTO swept (job, id) SELECT key, id FROM gone), \
     untagged AS (DELETE FROM tags WHERE job IN (SELECT key FROM gone)), \
     dropped AS (DELETE FROM results WHERE job IN (SELECT key FROM gone) RETURNING object), \
     objects AS (INSERT INTO dropped_objects (object) SELECT object FROM dropped WHERE object IS NOT NULL \
     ON CONFLICT DO NOTHING), \
     lost AS (SELECT count(*) AS events FROM events WHERE job IN (SELECT key FROM gone) \
     AND seq >= (SELECT next FROM positions WHERE stream = 'outbox')), \
     counted AS (INSERT INTO positions (stream, next, mark) SELECT 'outbox.lost', events, 0 FROM lost WHERE events > 0 \
     ON CONFLICT (stream) DO UPDATE SET next = positions.next + excluded.next) SELECT count(*) FROM gone";
/// Rows of each table that are deleted in one transaction: some 10 ms.
const SWEEP: &str = "WITH a AS (DELETE FROM attempts WHERE ctid = ANY(ARRAY(SELECT ctid FROM attempts WHERE job = $1 \
     AND EXISTS (SELECT 1 FROM swept WHERE job = $1) LIMIT 2000)) RETURNING 1), \
     p AS (DELETE FROM payloads WHERE ctid = ANY(ARRAY(SELECT ctid FROM payloads WHERE job = $1 \
     AND EXISTS (SELECT 1 FROM swept WHERE job = $1) LIMIT 2000)) RETURNING 1), \
     e AS (DELETE FROM events WHERE ctid = ANY(ARRAY(SELECT ctid FROM events WHERE job = $1 \
     AND EXISTS (SELECT 1 FROM swept WHERE job = $1) LIMIT 2000)) RETURNING 1), \
     s AS (DELETE FROM spans WHERE ctid = ANY(ARRAY(SELECT ctid FROM spans WHERE job = $1 \
     AND EXISTS (SELECT 1 FROM swept WHERE job = $1) LIMIT 2000)) RETURNING 1), \
     l AS (DELETE FROM logs WHERE ctid = ANY(ARRAY(SELECT ctid FROM logs WHERE job = $1 \
     AND EXISTS (SELECT 1 FROM swept WHERE job = $1) LIMIT 2000)) RETURNING 1) \
     SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM p) + (SELECT count(*) FROM e) + (SELECT count(*) FROM s) \
     + (SELECT count(*) FROM l)";
const SWEPT: &str = "DELETE FROM swept WHERE job = $1";
const OBJECTS_DELETED: &str =
    "WITH gone AS (DELETE FROM dropped_objects WHERE object = ANY($1::text[]) RETURNING 1) SELECT count(*) FROM gone";

const CANCEL_UNREAD: &str = "UPDATE jobs SET state = 'canceled', finished_at = $2 WHERE id = $1 AND finished_at IS NULL \
     RETURNING key, tasks_done, tasks_failed, tasks, uncounted, kind, task, submitted_at";

/// Cancels an unreadable job by the columns that can be read. Returns the number of jobs.
pub(crate) async fn cancel_unread<'a>(
    link: &Link,
    plan: &mut Plan<'a>,
    job: JobId,
    at: Timestamp,
    why: &'a str,
) -> Result<u64, DbError> {
    let Some(row) = link.query_opt(CANCEL_UNREAD, &[&job.0, &at.column()]).await? else { return Ok(0) };
    let number = |column| rows::about(&row, column).unwrap_or(0);
    let tasks = RowTasks { done: number(1), failed: number(2), total: number(3) };
    let (key, uncounted) = (rows::get::<i64>(&row, 0)?, rows::counts(&row, 4));
    if uncounted.is_ok() {
        link.query("UPDATE jobs SET uncounted = NULL WHERE key = $1", &[&key]).await?;
    }
    let event = canceled_unread(at, why, tasks, uncounted.unwrap_or_default());
    let subject = match (rows::parse(&row, 5), rows::get(&row, 6), rows::time(&row, 7)) {
        (Ok(kind), Ok(task), Ok(submitted_at)) => Some(Subject { kind, task, submitted_at }),
        // The event has no figures: its kind cannot be read.
        _ => None,
    };
    plan.put_event(key, subject.as_ref(), &event);
    Ok(1)
}

/// Returns the number of deleted jobs, rows or names.
pub(crate) async fn housekeep(link: &Link, housekeeping: &Housekeeping) -> Result<u64, DbError> {
    let counted = match housekeeping {
        Housekeeping::Forget(keys) => {
            let keys: Vec<i64> = keys.iter().map(|key| key.0).collect();
            link.query_opt(FORGET, &[&keys]).await?
        }
        Housekeeping::Sweep(JobKey(key)) => link.query_opt(SWEEP, &[key]).await?,
        Housekeeping::ForgetStatistics(grain, before) => return statistics::forget(link, *grain, *before).await,
        Housekeeping::CancelUnread { .. } => return Ok(0),
        Housekeeping::ObjectsDeleted(names) => link.query_opt(OBJECTS_DELETED, &[names]).await?,
    };
    let count = counted.map_or(Ok(0), |row| rows::count(&row, 0))?;
    if let (Housekeeping::Sweep(JobKey(key)), 0) = (housekeeping, count) {
        link.query(SWEPT, &[key]).await?;
    }
    Ok(count)
}
