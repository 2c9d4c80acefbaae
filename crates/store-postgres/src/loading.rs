//! Reads the rows that the plan of a part of a batch needs, in one flight, within its transaction.

use std::collections::{HashMap, HashSet};

use model::{JobId, JobState};
use store::retention::failure_bytes;
use store::rules::{JobLedger, KeptFailure, Ledgers, pieces};
use store::statistics::Subject;
use store::stored;
use store::{Change, ChangeKind, Entry, NewJob};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::DbError;
use crate::link::Step;
use crate::plan::{Known, KnownResult, Loaded, Same, uuid};
use crate::positions;
use crate::rows::{self, Column};

const JOBS: &str = "SELECT jobs.id, jobs.key, state, kind, work, tasks, jobs.bytes, value, attempts, started_at, \
     finished_at, retried_at, error, results.bytes, object, task, submitted_at, uncounted, \
     verified FROM jobs LEFT JOIN results ON results.job = jobs.key \
     WHERE jobs.id = ANY($1::uuid[]) AND (state IN ('queued', 'running', 'paused') OR jobs.id = ANY($2::uuid[]))";
const SPANS: &str = "SELECT jobs.id, what, first, beyond, failures FROM jobs JOIN spans ON spans.job = jobs.key \
     WHERE jobs.id = ANY($1::uuid[]) AND (state IN ('queued', 'running', 'paused') OR jobs.id = ANY($2::uuid[]))";
const BY_ID: &str = "SELECT id, fingerprint, submitted_at FROM jobs WHERE id = ANY($1::uuid[])";
const BY_KEY: &str =
    "SELECT id, fingerprint, submitted_at, idempotency_key FROM jobs WHERE idempotency_key = ANY($1::text[])";
const POSITIONS: &str = "SELECT stream, next, mark FROM positions WHERE stream = ANY($1::text[])";
const FAILURES: &str = "SELECT jobs.id, attempts.first, attempts.id, octet_length(worker)::bigint, \
     octet_length(attempts.error)::bigint, coalesce(omitted, 0) FROM unnest($1::uuid[], $2::bigint[]) AS place (id, first) \
     JOIN jobs ON jobs.id = place.id JOIN attempts ON attempts.job = jobs.key AND attempts.first = place.first \
     WHERE error_at IS NOT NULL ORDER BY attempts.id";

/// The queries of one part of a batch.
#[derive(Default)]
pub(crate) struct Needs<'a> {
    jobs: Vec<Uuid>,
    retried: Vec<Uuid>,
    ids: Vec<Uuid>,
    keys: Vec<&'a str>,
    streams: Vec<&'a str>,
    /// Number of jobs that may be accepted.
    pub(crate) submissions: u64,
}

impl<'a> Needs<'a> {
    pub(crate) fn of(entries: &'a [Entry], ledgers: &Ledgers<Known>) -> Self {
        let mut needs = Self::default();
        let mut asked = HashSet::new();
        for entry in entries {
            match entry {
                Entry::Submission(new) => needs.submit(new),
                Entry::Advance(advance) => {
                    needs.streams.push(&advance.stream);
                    if let Some((new, _)) = &advance.job {
                        needs.submit(new);
                    }
                }
                Entry::Change(change) => {
                    if ledgers.get(change.job).is_none() && asked.insert(change.job) {
                        needs.jobs.push(uuid(change.job));
                    }
                    if matches!(change.kind, ChangeKind::Retried) {
                        needs.retried.push(uuid(change.job));
                    }
                }
                Entry::Housekeeping(_) | Entry::Program(_) | Entry::Log(_) | Entry::Drain(_) | Entry::Nothing => {}
            }
        }
        needs
    }

    fn submit(&mut self, new: &'a NewJob) {
        self.submissions += 1;
        self.ids.push(uuid(new.id));
        self.keys.extend(new.idempotency_key.as_deref().filter(|key| !key.contains('\0')));
    }

    /// The steps of the flight.
    pub(crate) fn steps(&self) -> Vec<Step<'_>> {
        let mut steps = Vec::new();
        let mut ask = |sql, params| steps.push(Step::Run { sql, params });
        if !self.jobs.is_empty() {
            ask(JOBS, vec![Box::new(&self.jobs), Box::new(&self.retried)]);
            ask(SPANS, vec![Box::new(&self.jobs), Box::new(&self.retried)]);
        }
        if !self.ids.is_empty() {
            ask(BY_ID, vec![Box::new(&self.ids)]);
        }
        if !self.keys.is_empty() {
            ask(BY_KEY, vec![Box::new(&self.keys)]);
        }
        if !self.streams.is_empty() {
            ask(POSITIONS, vec![Box::new(&self.streams)]);
        }
        steps
    }

    /// The answers to [`Needs::steps`].
    pub(crate) fn read(&self, answers: Vec<Vec<Row>>) -> Result<Loaded, DbError> {
        let mut answers = answers.into_iter();
        let mut next = |was_asked: bool| was_asked.then(|| answers.next()).flatten().unwrap_or_default();
        let mut loaded = Loaded::default();
        for row in next(!self.jobs.is_empty()) {
            loaded.jobs.insert(rows::job_id(&row, 0)?, ledger(&row)?);
        }
        for row in next(!self.jobs.is_empty()) {
            let Some((_, ledger)) = loaded.jobs.get_mut(&rows::job_id(&row, 0)?) else { continue };
            let (kind, tasks, failures) = rows::span(&row, 1)?;
            ledger.load_span(kind, &tasks, failures).map_err(|error| DbError::Damaged(error.to_string()))?;
        }
        for row in next(!self.ids.is_empty()) {
            let same = same(&row)?;
            loaded.by_id.insert(same.job, same);
        }
        for row in next(!self.keys.is_empty()) {
            loaded.by_key.insert(rows::get(&row, 3)?, same(&row)?);
        }
        for row in next(!self.streams.is_empty()) {
            let (stream, position) = positions::read(&row)?;
            loaded.positions.insert(stream, position);
        }
        Ok(loaded)
    }
}

