//! Rows as columns of values, and the statements that write them.

use std::borrow::Cow;
use std::ops::Range;

use store::rules::{EventRow, FailureRow, JobLedger, OmittedFailures, SpanKind, result_bytes};
use store::statistics::Subject;
use store::stored::{StoredName, counts_to_stored, values_to_stored, verified_to_stored};
use store::{NewJob, Outcome, ResultBody};
use uuid::Uuid;

use crate::link::{Param, Step};
use crate::positions;
use crate::rows::{Column, what};

/// Bytes of payloads in one statement: a large job does not keep the server waiting for one message.
const PAYLOAD_BYTES: usize = 1 << 20;

const PUT_JOBS: &str = "INSERT INTO jobs (key, id, kind, work, params, options, fingerprint, idempotency_key, output, state, \
     tasks, tasks_done, tasks_failed, value, bytes, attempts, submitted_at, task) \
     SELECT key, id, kind, work, params, options, fingerprint, idempotency_key, output, 'queued', tasks, 0, 0, '0', bytes, \
     0, submitted_at, task FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], \
     $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[]) AS new (key, id, kind, work, params, \
     options, fingerprint, idempotency_key, output, tasks, bytes, submitted_at, task)";
const PUT_TAGS: &str = "INSERT INTO tags (job, name, value, submitted_at, id) \
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::uuid[])";
const PUT_PAYLOADS: &str = "INSERT INTO payloads (job, first, beyond, list) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])";
const PUT_UPDATES: &str = "UPDATE jobs SET state = new.state, tasks_done = new.tasks_done, tasks_failed = new.tasks_failed, \
     value = new.value, bytes = new.bytes, attempts = new.attempts, started_at = new.started_at, \
     finished_at = new.finished_at, retried_at = new.retried_at, error = new.error, uncounted = new.uncounted, \
     verified = new.verified \
     FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[]) AS new (key, state, tasks_done, \
     tasks_failed, value, bytes, attempts, started_at, finished_at, retried_at, error, uncounted, verified) WHERE jobs.key = new.key";
const DELETE_SPANS: &str = "DELETE FROM spans USING unnest($1::bigint[], $2::smallint[], $3::bigint[]) AS old (job, what, \
     first) WHERE spans.job = old.job AND spans.what = old.what AND spans.first = old.first";
const PUT_SPANS: &str = "INSERT INTO spans (job, what, first, beyond, failures) \
     SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
     ON CONFLICT (job, what, first) DO UPDATE SET beyond = excluded.beyond, failures = excluded.failures";
const PUT_COMPLETED: &str = "INSERT INTO attempts (job, first, id, beyond, attempt, worker, allocated_at, running_at, \
     completed_at, results) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], \
     $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])";
const PUT_FAILED: &str = "INSERT INTO attempts (job, first, id, beyond, worker, error_at, error, failures, given_up) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], \
     $8::bigint[], $9::boolean[])";
const DELETE_OMITTED: &str = "DELETE FROM attempts USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS old (job, first, \
     id) WHERE attempts.job = old.job AND attempts.first = old.first AND attempts.id = old.id";
const NOTE_OMITTED: &str = "UPDATE attempts SET omitted = new.omitted FROM (SELECT job, first, id, max(omitted) AS omitted \
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS all_new (job, first, id, omitted) \
     GROUP BY job, first, id) AS new \
     WHERE attempts.job = new.job AND attempts.first = new.first AND attempts.id = new.id";
const DELETE_RESULTS: &str = "DELETE FROM results WHERE job = ANY($1::bigint[])";
const PUT_RESULTS: &str = "INSERT INTO results (job, json, object, bytes, sha256) \
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])";
pub(crate) const DROP_OBJECTS: &str =
    "INSERT INTO dropped_objects (object) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING";
