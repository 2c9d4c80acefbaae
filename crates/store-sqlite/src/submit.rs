//! Writes a job: its row, tags, payloads and first event.

use model::{EventSource, JobId, JobState, uploaded_programs};
use rusqlite::Connection;
use store::retention::job_bytes;
use store::rules::{EventRow, submitted};
use store::statistics::{Subject, Tally};
use store::stored::{StoredName, options_to_stored, work_to_stored};
use store::{Answer, NewJob, Submission, missing, payload_blocks};

use crate::apply::put_event;
use crate::column::{self, Column};
use crate::programs;

pub(crate) fn insert(
    db: &Connection,
    tally: &mut Tally,
    new: &NewJob,
    source: Option<&EventSource>,
) -> rusqlite::Result<Answer> {
    if let Some(answer) = find_same(db, new)? {
        return Ok(answer);
    }
    let payloads = &new.payloads;
    if !payloads.is_empty() && payloads.len() as u64 != new.tasks {
        return Ok(Answer::Refused(format!("{} payloads for {} tasks", payloads.len(), new.tasks)));
    }
    for program in uploaded_programs(new.kind, new.params.get()) {
        if !programs::is_there(db, program)? {
            return Ok(Answer::Refused(missing(program)));
        }
    }
    let options = options_to_stored(&new.options);
    let work = work_to_stored(new.is_individual);
    let submitted_at = new.submitted_at.column();
    let subject = Subject::of(new);
    db.prepare_cached(
        "INSERT INTO jobs (id, kind, work, params, options, fingerprint, idempotency_key, output, state, tasks,
         tasks_done, tasks_failed, value, bytes, submitted_at, task)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, '0', ?11, ?12, ?13)",
    )?
    .execute((
        new.id.0.as_bytes(),
        new.kind.as_str(),
        &work,
        new.params.get(),
        &options,
        new.fingerprint.as_slice(),
        &new.idempotency_key,
        &new.options.output,
        JobState::Queued.stored_name(),
        new.tasks.column(),
        job_bytes(new, options.len(), work.len()).column(),
        submitted_at,
        &subject.task,
    ))?;
    let key = db.last_insert_rowid();
    let mut tag =
        db.prepare_cached("INSERT INTO tags (job, name, value, submitted_at, id) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (name, value) in &new.options.tags {
        tag.execute((key, name, value, submitted_at, new.id.0.as_bytes()))?;
    }
    let mut block = db.prepare_cached("INSERT INTO payloads (job, first, beyond, list) VALUES (?1, ?2, ?3, ?4)")?;
    for places in payload_blocks(payloads) {
        let (first, beyond) = (places.start as u64, places.end as u64);
        block.execute((key, first.column(), beyond.column(), payloads.array(places)))?;
    }
    put_event(db, tally, key, &subject, &EventRow { source, ..submitted(new) })?;
    Ok(Answer::Submitted(Submission::New))
}

/// Whether the same request, or another with its id or key, was accepted before.
fn find_same(db: &Connection, new: &NewJob) -> rusqlite::Result<Option<Answer>> {
    let mut by_id = db.prepare_cached("SELECT id, fingerprint FROM jobs WHERE id = ?1")?;
    let mut by_key = db.prepare_cached("SELECT id, fingerprint FROM jobs WHERE idempotency_key = ?1")?;
    let mut found = None;
    for mut rows in [by_id.query([new.id.0.as_bytes()])?, by_key.query([&new.idempotency_key])?] {
        if let Some(row) = rows.next()? {
            let existing: JobId = column::job_id(row, 0)?;
            if row.get_ref(1)?.as_blob()? != new.fingerprint {
                return Ok(Some(Answer::Mismatch(existing)));
            }
            found = Some(Answer::Submitted(Submission::Existing(existing)));
        }
    }
    Ok(found)
}
