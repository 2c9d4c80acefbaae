//! Plans the rows that a part of a batch brings, in memory, by the rules that every store shares, to be written by a few
//! statements with a column of values each.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use model::{EventSource, JobId, ProgramHash, uploaded_programs};
use store::retention::{failure_bytes, job_bytes, log_bytes};
use store::rules::{
    AttemptRow, EventRow, FailureRow, JobLedger, KeptFailure, Ledgers, ResultEffect, omit_failures, pieces,
    result_bytes, submitted, without_effect,
};
use store::statistics::{Subject, Tally};
use store::stored::{options_to_stored, work_to_stored};
use store::{
    Advance, Answer, Change, CompletedAttempt, NewJob, Position, ResultBody, Submission, TaskLog, array, missing,
    payload_blocks,
};
use uuid::Uuid;

use crate::columns::{Attempts, Events, Jobs, Payloads, Results, Spans, Tags, Updates};
use crate::error::DbError;
use crate::ids::Ids;
use crate::link::Step;
use crate::positions::Positions;
use crate::programs;
use crate::rows::Column;

/// A writer's knowledge of a job beside its ledger.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) key: i64,
    pub(crate) result: Option<KnownResult>,
}

/// A result that a job has.
#[derive(Clone, Debug)]
pub(crate) struct KnownResult {
    pub(crate) bytes: u64,
    pub(crate) object: Option<String>,
}

/// A job that is stored under an id or an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Same {
    pub(crate) job: JobId,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) submitted_at: i64,
}

/// The rows that were read for a part of a batch.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) jobs: HashMap<JobId, (Known, JobLedger)>,
    pub(crate) by_id: HashMap<JobId, Same>,
    pub(crate) by_key: HashMap<String, Same>,
    pub(crate) positions: HashMap<String, Position>,
    /// Kept failures, by job and first task.
    pub(crate) failures: HashMap<(JobId, u64), Vec<KeptFailure>>,
    /// The existing programs of the submissions.
    pub(crate) programs: HashSet<ProgramHash>,
}

/// The rows so far.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    pub(crate) jobs: Jobs<'a>,
    pub(crate) tags: Tags<'a>,
    pub(crate) payloads: Payloads,
    pub(crate) updates: Updates<'a>,
    pub(crate) spans: Spans,
    pub(crate) attempts: Attempts<'a>,
    pub(crate) results: Results<'a>,
    pub(crate) dropped_objects: Vec<String>,
    pub(crate) positions: Positions,
    /// Logs, a step each: they follow the jobs' rows.
    pub(crate) logs: Vec<Step<'a>>,
    pub(crate) events: Events<'a>,
    pub(crate) tally: Tally,
    /// Jobs that are new in the batch.
    fresh: HashMap<JobId, (i64, &'a NewJob, u64)>,
}

/// PostgreSQL has no text with a zero in it.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

impl<'a> Plan<'a> {
    /// Accepts a job. If the batch may be in the store already, an identical stored job counts as new.
    pub(crate) fn submit(
        &mut self,
        new: &'a NewJob,
        source: Option<&'a EventSource>,
        loaded: &mut Loaded,
        keys: &mut Ids,
        may_be_stored: bool,
    ) -> Result<Answer, DbError> {
        if let Some(answer) = find_same(new, loaded, may_be_stored) {
            return Ok(answer);
        }
        let payloads = &new.payloads;
        if !payloads.is_empty() && payloads.len() as u64 != new.tasks {
            return Ok(Answer::Refused(format!("{} payloads for {} tasks", payloads.len(), new.tasks)));
        }
        let names = [&new.idempotency_key, &new.options.output];
        if names.into_iter().flatten().any(|name| name.contains('\0')) {
            return Ok(Answer::Refused("a name has a zero in it".to_owned()));
        }
        let programs = uploaded_programs(new.kind, new.params.get());
        if let Some(program) = programs.into_iter().find(|program| !loaded.programs.contains(program)) {
            return Ok(Answer::Refused(missing(program)));
        }
        let key = keys.take()?;
        let options = options_to_stored(&new.options);
        let work = work_to_stored(new.is_individual);
        let bytes = job_bytes(new, options.len(), work.len());
        let subject = Subject::of(new);
        self.jobs.push(key, new, &subject, work, options, bytes);
        for (name, value) in &new.options.tags {
            self.tags.push(key, clean(name), clean(value), new);
        }
        for places in payload_blocks(payloads) {
            let (first, beyond) = (places.start as u64, places.end as u64);
            self.payloads.push(key, first.column(), beyond.column(), payloads.array(places));
        }
        self.put_event(key, Some(&subject), &EventRow { source, ..submitted(new) });
        self.fresh.insert(new.id, (key, new, bytes));
        let same = Same { job: new.id, fingerprint: new.fingerprint.to_vec(), submitted_at: new.submitted_at.column() };
        if let Some(name) = &new.idempotency_key {
            loaded.by_key.insert(name.clone(), same.clone());
        }
        loaded.by_id.insert(new.id, same);
        Ok(Answer::Submitted(Submission::New))
    }

