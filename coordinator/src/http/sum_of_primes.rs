//! `GET /sum-of-primes?a&b`: a job that lives as long as its client waits, or a stored one for a client that would rather
//! not.

use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use api::{Job, ParsedJob, Problem, SumOfPrimes};
use engine::JobFailure;
use model::{InvalidJob, JobId, JobKind, JobOptions, JobState, NumberRange, Priority};
use scheduler::JobError;
use serde_json::value::RawValue;
use service::{ApiError, range_from_query};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use workloads::Parsed;

use super::State;
use super::errors::from_invalid;
use crate::fingerprint::Fingerprints;
use crate::jobs::Proposal;

/// The longest that `Prefer: wait=…` is followed.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What a client prefers to waiting for the end, by RFC 7240.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preference {
    /// To wait, however long.
    Answer,
    /// A job to come back to, unless the answer is there after so long.
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
        ("priority" = Option<u8>, Query, description = "1 to 9, larger sooner. Default 5", minimum = 1, maximum = 9),
        ("Prefer" = Option<String>, Header, description = "`respond-async` for a job instead of the answer; with `wait=10`, only if it is not there after 10 s"),
    ),
    responses(
        (status = 200, description = "The sum", body = SumOfPrimes),
        (status = 202, description = "A job that computes it, as `Prefer` asked", body = Job, headers(("Location" = String, description = "The job's path"))),
        (status = 400, description = "A parameter is not as it must be", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "A task failed on every worker that tried it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No worker is there, or too many requests are", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn answer(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let started_at = Instant::now();
    let range = range_from_query(request.query_string())?;
    let priority = priority_from_query(request.query_string()).map_err(from_invalid)?;
    let full = |_| ApiError::Unavailable("as many requests as allowed are in flight".to_owned());
    let _permit = state.inflight.try_acquire().map_err(full)?;
    let options = JobOptions { max_attempts: state.max_attempts, priority, ..JobOptions::default() };
    if let Preference::Job { after } = preference(&request) {
        return store_instead(&state, range, options, after, started_at).await;
    }
    let (kind, id) = (JobKind::SUM_OF_PRIMES, JobId(Uuid::now_v7()));
    let work = parse(&state, range).map_err(from_invalid)?.workload;
    let tasks = work.tasks();
    let term = state.term()?;
    let sum = term.driver.ask(id, kind, work, &options).answer().await.map_err(|failure| explain(&state, failure))?;
    Ok(HttpResponse::Ok().json(answer_of(range, sum, tasks, started_at)))
}

async fn store_instead(
    state: &State,
    range: NumberRange,
    options: JobOptions,
    wait: Duration,
    started_at: Instant,
) -> Result<HttpResponse, ApiError> {
    let id = JobId(Uuid::now_v7());
    let work = parse(state, range).map_err(from_invalid)?;
    let tasks = work.workload.tasks();
    let options = JobOptions { chunk_size: Some(state.chunk_size), ..options };
    let fingerprint = Sha256::digest(id.0.as_bytes()).into();
    let proposal = Proposal {
        id: Some(id),
        idempotency_key: None,
        job: ParsedJob { kind: JobKind::SUM_OF_PRIMES, work, options },
        fingerprints: Fingerprints { job: fingerprint, body: fingerprint },
    };
    let (job, _) = state.accept(proposal).await?;
    let record = super::waiting::until_over(state, job.id, wait).await?;
    if record.state == JobState::Succeeded {
        return Ok(HttpResponse::Ok().json(answer_of(range, record.value, tasks, started_at)));
    }
    if record.state == JobState::Failed {
        let error = record.error.unwrap_or_else(|| "it failed".to_owned());
        return Err(ApiError::WorkersFailed(error));
    }
    let location = format!("/v1/jobs/{}", job.id);
    let mut response = HttpResponse::Accepted();
    response.insert_header((header::LOCATION, location)).insert_header(("Preference-Applied", "respond-async"));
    Ok(response.json(state.view(record)))
}

fn parse(state: &State, range: NumberRange) -> Result<Parsed, InvalidJob> {
    let params = format!(r#"{{"a":{},"b":{}}}"#, range.a(), range.b());
    let params = RawValue::from_string(params).expect("numbers in braces are JSON");
    workloads::kind(JobKind::SUM_OF_PRIMES)?.parse(&params, state.chunk_size)
}

fn answer_of(range: NumberRange, sum: u128, tasks: u64, started_at: Instant) -> SumOfPrimes {
    let elapsed_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    SumOfPrimes { a: range.a(), b: range.b(), sum, tasks, elapsed_ms }
}

fn priority_from_query(query: &str) -> Result<Priority, InvalidJob> {
    let invalid = || InvalidJob::new("priority", "must be from 1 to 9, larger sooner");
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(|_| invalid())?;
    let mut values = fields.into_iter().filter(|(name, _)| name == "priority");
    let Some((_, value)) = values.next() else { return Ok(Priority::default()) };
    if values.next().is_some() {
        return Err(InvalidJob::new("priority", "is given more than once"));
    }
    Priority::try_from(value.parse::<u8>().map_err(|_| invalid())?)
}

/// Preferences that are not understood are no preferences, as the standard wants it.
fn preference(request: &HttpRequest) -> Preference {
    let headers = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
    let (mut is_async, mut wait) = (false, None);
    for word in headers.flat_map(|value| value.split(',')).map(str::trim) {
        is_async |= word.eq_ignore_ascii_case("respond-async");
        if let Some(seconds) = word.strip_prefix("wait=") {
            wait = seconds.trim().parse().ok().map(Duration::from_secs);
        }
    }
    match wait {
        Some(wait) => Preference::Job { after: wait.min(MAX_WAIT) },
        None if is_async => Preference::Job { after: Duration::ZERO },
        None => Preference::Answer,
    }
}

fn explain(state: &State, failure: JobFailure) -> ApiError {
    match failure {
        JobFailure::Failed(error @ (JobError::NoWorker { .. } | JobError::TimedOut)) => {
            ApiError::Unavailable(error.to_string())
        }
        JobFailure::Failed(error @ (JobError::AttemptsExhausted { .. } | JobError::TasksFailed { .. })) => {
            ApiError::WorkersFailed(error.to_string())
        }
        JobFailure::Stopping => state.members.why_stopping(),
    }
}