/// Numbers the events. Whoever holds the counter's row has only its COMMIT to come.
pub(crate) const PUT_EVENTS: &str = "WITH newest AS (UPDATE counter SET event = event + $1::bigint RETURNING event), \
     put AS (INSERT INTO events (seq, job, kind, at, tasks_done, tasks_total, error, counts, source) \
     SELECT newest.event - $1::bigint + new.place, job, kind, at, tasks_done, tasks_total, error, counts, source FROM newest, \
     unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[]) WITH ORDINALITY \
     AS new (job, kind, at, tasks_done, tasks_total, error, counts, source, place)) SELECT event FROM newest";

fn run<'a>(sql: &'static str, params: Vec<Param<'a>>) -> Step<'a> {
    Step::Run { sql, params }
}

/// New jobs.
#[derive(Default)]
pub(crate) struct Jobs<'a> {
    key: Vec<i64>,
    id: Vec<Uuid>,
    kind: Vec<&'a str>,
    work: Vec<String>,
    params: Vec<&'a str>,
    options: Vec<String>,
    fingerprint: Vec<&'a [u8]>,
    idempotency_key: Vec<Option<&'a str>>,
    output: Vec<Option<&'a str>>,
    tasks: Vec<i64>,
    bytes: Vec<i64>,
    submitted_at: Vec<i64>,
    task: Vec<Option<String>>,
}

impl<'a> Jobs<'a> {
    pub(crate) fn push(
        &mut self,
        key: i64,
        new: &'a NewJob,
        subject: &Subject,
        work: String,
        options: String,
        bytes: u64,
    ) {
        self.key.push(key);
        self.id.push(new.id.0);
        self.kind.push(new.kind.as_str());
        self.work.push(work);
        self.params.push(new.params.get());
        self.options.push(options);
        self.fingerprint.push(&new.fingerprint);
        self.idempotency_key.push(new.idempotency_key.as_deref());
        self.output.push(new.options.output.as_deref());
        self.tasks.push(new.tasks.column());
        self.bytes.push(bytes.column());
        self.submitted_at.push(new.submitted_at.column());
        self.task.push(subject.task.clone());
    }

    pub(crate) fn step(self) -> Option<Step<'a>> {
        let Self {
            task,
            key,
            id,
            kind,
            work,
            params,
            options,
            fingerprint,
            idempotency_key,
            output,
            tasks,
            bytes,
            submitted_at,
        } = self;
        (!key.is_empty()).then(|| {
            run(
                PUT_JOBS,
                vec![
                    Box::new(key),
                    Box::new(id),
                    Box::new(kind),
                    Box::new(work),
                    Box::new(params),
                    Box::new(options),
                    Box::new(fingerprint),
                    Box::new(idempotency_key),
                    Box::new(output),
                    Box::new(tasks),
                    Box::new(bytes),
                    Box::new(submitted_at),
                    Box::new(task),
                ],
            )
        })
    }
}

/// Tags of new jobs.
#[derive(Default)]
pub(crate) struct Tags<'a> {
    job: Vec<i64>,
    name: Vec<Cow<'a, str>>,
    value: Vec<Cow<'a, str>>,
    submitted_at: Vec<i64>,
    id: Vec<Uuid>,
}

impl<'a> Tags<'a> {
    pub(crate) fn push(&mut self, key: i64, name: Cow<'a, str>, value: Cow<'a, str>, new: &NewJob) {
        self.job.push(key);
        self.name.push(name);
        self.value.push(value);
        self.submitted_at.push(new.submitted_at.column());
        self.id.push(new.id.0);
    }

    pub(crate) fn step(self) -> Option<Step<'a>> {
        let Self { job, name, value, submitted_at, id } = self;
        let params: Vec<Param<'a>> =
            vec![Box::new(job), Box::new(name), Box::new(value), Box::new(submitted_at), Box::new(id.clone())];
        (!id.is_empty()).then(|| run(PUT_TAGS, params))
    }
}

/// Blocks of payloads, in statements of bounded size.
#[derive(Default)]
pub(crate) struct Payloads(Vec<PayloadRows>);

