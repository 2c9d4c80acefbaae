//! `GET /sum-of-primes?a&b`: a job that lives as long as its client waits, or a stored job for a client that prefers not to
//! wait.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use api::{Job, ParsedJob, Problem, SumOfPrimes};
use engine::JobFailure;
use model::{Algorithm, DEFAULT_CHUNK_SIZE, InvalidJob, JobId, JobKind, JobOptions, JobState, NumberRange, Priority};
use scheduler::JobError;
use serde_json::value::RawValue;
use service::{ApiError, Caller, Query, Right, range_from_query};
use sha2::{Digest, Sha256};
use store::JobRecord;
use tracing::error;
use uuid::Uuid;
use workloads::{Parsed, Workload};

use super::errors::from_invalid;
use super::{Accepted, State};
use crate::accepting::{Proposal, Ready, fall_back_if_better};
use crate::fingerprint::Fingerprints;

/// The longest wait that `Prefer: wait=…` may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// From this upper bound on, a division takes long enough to leave the serving thread.
const LONG_DIVISION: u64 = 100_000_000_000_000;

/// The client's preference between a job and an answer (RFC 7240).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preference {
    /// To wait for the answer without a time limit.
    Answer,
    /// A stored job, unless the answer is there after this time.
    Job { after: Duration },
}

/// The sum of all primes from `a` to `b`, both included.
#[utoipa::path(
    get,
    path = "/sum-of-primes",
    operation_id = "sum_of_primes",
    tag = "primes",
    params(
        ("a" = u64, Query, description = "The first number"),
        ("b" = u64, Query, description = "The last number, not below `a`"),
        ("algorithm" = inline(Option<api::schema::Algorithm>), Query, description = "`sieve`, `combinatorial`, or `auto` for the one that is expected to take less. Default auto"),
        ("verify" = Option<bool>, Query, description = "Whether the other algorithm computes it as well: the answer is an error if the two differ. Default false"),
        ("priority" = Option<u8>, Query, description = "1 to 9, larger sooner. Default 5", minimum = 1, maximum = 9),
        ("Prefer" = Option<String>, Header, description = "`respond-async` for a job instead of the answer; with `wait=10`, only if it is not there after 10 s"),
    ),
    responses(
        (status = 200, description = "The sum", body = SumOfPrimes),
        (status = 202, description = "A job that computes it, as `Prefer` asked", body = Job, headers(("Location" = String, description = "The job's path"))),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The two algorithms disagree", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "A task failed on every worker that tried it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No worker is ready, or too many requests are in flight", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn answer(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let started_at = Instant::now();
    let query = Query::parse(request.query_string())?;
    let range = range_from_query(request.query_string())?;
    let question =
        Question { range, algorithm: algorithm(&query)?, verify: query.parsed("verify")?.unwrap_or_default() };
    let priority = priority(&query)?;
    let full = |_| ApiError::Unavailable("as many requests as allowed are in flight".to_owned());
    let _permit = state.inflight.try_acquire().map_err(full)?;
    let caller = Caller::of(&request);
    let submitted_by = caller.name().map(|name| name.to_string());
    let (max_attempts, trace) = (state.max_attempts, service::trace::current());
    let options = JobOptions { max_attempts, priority, submitted_by, trace, ..JobOptions::default() };
    if let Preference::Job { after } = preference(&request) {
        // An answered sum only reads, but a job that outlives the request is submitted.
        caller.demand(Right::Submit, "a job")?;
        return store_instead(&state, question, options, after, started_at).await;
    }
    let (kind, id) = (JobKind::SUM_OF_PRIMES, JobId(Uuid::now_v7()));
    let term = state.term()?;
    let mut work = question.parse(&state).await?;
    if work.fallback.is_some() {
        term.driver.view(|engine| fall_back_if_better(Ready::Engine(engine), kind, &mut work, &options.requires));
    }
    let work = work.workload;
    let answer = question.answer(&*work, started_at);
    let sum = term.driver.ask(id, kind, work, &options).answer().await.map_err(|failure| explain(&state, failure))?;
    Ok(HttpResponse::Ok().json(answer(sum)))
}

async fn store_instead(
    state: &State,
    question: Question,
    options: JobOptions,
    wait: Duration,
    started_at: Instant,
) -> Result<HttpResponse, ApiError> {
    let id = JobId(Uuid::now_v7());
    let mut work = question.parse(state).await?;
    if let Ok(term) = state.term() {
        let kind = JobKind::SUM_OF_PRIMES;
        term.driver.view(|engine| fall_back_if_better(Ready::Engine(engine), kind, &mut work, &options.requires));
    }
    let answer = question.answer(&*work.workload, started_at);
    let options = JobOptions { chunk_size: Some(state.chunk_size), ..options };
    let fingerprint = Sha256::digest(id.0.as_bytes()).into();
    let proposal = Proposal {
        id: Some(id),
        idempotency_key: None,
        job: ParsedJob { kind: JobKind::SUM_OF_PRIMES, work, options },
        fingerprints: Fingerprints::only(fingerprint),
        reservation: None,
    };
    let Accepted { job, .. } = state.accept(proposal).await?;
    let record = super::waiting::until_over(state, job.id, wait).await?;
    if record.state == JobState::Succeeded {
        return Ok(HttpResponse::Ok().json(answer(record.value)));
    }
    if record.state == JobState::Failed {
        return Err(explain_stored(&record));
    }
    let location = format!("/v1/jobs/{}", job.id);
    let mut response = HttpResponse::Accepted();
    response.insert_header((header::LOCATION, location)).insert_header(("Preference-Applied", "respond-async"));
    Ok(response.json(state.view(record)))
}

