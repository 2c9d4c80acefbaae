//! Rows as columns of values, and the statements that write them.

mod jobs;
mod tasks;

use std::borrow::Cow;

use store::ResultBody;
use store::rules::{EventRow, JobLedger, result_bytes};
use store::stored::{StoredName, counts_to_stored, values_to_stored, verified_to_stored};

pub(crate) use jobs::{Jobs, Payloads, Tags};
pub(crate) use tasks::{Attempts, Spans};

use crate::link::{Param, Step};
use crate::positions;
use crate::rows::Column;

const PUT_UPDATES: &str = "UPDATE jobs SET state = new.state, tasks_done = new.tasks_done, tasks_failed = new.tasks_failed, \
     value = new.value, bytes = new.bytes, attempts = new.attempts, started_at = new.started_at, \
     finished_at = new.finished_at, retried_at = new.retried_at, error = new.error, uncounted = new.uncounted, \
     verified = new.verified \
     FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[]) AS new (key, state, tasks_done, \
     tasks_failed, value, bytes, attempts, started_at, finished_at, retried_at, error, uncounted, verified) WHERE jobs.key = new.key";
const DELETE_RESULTS: &str = "DELETE FROM results WHERE job = ANY($1::bigint[])";
const PUT_RESULTS: &str = "INSERT INTO results (job, json, object, bytes, sha256) \
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])";
pub(crate) const DROP_OBJECTS: &str =
    "INSERT INTO dropped_objects (object) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING";
/// Numbers the events. A transaction that holds the counter's row commits next.
pub(crate) const PUT_EVENTS: &str = "WITH newest AS (UPDATE counter SET event = event + $1::bigint RETURNING event), \
     put AS (INSERT INTO events (seq, job, kind, at, tasks_done, tasks_total, error, counts, source) \
     SELECT newest.event - $1::bigint + new.place, job, kind, at, tasks_done, tasks_total, error, counts, source FROM newest, \
     unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[]) WITH ORDINALITY \
     AS new (job, kind, at, tasks_done, tasks_total, error, counts, source, place)) SELECT event FROM newest";

/// About the most bytes of payloads or answers in one statement: while the server waits for the rest of a message, the session stands
/// idle in its transaction, and is ended after two seconds.
const STATEMENT_BYTES: usize = 1 << 20;

fn run<'a>(sql: &'static str, params: Vec<Param<'a>>) -> Step<'a> {
    Step::Run { sql, params }
}

/// Changes of jobs.
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