#[derive(Default)]
struct PayloadRows {
    job: Vec<i64>,
    first: Vec<i64>,
    beyond: Vec<i64>,
    list: Vec<String>,
    bytes: usize,
}

impl Payloads {
    pub(crate) fn push(&mut self, job: i64, first: i64, beyond: i64, list: String) {
        if self.0.last().is_none_or(|rows| rows.bytes + list.len() > PAYLOAD_BYTES) {
            self.0.push(PayloadRows::default());
        }
        let Some(rows) = self.0.last_mut() else { return };
        rows.bytes += list.len();
        rows.job.push(job);
        rows.first.push(first);
        rows.beyond.push(beyond);
        rows.list.push(list);
    }

    pub(crate) fn steps<'a>(self) -> impl Iterator<Item = Step<'a>> {
        self.0.into_iter().map(|PayloadRows { job, first, beyond, list, .. }| {
            run(PUT_PAYLOADS, vec![Box::new(job), Box::new(first), Box::new(beyond), Box::new(list)])
        })
    }
}

/// Jobs that have changed.
#[derive(Default)]
pub(crate) struct Updates<'a> {
    key: Vec<i64>,
    state: Vec<&'a str>,
    tasks_done: Vec<i64>,
    tasks_failed: Vec<i64>,
    value: Vec<String>,
    bytes: Vec<i64>,
    attempts: Vec<i64>,
    started_at: Vec<Option<i64>>,
    finished_at: Vec<Option<i64>>,
    retried_at: Vec<Option<i64>>,
    error: Vec<Option<String>>,
    uncounted: Vec<Option<String>>,
    verified: Vec<Option<String>>,
}

impl<'a> Updates<'a> {
    pub(crate) fn push(&mut self, key: i64, ledger: &JobLedger) {
        self.key.push(key);
        self.state.push(ledger.state.stored_name());
        self.tasks_done.push(ledger.tasks_done().column());
        self.tasks_failed.push(ledger.tasks_failed().column());
        self.value.push(values_to_stored(ledger.value, ledger.check));
        self.bytes.push(ledger.bytes().column());
        self.attempts.push(ledger.attempts.column());
        self.started_at.push(ledger.started_at.map(|at| at.column()));
        self.finished_at.push(ledger.finished_at.map(|at| at.column()));
        self.retried_at.push(ledger.retried_at.map(|at| at.column()));
        self.error.push(ledger.error.as_ref().map(|error| error.replace('\0', "\u{fffd}")));
        self.uncounted.push(counts_to_stored(&ledger.uncounted));
        self.verified.push(verified_to_stored(&ledger.verified));
    }

    pub(crate) fn step(self) -> Option<Step<'a>> {
        let Self {
            uncounted,
            verified,
            key,
            state,
            tasks_done,
            tasks_failed,
            value,
            bytes,
            attempts,
            started_at,
            finished_at,
            retried_at,
            error,
        } = self;
        (!key.is_empty()).then(|| {
            run(
                PUT_UPDATES,
                vec![
                    Box::new(key),
                    Box::new(state),
                    Box::new(tasks_done),
                    Box::new(tasks_failed),
                    Box::new(value),
                    Box::new(bytes),
                    Box::new(attempts),
                    Box::new(started_at),
                    Box::new(finished_at),
                    Box::new(retried_at),
                    Box::new(error),
                    Box::new(uncounted),
                    Box::new(verified),
                ],
            )
        })
    }
}

/// Runs of tasks that changed.
#[derive(Default)]
pub(crate) struct Spans {
    deleted: (Vec<i64>, Vec<i16>, Vec<i64>),
    put: (Vec<i64>, Vec<i16>, Vec<i64>),
    beyond: Vec<i64>,
    failures: Vec<i64>,
}