fn same(row: &Row) -> Result<Same, DbError> {
    Ok(Same { job: rows::job_id(row, 0)?, fingerprint: rows::get(row, 1)?, submitted_at: rows::get(row, 2)? })
}

fn ledger(row: &Row) -> Result<(Known, JobLedger), DbError> {
    let kind = rows::parse(row, 3)?;
    let is_individual = rows::stored(row, 4, |text| stored::is_individual(kind, text))?;
    let subject = Subject { kind, task: rows::get(row, 15)?, submitted_at: rows::time(row, 16)? };
    let mut ledger = JobLedger::new(subject, is_individual, rows::count(row, 5)?, rows::count(row, 6)?);
    ledger.state = rows::name::<JobState>(row, 2)?;
    (ledger.value, ledger.check) = rows::stored(row, 7, stored::values_from_stored)?;
    ledger.uncounted = rows::counts(row, 17)?;
    ledger.verified = rows::verified(row, 18)?;
    ledger.attempts = rows::count(row, 8)?;
    ledger.started_at = rows::optional_time(row, 9)?;
    ledger.finished_at = rows::optional_time(row, 10)?;
    ledger.retried_at = rows::optional_time(row, 11)?;
    ledger.error = rows::get(row, 12)?;
    let result = match rows::get::<Option<i64>>(row, 13)? {
        Some(bytes) => Some(KnownResult { bytes: bytes.unsigned_abs(), object: rows::get(row, 14)? }),
        None => None,
    };
    Ok((Known { key: rows::get(row, 1)?, result }, ledger))
}

/// The number of attempts that a part of a batch may bring, and the earlier failures of their tasks.
#[derive(Default)]
pub(crate) struct AttemptNeeds {
    /// Number of rows.
    pub(crate) rows: u64,
    ids: Vec<Uuid>,
    firsts: Vec<i64>,
}

impl AttemptNeeds {
    pub(crate) fn of(entries: &[Entry], ledgers: &Ledgers<Known>, loaded: &Loaded) -> Self {
        let mut needs = Self::default();
        let mut asked = HashSet::new();
        let mut fresh = HashSet::new();
        for entry in entries {
            let Change { job, kind, .. } = match entry {
                Entry::Submission(new) => {
                    if new.is_individual {
                        fresh.insert(new.id);
                    }
                    continue;
                }
                Entry::Advance(advance) => {
                    let new = advance.job.as_ref().map(|(new, _)| new).filter(|new| new.is_individual);
                    fresh.extend(new.map(|new| new.id));
                    continue;
                }
                Entry::Change(change) => change,
                Entry::Housekeeping(_) | Entry::Program(_) | Entry::Log(_) | Entry::Drain(_) | Entry::Nothing => {
                    continue;
                }
            };
            match kind {
                ChangeKind::Completed { tasks, outcome: Some(_), .. } => needs.rows += pieces(tasks).count() as u64,
                ChangeKind::AttemptFailed { tasks, .. } | ChangeKind::TasksFailed { tasks, .. } => {
                    let ledger = ledgers.get(*job).or_else(|| loaded.jobs.get(job));
                    let is_kept = fresh.contains(job) || ledger.is_some_and(|(_, ledger)| ledger.is_individual);
                    let of_job = ledger.map_or(u64::MAX, |(_, ledger)| ledger.tasks);
                    if !is_kept || tasks.end > of_job {
                        continue;
                    }
                    for piece in pieces(tasks) {
                        needs.rows += 1;
                        if asked.insert((*job, piece.start)) {
                            needs.ids.push(uuid(*job));
                            needs.firsts.push(piece.start.column());
                        }
                    }
                }
                ChangeKind::Completed { .. }
                | ChangeKind::Checked { .. }
                | ChangeKind::Reopened { .. }
                | ChangeKind::Compared { .. }
                | ChangeKind::Started
                | ChangeKind::Paused
                | ChangeKind::Resumed
                | ChangeKind::Canceled
                | ChangeKind::Progress
                | ChangeKind::WorkDone { .. }
                | ChangeKind::Retried
                | ChangeKind::Ended { .. } => {}
            }
        }
        needs
    }

    /// The query for the earlier failures, if there is one.
    pub(crate) fn step(&self) -> Option<Step<'_>> {
        (!self.ids.is_empty())
            .then(|| Step::Run { sql: FAILURES, params: vec![Box::new(&self.ids), Box::new(&self.firsts)] })
    }
}

/// The answer to [`AttemptNeeds::step`].
pub(crate) fn read_failures(answer: &[Row]) -> Result<HashMap<(JobId, u64), Vec<KeptFailure>>, DbError> {
    let mut failures: HashMap<_, Vec<_>> = HashMap::new();
    for row in answer {
        let bytes = failure_bytes(rows::count(row, 3)?, rows::count(row, 4)?);
        let kept = KeptFailure { row: rows::get(row, 2)?, bytes, omitted: rows::count(row, 5)? };
        failures.entry((rows::job_id(row, 0)?, rows::count(row, 1)?)).or_default().push(kept);
    }
    Ok(failures)
}