/// The parameters of a sum.
#[derive(Clone, Copy, Debug)]
struct Question {
    range: NumberRange,
    algorithm: Algorithm,
    verify: bool,
}

impl Question {
    /// Divides the work, off the serving thread if that takes long.
    async fn parse(self, state: &State) -> Result<Parsed, ApiError> {
        let chunk_size = state.chunk_size;
        if self.range.b() < LONG_DIVISION {
            return self.parse_now(chunk_size).map_err(from_invalid);
        }
        let parsed = actix_web::rt::task::spawn_blocking(move || self.parse_now(chunk_size)).await;
        parsed.map_err(|error| ApiError::Internal(error.to_string()))?.map_err(from_invalid)
    }

    fn parse_now(self, chunk_size: NonZeroU64) -> Result<Parsed, InvalidJob> {
        let Self { range, algorithm, verify } = self;
        let (a, b) = (range.a(), range.b());
        let params = format!(r#"{{"a":{a},"b":{b},"algorithm":"{algorithm}","verify":{verify}}}"#);
        let params = RawValue::from_string(params).expect("numbers and names in braces are JSON");
        workloads::kind(JobKind::SUM_OF_PRIMES)?.parse(&params, chunk_size)
    }

    /// The answer without its sum.
    fn answer(self, work: &dyn Workload, started_at: Instant) -> impl FnOnce(u128) -> SumOfPrimes + use<> {
        let Self { range, verify: verified, .. } = self;
        let (tasks, algorithm) = (work.tasks(), work.algorithm().unwrap_or(Algorithm::Sieve));
        move |sum| {
            let elapsed_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            SumOfPrimes { a: range.a(), b: range.b(), sum, algorithm, verified, tasks, elapsed_ms }
        }
    }
}

fn algorithm(query: &Query) -> Result<Algorithm, ApiError> {
    let name = query.one("algorithm")?;
    name.map_or(Ok(Algorithm::Auto), |name| name.parse().map_err(from_invalid))
}

fn priority(query: &Query) -> Result<Priority, ApiError> {
    let invalid = || from_invalid(InvalidJob::new("priority", "must be from 1 to 9, larger sooner"));
    let read = |text: &str| text.parse::<u8>().ok().and_then(|number| Priority::try_from(number).ok());
    query.one("priority")?.map_or(Ok(Priority::default()), |text| read(text).ok_or_else(invalid))
}

/// The preference of a request. Unknown preferences are ignored, as RFC 7240 demands.
fn preference(request: &HttpRequest) -> Preference {
    let headers = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
    let (mut is_async, mut wait) = (false, None);
    for preference in headers.flat_map(|value| value.split(',')) {
        let word = preference.split(';').next().unwrap_or_default();
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let is = |known: &str| name.trim().eq_ignore_ascii_case(known);
        is_async |= is("respond-async");
        // The first of several preferences of one name counts.
        if is("wait") && wait.is_none() {
            wait = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    match wait {
        Some(wait) => Preference::Job { after: wait.min(MAX_WAIT) },
        None if is_async => Preference::Job { after: Duration::ZERO },
        None => Preference::Answer,
    }
}

/// The reason for a job without a sum. A job that a client waits for and a stored job have the same answers.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// No worker has computed it within its time limit.
    Late,
    /// A task failed on every worker that tried it.
    Workers,
    /// The two algorithms disagree.
    Contradiction,
}

impl Cause {
    fn error(self, text: String) -> ApiError {
        match self {
            Self::Late => ApiError::Unavailable(text),
            Self::Workers => ApiError::WorkersFailed(text),
            Self::Contradiction => {
                error!(error = %text, "the results of a job contradict each other");
                ApiError::Failed(text)
            }
        }
    }
}

fn explain(state: &State, failure: JobFailure) -> ApiError {
    let text = failure.to_string();
    match failure {
        JobFailure::Failed(JobError::NoWorker { .. } | JobError::TimedOut) => Cause::Late.error(text),
        JobFailure::Failed(JobError::AttemptsExhausted { .. } | JobError::TasksFailed { .. }) => {
            Cause::Workers.error(text)
        }
        JobFailure::Contradiction(_) => Cause::Contradiction.error(text),
        JobFailure::Stopping => state.members.why_stopping(),
    }
}

/// The error of a stored job that failed. The store keeps only the text of a failure: the rest of the record shows its cause.
fn explain_stored(record: &JobRecord) -> ApiError {
    let text = record.error.clone().unwrap_or_else(|| "it failed".to_owned());
    let cause = if text == JobError::TimedOut.to_string() {
        Cause::Late
    } else if record.tasks_done == record.tasks && contradicts_itself(record) {
        Cause::Contradiction
    } else {
        Cause::Workers
    };
    cause.error(text)
}

/// Whether the sum of a job's tasks is an impossible result.
fn contradicts_itself(record: &JobRecord) -> bool {
    let chunk_size = record.options.chunk_size.unwrap_or(DEFAULT_CHUNK_SIZE);
    let work = workloads::kind(record.kind).and_then(|kind| kind.restore(&record.params, chunk_size));
    work.is_ok_and(|work| work.judge(record.value, record.check).is_err())
}