impl Spans {
    pub(crate) fn push(&mut self, key: i64, kind: SpanKind, first: u64, span: Option<(u64, u32)>) {
        let (job, whats, firsts) = if span.is_some() { &mut self.put } else { &mut self.deleted };
        job.push(key);
        whats.push(what(kind));
        firsts.push(first.column());
        if let Some((beyond, failures)) = span {
            self.beyond.push(beyond.column());
            self.failures.push(i64::from(failures));
        }
    }

    pub(crate) fn steps<'a>(self) -> impl Iterator<Item = Step<'a>> {
        let Self { deleted, put, beyond, failures } = self;
        let deleting = (!deleted.0.is_empty())
            .then(|| run(DELETE_SPANS, vec![Box::new(deleted.0), Box::new(deleted.1), Box::new(deleted.2)]));
        let putting = (!put.0.is_empty()).then(|| {
            let (job, what, first) = put;
            let params: Vec<Param<'a>> =
                vec![Box::new(job), Box::new(what), Box::new(first), Box::new(beyond), Box::new(failures)];
            run(PUT_SPANS, params)
        });
        deleting.into_iter().chain(putting)
    }
}

/// The columns that every attempt has.
#[derive(Default)]
struct Place {
    job: Vec<i64>,
    first: Vec<i64>,
    id: Vec<i64>,
}

impl Place {
    fn push(&mut self, key: i64, first: u64, id: i64) {
        self.job.push(key);
        self.first.push(first.column());
        self.id.push(id);
    }

    fn params<'a>(self) -> Vec<Param<'a>> {
        vec![Box::new(self.job), Box::new(self.first), Box::new(self.id)]
    }

    /// A statement with these columns in front.
    fn step<'a>(self, sql: &'static str, more: Vec<Param<'a>>) -> Option<Step<'a>> {
        (!self.job.is_empty()).then(|| {
            let mut params = self.params();
            params.extend(more);
            run(sql, params)
        })
    }
}

/// Attempts that ended, and failures that are kept no longer.
#[derive(Default)]
pub(crate) struct Attempts<'a> {
    completed: Place,
    completed_beyond: Vec<i64>,
    attempt: Vec<Uuid>,
    completed_worker: Vec<&'a str>,
    allocated_at: Vec<i64>,
    running_at: Vec<i64>,
    completed_at: Vec<i64>,
    results: Vec<Option<String>>,
    failed: Place,
    failed_beyond: Vec<i64>,
    failed_worker: Vec<Cow<'a, str>>,
    error_at: Vec<i64>,
    error: Vec<Cow<'a, str>>,
    failures: Vec<i64>,
    given_up: Vec<bool>,
    deleted: Place,
    noted: Place,
    omitted: Vec<i64>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn push_completed(
        &mut self,
        key: i64,
        tasks: &Range<u64>,
        id: i64,
        outcome: &'a Outcome,
        answers: Option<String>,
    ) {
        self.completed.push(key, tasks.start, id);
        self.completed_beyond.push(tasks.end.column());
        self.attempt.push(outcome.attempt.0);
        self.completed_worker.push(&outcome.worker);
        self.allocated_at.push(outcome.allocated_at.column());
        self.running_at.push(outcome.running_at.column());
        self.completed_at.push(outcome.completed_at.column());
        self.results.push(answers);
    }

    pub(crate) fn push_failed(
        &mut self,
        key: i64,
        tasks: &Range<u64>,
        id: i64,
        failure: &FailureRow<'a>,
        worker: Cow<'a, str>,
        error: Cow<'a, str>,
    ) {
        self.failed.push(key, tasks.start, id);
        self.failed_beyond.push(tasks.end.column());
        self.failed_worker.push(worker);
        self.error_at.push(failure.at.column());
        self.error.push(error);
        self.failures.push(i64::from(failure.failures));
        self.given_up.push(failure.given_up);
    }

    pub(crate) fn omit(&mut self, key: i64, first: u64, omitted: &OmittedFailures) {
        for &row in &omitted.rows {
            self.deleted.push(key, first, row);
        }
        let (row, before) = omitted.next;
        self.noted.push(key, first, row);
        self.omitted.push(before.column());
    }

    pub(crate) fn steps(self) -> impl Iterator<Item = Step<'a>> {
        let completed = self.completed.step(
            PUT_COMPLETED,
            vec![
                Box::new(self.completed_beyond),
                Box::new(self.attempt),
                Box::new(self.completed_worker),
                Box::new(self.allocated_at),
                Box::new(self.running_at),
                Box::new(self.completed_at),
                Box::new(self.results),
            ],
        );
        let failed = self.failed.step(
            PUT_FAILED,
            vec![
                Box::new(self.failed_beyond),
                Box::new(self.failed_worker),
                Box::new(self.error_at),
                Box::new(self.error),
                Box::new(self.failures),
                Box::new(self.given_up),
            ],
        );
        let noted = self.noted.step(NOTE_OMITTED, vec![Box::new(self.omitted)]);
        let deleted = self.deleted.step(DELETE_OMITTED, Vec::new());
        [completed, failed, noted, deleted].into_iter().flatten()
    }
}

