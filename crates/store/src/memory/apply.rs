//! Applies a batch, entry by entry. Nothing fails half way, so nothing has to be rolled back.

use std::sync::Arc;

use model::{EventSource, JobEvent, ProgramHash, uploaded_programs};

use super::state::{CommittedState, StoredAttempt, StoredJob};
use crate::backend::{Applied, BatchError};
use crate::batch::{Answer, Batch, Entry, Housekeeping, JobKey};
use crate::change::{Change, CompletedAttempt, ResultBody};
use crate::drains::{Drain, DrainChange};
use crate::error::WriteError;
use crate::position::{Advance, OUTBOX, OUTBOX_LOST};
use crate::programs::{ProgramChange, TaskLog, in_use, missing};
use crate::record::{AttemptEnd, NewJob, Submission};
use crate::retention::{failure_bytes, job_bytes, log_bytes};
use crate::rules::{
    ATTEMPT_TASKS, AttemptRow, EventRow, FIRST_FAILURES, FailureRow, JobLedger, LAST_FAILURES, ResultEffect, pieces,
    result_bytes, submitted, without_effect,
};
use crate::statistics::Subject;
use crate::stored::{options_to_stored, work_to_stored};

impl CommittedState {
    pub(super) fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError> {
        if batch.epoch != self.epoch() {
            return Err(BatchError::Superseded { current: self.epoch() });
        }
        match &self.last {
            Some((id, applied)) if *id == batch.id => return Ok(applied.clone()),
            last => {
                let last = last.as_ref().map_or(0, |(id, _)| *id);
                if batch.id != last + 1 {
                    let reason = format!("batch {} cannot follow batch {last}", batch.id);
                    return Err(BatchError::Deterministic { entry: None, reason });
                }
            }
        }
        let answers = batch.entries.iter().map(|entry| self.write(entry)).collect();
        let tally = std::mem::take(&mut self.tally);
        self.statistics.add(&tally);
        let applied = Applied { answers, latest_event: self.last_event };
        self.last = Some((batch.id, applied.clone()));
        Ok(applied)
    }

    /// Applies a follower's batch: submissions alone, of no epoch.
    pub(super) fn accept(&mut self, batch: &Batch) -> Applied {
        let accept = |entry: &Entry| match entry {
            Entry::Submission(new) => self.submit(new, None),
            Entry::Nothing => Answer::Done,
            Entry::Change(_)
            | Entry::Advance(_)
            | Entry::Housekeeping(_)
            | Entry::Program(_)
            | Entry::Log(_)
            | Entry::Drain(_) => Answer::Refused(WriteError::Following.to_string()),
        };
        let answers = batch.entries.iter().map(accept).collect();
        Applied { answers, latest_event: self.last_event }
    }

    fn write(&mut self, entry: &Entry) -> Answer {
        match entry {
            Entry::Submission(new) => self.submit(new, None),
            Entry::Advance(advance) => self.advance(advance),
            Entry::Change(change) => self.change(change),
            Entry::Housekeeping(Housekeeping::Forget(keys)) => {
                Answer::Deleted(keys.iter().filter(|key| self.forget(**key)).count() as u64)
            }
            Entry::Housekeeping(Housekeeping::Sweep(JobKey(key))) => {
                self.swept.remove(key);
                Answer::Deleted(0)
            }
            Entry::Housekeeping(Housekeeping::ObjectsDeleted(names)) => {
                Answer::Deleted(names.iter().filter(|name| self.dropped_objects.remove(*name)).count() as u64)
            }
            Entry::Housekeeping(Housekeeping::ForgetStatistics(grain, before)) => {
                Answer::Deleted(self.statistics.forget(*grain, *before))
            }
            // Every job can be read.
            Entry::Housekeeping(Housekeeping::CancelUnread { .. }) => Answer::Deleted(0),
            Entry::Program(ProgramChange::Put(record)) => {
                self.programs.entry(record.hash).or_insert_with(|| record.clone());
                Answer::Done
            }
            Entry::Program(ProgramChange::Delete(hash)) => self.delete_program(*hash),
            Entry::Log(log) => self.log(log),
            Entry::Drain(change) => self.drain(change),
            Entry::Nothing => Answer::Done,
        }
    }

    fn advance(&mut self, advance: &Advance) -> Answer {
        let position = self.positions.get(&advance.stream).copied().unwrap_or_default();
        if position.next != advance.from {
            return Answer::Elsewhere(position);
        }
        let answer = advance.job.as_ref().map_or(Answer::Done, |(new, source)| self.submit(new, Some(source)));
        if matches!(answer, Answer::Done | Answer::Submitted(_)) {
            self.positions.insert(advance.stream.clone(), advance.to);
        }
        answer
    }

