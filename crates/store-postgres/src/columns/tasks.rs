//! Runs of tasks, and the attempts at them.

use std::borrow::Cow;
use std::ops::Range;

use store::CompletedAttempt;
use store::rules::{FailureRow, OmittedFailures, SpanKind};
use uuid::Uuid;

use super::{STATEMENT_BYTES, run};
use crate::link::{Param, Step};
use crate::rows::{Column, what};

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
struct AttemptColumns {
    job: Vec<i64>,
    first: Vec<i64>,
    id: Vec<i64>,
}

impl AttemptColumns {
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

/// Completed attempts of one statement.
#[derive(Default)]
struct Completed<'a> {
    columns: AttemptColumns,
    beyond: Vec<i64>,
    attempt: Vec<Uuid>,
    worker: Vec<&'a str>,
    allocated_at: Vec<i64>,
    running_at: Vec<i64>,
    completed_at: Vec<i64>,
    results: Vec<Option<String>>,
    /// Bytes of the answers.
    bytes: usize,
}

impl<'a> Completed<'a> {
    fn step(self) -> Option<Step<'a>> {
        self.columns.step(
            PUT_COMPLETED,
            vec![
                Box::new(self.beyond),
                Box::new(self.attempt),
                Box::new(self.worker),
                Box::new(self.allocated_at),
                Box::new(self.running_at),
                Box::new(self.completed_at),
                Box::new(self.results),
            ],
        )
    }
}

/// Attempts that ended, and failures that are no longer kept.
#[derive(Default)]
pub(crate) struct Attempts<'a> {
    /// In statements of bounded size.
    completed: Vec<Completed<'a>>,
    failed: AttemptColumns,
    failed_beyond: Vec<i64>,
    failed_worker: Vec<Cow<'a, str>>,
    error_at: Vec<i64>,
    error: Vec<Cow<'a, str>>,
    failures: Vec<i64>,
    given_up: Vec<bool>,
    deleted: AttemptColumns,
    noted: AttemptColumns,
    omitted: Vec<i64>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn push_completed(
        &mut self,
        key: i64,
        tasks: &Range<u64>,
        id: i64,
        outcome: &'a CompletedAttempt,
        answers: Option<String>,
    ) {
        let bytes = answers.as_ref().map_or(0, String::len);
        if self.completed.last().is_none_or(|rows| rows.bytes + bytes > STATEMENT_BYTES) {
            self.completed.push(Completed::default());
        }
        let Some(rows) = self.completed.last_mut() else { return };
        rows.bytes += bytes;
        rows.columns.push(key, tasks.start, id);
        rows.beyond.push(tasks.end.column());
        rows.attempt.push(outcome.attempt.0);
        rows.worker.push(outcome.worker_column());
        rows.allocated_at.push(outcome.allocated_at.column());
        rows.running_at.push(outcome.running_at.column());
        rows.completed_at.push(outcome.completed_at.column());
        rows.results.push(answers);
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
        let completed: Vec<_> = self.completed.into_iter().filter_map(Completed::step).collect();
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
        completed.into_iter().chain([failed, noted, deleted].into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::AttemptId;

    use super::*;

    #[test]
    fn long_answers_are_sent_in_several_statements_and_short_ones_together() {
        let at = Timestamp::UNIX_EPOCH;
        let outcome = CompletedAttempt {
            attempt: AttemptId(Uuid::nil()),
            worker: None,
            allocated_at: at,
            running_at: at,
            completed_at: at,
            results: Vec::new(),
        };
        let statements = |bytes: usize| {
            let mut attempts = Attempts::default();
            for task in 0..4 {
                attempts.push_completed(1, &(task..task + 1), 1, &outcome, Some("x".repeat(bytes)));
            }
            attempts.steps().count()
        };
        assert_eq!(statements(10), 1);
        assert_eq!(statements(STATEMENT_BYTES / 2), 2);
        assert_eq!(statements(2 * STATEMENT_BYTES), 4);
    }
}