/// The results that jobs have after the batch.
#[derive(Default)]
pub(crate) struct Results<'a>(std::collections::BTreeMap<i64, Option<&'a ResultBody>>);

impl<'a> Results<'a> {
    pub(crate) fn put(&mut self, key: i64, result: Option<&'a ResultBody>) {
        self.0.insert(key, result);
    }

    pub(crate) fn steps(self) -> Vec<Step<'a>> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let jobs: Vec<_> = self.0.keys().copied().collect();
        let (mut job, mut json, mut object) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut sha256) = (Vec::new(), Vec::new());
        for (key, result) in self.0.into_iter().filter_map(|(key, result)| Some((key, result?))) {
            job.push(key);
            bytes.push(result_bytes(result).column());
            let (text, stored) = match result {
                ResultBody::Inline(text) => (Some(text.get()), None),
                ResultBody::Object(stored) => (None, Some(stored)),
            };
            json.push(text);
            object.push(stored.map(|stored| stored.name.as_str()));
            sha256.push(stored.map(|stored| stored.sha256.as_slice()));
        }
        let mut steps = vec![run(DELETE_RESULTS, vec![Box::new(jobs)])];
        if !job.is_empty() {
            let params: Vec<Param<'a>> =
                vec![Box::new(job), Box::new(json), Box::new(object), Box::new(bytes), Box::new(sha256)];
            steps.push(run(PUT_RESULTS, params));
        }
        steps
    }
}

/// Events, in order.
#[derive(Default)]
pub(crate) struct Events<'a> {
    job: Vec<i64>,
    kind: Vec<&'a str>,
    at: Vec<i64>,
    tasks_done: Vec<i64>,
    tasks_total: Vec<i64>,
    error: Vec<Option<Cow<'a, str>>>,
    counts: Vec<Option<String>>,
    source: Vec<Option<String>>,
}

impl<'a> Events<'a> {
    pub(crate) fn push(&mut self, key: i64, event: &EventRow<'a>, error: Option<Cow<'a, str>>) {
        self.job.push(key);
        self.kind.push(event.kind.stored_name());
        self.at.push(event.at.column());
        self.tasks_done.push(event.tasks_done.column());
        self.tasks_total.push(event.tasks_total.column());
        self.error.push(error);
        self.counts.push(counts_to_stored(&event.counts));
        self.source.push(event.source.map(positions::source_to_stored));
    }

    pub(crate) fn step(self) -> Option<Step<'a>> {
        let Self { job, kind, at, tasks_done, tasks_total, error, counts, source } = self;
        let count = (job.len() as u64).column();
        (count > 0).then(|| {
            run(
                PUT_EVENTS,
                vec![
                    Box::new(count),
                    Box::new(job),
                    Box::new(kind),
                    Box::new(at),
                    Box::new(tasks_done),
                    Box::new(tasks_total),
                    Box::new(error),
                    Box::new(counts),
                    Box::new(source),
                ],
            )
        })
    }
}