    fn submit(&mut self, new: &NewJob, source: Option<&EventSource>) -> Answer {
        let by_id = self.keys.get(&new.id);
        let by_key = new.idempotency_key.as_ref().and_then(|key| self.by_idempotency_key.get(key));
        let mut same = None;
        for existing in [by_id, by_key].into_iter().flatten().filter_map(|key| self.jobs.get(key)) {
            if existing.new.fingerprint != new.fingerprint {
                return Answer::Mismatch(existing.new.id);
            }
            same = Some(existing.new.id);
        }
        if let Some(existing) = same {
            return Answer::Submitted(Submission::Existing(existing));
        }
        let payloads = new.payloads.len();
        if payloads > 0 && payloads as u64 != new.tasks {
            return Answer::Refused(format!("{payloads} payloads for {} tasks", new.tasks));
        }
        let programs = uploaded_programs(new.kind, new.params.get());
        if let Some(program) = programs.into_iter().find(|program| !self.programs.contains_key(program)) {
            return Answer::Refused(missing(program));
        }
        self.last_key += 1;
        let key = self.last_key;
        self.keys.insert(new.id, key);
        if let Some(name) = &new.idempotency_key {
            self.by_idempotency_key.insert(name.clone(), key);
        }
        let bytes = job_bytes(new, options_to_stored(&new.options).len(), work_to_stored(new.is_individual).len());
        let ledger = JobLedger::new(Subject::of(new), new.is_individual, new.tasks, bytes);
        let job = StoredJob {
            new: Arc::new(new.clone()),
            ledger,
            attempts: Default::default(),
            attempts_put: 0,
            result: None,
            events: Vec::new(),
            logs: Vec::new(),
        };
        self.jobs.insert(key, job);
        self.put_event(key, EventRow { source, ..submitted(new) });
        Answer::Submitted(Submission::New)
    }

    fn change(&mut self, change: &Change) -> Answer {
        let key = self.keys.get(&change.job).copied();
        let Some((key, job)) = key.and_then(|key| Some((key, self.jobs.get_mut(&key)?))) else {
            self.abandon(&without_effect(change).result);
            return Answer::Done;
        };
        let effects = match job.ledger.apply(change) {
            Ok(effects) => effects,
            Err(refused) => return Answer::Refused(refused.to_string()),
        };
        match &effects.attempt {
            None => {}
            Some(AttemptRow::Completed { tasks, outcome }) => job.put_completed(tasks, outcome),
            Some(AttemptRow::Failed(failure)) => job.put_failed(failure),
        }
        let dropped = match &effects.result {
            ResultEffect::Keep | ResultEffect::Abandon(_) => None,
            ResultEffect::Drop => job.take_result(),
            ResultEffect::Put(result) => {
                let before = job.take_result();
                job.result = Some((*result).clone());
                before
            }
        };
        self.dropped_objects.extend(dropped);
        self.abandon(&effects.result);
        if let Some(event) = effects.event {
            self.put_event(key, event);
        }
        Answer::Done
    }

    fn delete_program(&mut self, hash: ProgramHash) -> Answer {
        let needs = |job: &&StoredJob| {
            !job.ledger.state.is_over() && uploaded_programs(job.new.kind, job.new.params.get()).contains(&hash)
        };
        match self.jobs.values().find(needs) {
            Some(job) => Answer::Refused(in_use(job.new.id)),
            None => Answer::Deleted(u64::from(self.programs.remove(&hash).is_some())),
        }
    }

    fn log(&mut self, log: &TaskLog) -> Answer {
        if let Some(job) = self.keys.get(&log.job).and_then(|key| self.jobs.get_mut(key))
            && !job.logs.iter().any(|kept| (kept.task, kept.attempt) == (log.task, log.attempt))
        {
            job.ledger.grew(log_bytes(log));
            job.logs.push(log.clone());
        }
        Answer::Done
    }

    fn drain(&mut self, change: &DrainChange) -> Answer {
        match change {
            DrainChange::Put(Drain { drained, at }) => {
                self.drains.entry(drained.clone()).or_insert(*at);
            }
            DrainChange::Remove(drained) => {
                self.drains.remove(drained);
            }
        }
        Answer::Done
    }

    fn abandon(&mut self, effect: &ResultEffect<'_>) {
        if let ResultEffect::Abandon(object) = effect {
            self.dropped_objects.insert((*object).to_owned());
        }
    }