    /// Moves a position, with its job.
    pub(crate) fn advance(
        &mut self,
        advance: &'a Advance,
        loaded: &mut Loaded,
        keys: &mut Ids,
    ) -> Result<Answer, DbError> {
        let position = loaded.positions.get(&advance.stream).copied().unwrap_or_default();
        if position.next != advance.from {
            return Ok(Answer::Elsewhere(position));
        }
        let answer = match &advance.job {
            Some((new, source)) => self.submit(new, Some(source), loaded, keys, false)?,
            None => Answer::Done,
        };
        if matches!(answer, Answer::Done | Answer::Submitted(_)) {
            loaded.positions.insert(advance.stream.clone(), advance.to);
            self.positions.put(&advance.stream, advance.to);
        }
        Ok(answer)
    }

    /// Keeps a log, which counts in the size of its job.
    pub(crate) fn log(
        &mut self,
        log: &'a TaskLog,
        ledgers: &mut Ledgers<Known>,
        loaded: &mut Loaded,
    ) -> Result<Answer, DbError> {
        let known = ledgers.find(log.job, || Ok::<_, DbError>(loaded.jobs.remove(&log.job)))?;
        let is_counted = known.is_some();
        if let Some((_, ledger)) = known {
            ledger.grew(log_bytes(log));
        }
        self.logs.push(programs::put_log(log, is_counted));
        Ok(Answer::Done)
    }

    /// Makes a change.
    pub(crate) fn change(
        &mut self,
        change: &'a Change,
        ledgers: &mut Ledgers<Known>,
        loaded: &mut Loaded,
        ids: &mut Ids,
    ) -> Result<Answer, DbError> {
        let fresh = &self.fresh;
        let found = ledgers.find(change.job, || {
            let of_batch = fresh.get(&change.job).map(|&(key, new, bytes)| {
                (Known { key, result: None }, JobLedger::new(Subject::of(new), new.is_individual, new.tasks, bytes))
            });
            Ok::<_, DbError>(of_batch.or_else(|| loaded.jobs.remove(&change.job)))
        })?;
        let Some((known, ledger)) = found else {
            self.abandon(&without_effect(change).result);
            return Ok(Answer::Done);
        };
        let effects = match ledger.apply(change) {
            Ok(effects) => effects,
            Err(refused) => return Ok(Answer::Refused(refused.to_string())),
        };
        match &effects.attempt {
            None => {}
            Some(AttemptRow::Completed { tasks, outcome }) => {
                for (piece, answers) in pieces(tasks).zip(answers_of(outcome)) {
                    self.attempts.push_completed(known.key, &piece, ids.take()?, outcome, answers);
                }
            }
            Some(AttemptRow::Failed(failure)) => {
                let failures = &mut loaded.failures;
                ledger.freed(self.attempts.put_failed(known.key, change.job, failure, ids, failures)?);
            }
        }
        match &effects.result {
            ResultEffect::Keep | ResultEffect::Abandon(_) => {}
            ResultEffect::Drop => self.put_result(known, ledger, None),
            ResultEffect::Put(result) => self.put_result(known, ledger, Some(result)),
        }
        self.abandon(&effects.result);
        let key = known.key;
        if let Some(event) = &effects.event {
            self.put_event(key, Some(&ledger.subject), event);
        }
        Ok(Answer::Done)
    }

