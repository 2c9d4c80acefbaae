//! New jobs, with their tags and payloads.

use std::borrow::Cow;

use store::NewJob;
use store::statistics::Subject;
use uuid::Uuid;

use super::{STATEMENT_BYTES, run};
use crate::link::{Param, Step};
use crate::rows::Column;

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
        if self.0.last().is_none_or(|rows| rows.bytes + list.len() > STATEMENT_BYTES) {
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
