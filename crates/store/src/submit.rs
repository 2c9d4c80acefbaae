//! Accepting a job: its row, tags, payloads and first event.

use model::{EventKind, JobId, JobState, JobWork};
use rusqlite::Connection;

use crate::apply::put_event;
use crate::column::{self, Column};
use crate::json::array;
use crate::queue::Done;
use crate::record::{NewJob, Submission};

/// Most payloads in one block, and about the most bytes: what reading one task costs.
const BLOCK_TASKS: usize = 512;
const BLOCK_BYTES: usize = 256 * 1024;

pub(crate) fn insert(db: &Connection, new: &NewJob) -> rusqlite::Result<Done> {
    if let Some(done) = find_same(db, new)? {
        return Ok(done);
    }
    let payloads = &new.job.payloads;
    let is_individual = matches!(new.job.work, JobWork::Tasks { .. });
    if is_individual && payloads.len() as u64 != new.tasks {
        return Ok(Done::Refused(format!("{} payloads for {} tasks", payloads.len(), new.tasks)));
    }
    let options = to_json(&new.job.options)?;
    let params = new.params.get();
    let texts =
        options.len() + 2 * params.len() + payloads.iter().map(|payload| payload.get().len() + 1).sum::<usize>();
    let submitted_at = new.submitted_at.column();
    db.prepare_cached(
        "INSERT INTO jobs (id, kind, work, params, options, fingerprint, idempotency_key, output, state, tasks,
         tasks_done, tasks_failed, value, bytes, submitted_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, '0', ?11, ?12)",
    )?
    .execute((
        new.id.0.as_bytes(),
        new.job.work.kind().as_str(),
        work_to_json(&new.job.work)?,
        params,
        options,
        new.fingerprint.as_slice(),
        &new.idempotency_key,
        &new.job.options.output,
        JobState::Queued.as_str(),
        new.tasks.column(),
        (texts as u64).column(),
        submitted_at,
    ))?;
    let key = db.last_insert_rowid();
    let mut tag =
        db.prepare_cached("INSERT INTO tags (job, name, value, submitted_at, id) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (name, value) in &new.job.options.tags {
        tag.execute((key, name, value, submitted_at, new.id.0.as_bytes()))?;
    }
    put_payloads(db, key, new)?;
    put_event(db, key, EventKind::Submitted, new.submitted_at, (0, new.tasks), None)?;
    Ok(Done::Submitted(Submission::New))
}

/// Whether the same request, or another under its names, was accepted before.
fn find_same(db: &Connection, new: &NewJob) -> rusqlite::Result<Option<Done>> {
    let mut by_id = db.prepare_cached("SELECT id, fingerprint FROM jobs WHERE id = ?1")?;
    let mut by_key = db.prepare_cached("SELECT id, fingerprint FROM jobs WHERE idempotency_key = ?1")?;
    let mut found = None;
    for mut rows in [by_id.query([new.id.0.as_bytes()])?, by_key.query([&new.idempotency_key])?] {
        if let Some(row) = rows.next()? {
            let existing: JobId = column::job_id(row, 0)?;
            if row.get_ref(1)?.as_blob()? != new.fingerprint {
                return Ok(Some(Done::Mismatch(existing)));
            }
            found = Some(Done::Submitted(Submission::Existing(existing)));
        }
    }
    Ok(found)
}

fn put_payloads(db: &Connection, key: i64, new: &NewJob) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached("INSERT INTO payloads (job, first, beyond, list) VALUES (?1, ?2, ?3, ?4)")?;
    let payloads = &new.job.payloads;
    let mut first = 0;
    while first < payloads.len() {
        let mut bytes = 0;
        let sizes = payloads[first..].iter().take(BLOCK_TASKS).map(|payload| payload.get().len());
        let fitting = sizes.take_while(|size| {
            bytes += size;
            bytes <= BLOCK_BYTES
        });
        let count = fitting.count().max(1);
        let beyond = first + count;
        insert.execute((key, (first as u64).column(), (beyond as u64).column(), array(&payloads[first..beyond])))?;
        first = beyond;
    }
    Ok(())
}

fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn work_to_json(work: &JobWork) -> rusqlite::Result<String> {
    match work {
        JobWork::SumOfPrimes(range) | JobWork::CountPrimes(range) => to_json(range),
        JobWork::Sleep(params) => to_json(params),
        JobWork::Tasks { count } => to_json(count),
    }
}