    fn abandon(&mut self, effect: &ResultEffect<'_>) {
        if let ResultEffect::Abandon(object) = effect {
            self.dropped_objects.push((*object).to_owned());
        }
    }

    /// Puts a result, or none, in place of the job's present one.
    fn put_result(&mut self, known: &mut Known, ledger: &mut JobLedger, result: Option<&'a ResultBody>) {
        if let Some(before) = known.result.take() {
            ledger.freed(before.bytes);
            self.dropped_objects.extend(before.object);
        }
        known.result = result.map(|result| KnownResult {
            bytes: result_bytes(result),
            object: match result {
                ResultBody::Inline(_) => None,
                ResultBody::Object(object) => Some(object.name.clone()),
            },
        });
        self.results.put(known.key, result);
    }

    pub(crate) fn put_event(&mut self, key: i64, subject: Option<&Subject>, event: &EventRow<'a>) {
        if let Some(subject) = subject {
            self.tally.count(subject, event.at, &event.counts);
        }
        self.events.push(key, event, event.error.map(clean));
    }

    /// Takes the rows of the ledgers that have changed.
    pub(crate) fn take_touched(&mut self, ledgers: &mut Ledgers<Known>) {
        let (updates, spans) = (&mut self.updates, &mut self.spans);
        let visited: Result<(), std::convert::Infallible> = ledgers.visit_touched(|known, ledger| {
            for (kind, first, span) in ledger.take_changed_spans() {
                spans.push(known.key, kind, first, span);
            }
            updates.push(known.key, ledger);
            Ok(())
        });
        let Ok(()) = visited;
    }
}

/// The answers of each piece of an attempt; none if the worker had no answers.
fn answers_of(outcome: &CompletedAttempt) -> impl Iterator<Item = Option<String>> {
    let mut answers = outcome.results.chunks(store::rules::ATTEMPT_TASKS as usize);
    std::iter::from_fn(move || Some(answers.next().map(array)))
}

/// Whether the same request, or another with its id or key, was accepted before.
fn find_same(new: &NewJob, loaded: &Loaded, may_be_stored: bool) -> Option<Answer> {
    let by_id = loaded.by_id.get(&new.id);
    let by_key = new.idempotency_key.as_ref().and_then(|key| loaded.by_key.get(key));
    let mut found = None;
    for same in [by_id, by_key].into_iter().flatten() {
        if same.fingerprint != new.fingerprint {
            return Some(Answer::Mismatch(same.job));
        }
        let is_this = may_be_stored && same.job == new.id && same.submitted_at == new.submitted_at.column();
        let submission = if is_this { Submission::New } else { Submission::Existing(same.job) };
        found = Some(Answer::Submitted(submission));
    }
    found
}

impl<'a> Attempts<'a> {
    /// Writes a failed attempt. Returns the bytes of rows that made room.
    fn put_failed(
        &mut self,
        key: i64,
        job: JobId,
        failure: &FailureRow<'a>,
        ids: &mut Ids,
        failures: &mut HashMap<(JobId, u64), Vec<KeptFailure>>,
    ) -> Result<u64, DbError> {
        let (worker, error) = (clean(failure.worker), clean(failure.error));
        let mut freed = 0;
        for piece in pieces(&failure.tasks) {
            let row = ids.take()?;
            let bytes = failure_bytes(failure.worker.len() as u64, failure.error.len() as u64);
            self.push_failed(key, &piece, row, failure, worker.clone(), error.clone());
            let kept = failures.entry((job, piece.start)).or_default();
            kept.push(KeptFailure { row, bytes, omitted: 0 });
            if let Some(omitted) = omit_failures(kept) {
                self.omit(key, piece.start, &omitted);
                freed += omitted.bytes;
            }
        }
        Ok(freed)
    }
}

/// The id as a column.
pub(crate) fn uuid(job: JobId) -> Uuid {
    job.0
}