    fn put_event(&mut self, key: i64, event: EventRow<'_>) {
        let EventRow { kind, at, tasks_done, tasks_total, error, source, counts } = event;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        self.last_event += 1;
        let seq = self.last_event;
        job.events.push(seq);
        let (tasks_done, tasks_total) = (Some(tasks_done), Some(tasks_total));
        let (error, source) = (error.map(str::to_owned), source.cloned());
        let subject = &job.ledger.subject;
        self.tally.count(subject, at, &counts);
        let (job_kind, task) = (Some(subject.kind), subject.task.clone());
        let (job, counts) = (job.new.id, Box::new(counts));
        let event = JobEvent { seq, job, kind, at, job_kind, task, tasks_done, tasks_total, error, source, counts };
        self.events.insert(seq, event);
    }

    fn forget(&mut self, JobKey(key): JobKey) -> bool {
        if self.jobs.get(&key).is_none_or(|job| job.ledger.finished_at.is_none()) {
            return false;
        }
        let Some(mut job) = self.jobs.remove(&key) else { return false };
        self.keys.remove(&job.new.id);
        if let Some(name) = &job.new.idempotency_key {
            self.by_idempotency_key.remove(name);
        }
        if let Some(outbox) = self.positions.get(OUTBOX) {
            let lost = job.events.iter().filter(|&&seq| seq >= outbox.next).count() as u64;
            if lost > 0 {
                self.positions.entry(OUTBOX_LOST.to_owned()).or_default().next += lost;
            }
        }
        for seq in &job.events {
            self.events.remove(seq);
        }
        self.dropped_objects.extend(job.take_result());
        self.swept.insert(key, job.new.id);
        true
    }
}

impl StoredJob {
    /// Drops the result. Returns the name of its object.
    fn take_result(&mut self) -> Option<String> {
        let result = self.result.take()?;
        self.ledger.freed(result_bytes(&result));
        match result {
            ResultBody::Inline(_) => None,
            ResultBody::Object(object) => Some(object.name),
        }
    }

    fn put_attempt(&mut self, first: u64, attempt: StoredAttempt) {
        self.attempts_put += 1;
        self.attempts.insert((first, self.attempts_put), attempt);
    }

    fn put_completed(&mut self, tasks: &std::ops::Range<u64>, outcome: &CompletedAttempt) {
        let mut answers = outcome.results.chunks(ATTEMPT_TASKS as usize);
        for piece in pieces(tasks) {
            let end = AttemptEnd::Completed {
                attempt: outcome.attempt,
                allocated_at: outcome.allocated_at,
                running_at: outcome.running_at,
                completed_at: outcome.completed_at,
                results: answers.next().unwrap_or_default().to_vec(),
            };
            self.put_attempt(
                piece.start,
                StoredAttempt { beyond: piece.end, worker: outcome.worker_column().to_owned(), end },
            );
        }
    }

    fn put_failed(&mut self, failure: &FailureRow<'_>) {
        for piece in pieces(&failure.tasks) {
            let end = AttemptEnd::Failed {
                at: failure.at,
                error: failure.error.to_owned(),
                failures: failure.failures,
                given_up: failure.given_up,
                omitted: 0,
            };
            self.put_attempt(piece.start, StoredAttempt { beyond: piece.end, worker: failure.worker.to_owned(), end });
            self.omit_failures(piece.start);
        }
    }

    /// Deletes the failures between the first and the last ones, and adds their number to the next kept failure.
    fn omit_failures(&mut self, first: u64) {
        let is_failure = |attempt: &StoredAttempt| matches!(attempt.end, AttemptEnd::Failed { .. });
        let of_first = self.attempts.range((first, 0)..=(first, u64::MAX));
        let places: Vec<_> = of_first.filter(|(_, attempt)| is_failure(attempt)).map(|(&place, _)| place).collect();
        let Some(last) = places.len().checked_sub(LAST_FAILURES).filter(|&last| last > FIRST_FAILURES) else { return };
        let mut gone = 0;
        for place in &places[FIRST_FAILURES..last] {
            let attempt = self.attempts.remove(place);
            if let Some(StoredAttempt { worker, end: AttemptEnd::Failed { error, omitted, .. }, .. }) = attempt {
                self.ledger.freed(failure_bytes(worker.len() as u64, error.len() as u64));
                gone += 1 + omitted;
            }
        }
        let next = self.attempts.get_mut(&places[last]);
        if let Some(StoredAttempt { end: AttemptEnd::Failed { omitted, .. }, .. }) = next {
            *omitted += gone;
        }
    }
}
