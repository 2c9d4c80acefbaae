//! `/v1/jobs`: submit, list, show and change jobs.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, Json, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{Changed, Explanation, Job, JobPage, JobRequest, Problem};
use model::{JobId, JobState, split_word};
use serde::Deserialize;
use service::{ApiError, Caller, Query, read_body, trace, with_body_counted};
use store::{JobFilter, Submission};
use utoipa::IntoParams;
use uuid::Uuid;

use super::State;
use super::errors::{from_change, from_invalid, from_read};
use super::following::as_leader_sees_it;
use super::job_pages;
use super::programs::{admit_carried_code, demand_programs};
use super::query::{page_limit, page_token};
use crate::accepting::Proposal;
use crate::carried_code::carries_code;
use crate::jobs::Action;
use crate::programs::{AdmitError, Programs, is_program};
use crate::repeated::first_asked_at;
use crate::submission;

/// Longest time that a job may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Query of a list or of a change by filter.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which may come more than once and are read one by one")]
pub(super) struct FilterQuery {
    /// Only jobs in this state. May be given more than once.
    #[param(inline, value_type = Option<api::schema::JobState>)]
    state: Option<JobState>,
    /// Only jobs of this kind.
    #[param(inline, value_type = Option<api::schema::JobKind>)]
    kind: Option<model::JobKind>,
    /// Only jobs with this tag, as `key`, `key:value` or `key=value`. May be given more than once.
    tag: Option<String>,
}

/// Query of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which are read one by one")]
pub(super) struct PageQuery {
    /// The `next_page_token` of the page before.
    page_token: Option<String>,
    /// The most to list, 1 to 1000; a page ends early after 8 MiB. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Submits a job. The job is on the disk when the answer comes.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    operation_id = "submit_job",
    tag = "jobs",
    request_body = JobRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "A key of this request: a request with the same key gets the same job", min_length = 1, max_length = 256)),
    responses(
        (status = 201, description = "Accepted and stored", body = Job, headers(("Location" = String, description = "The job's path"))),
        (status = 200, description = "The same request was accepted before", body = Job, headers(("Location" = String, description = "The job's path"))),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The job runs code of its client's, and the token lacks the right `programs`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Another job was submitted under this key", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn submit(
    state: Data<State>,
    request: HttpRequest,
    caller: Caller,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    accept(&state, None, &request, &caller, body).await
}

/// Submits a job under an id that the client has chosen.
#[utoipa::path(
    put,
    path = "/v1/jobs/{id}",
    operation_id = "put_job",
    tag = "jobs",
    request_body = JobRequest,
    params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 201, description = "Accepted and stored", body = Job, headers(("Location" = String, description = "The job's path"))),
        (status = 200, description = "The same job was accepted before", body = Job, headers(("Location" = String, description = "The job's path"))),
        (status = 400, description = "A field is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The job runs code of its client's, and the token lacks the right `programs`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Another job has this id", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    caller: Caller,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    let id = job_id(&path)?;
    accept(&state, Some(id), &request, &caller, body).await
}

async fn accept(
    state: &State,
    id: Option<JobId>,
    request: &HttpRequest,
    caller: &Caller,
    body: Payload,
) -> Result<HttpResponse, ApiError> {
    let invalid = |message: &str| ApiError::InvalidField { field: "Idempotency-Key", message: message.to_owned() };
    let mut keys = request.headers().get_all("idempotency-key").map(|key| key.to_str().map(str::to_owned));
    let idempotency_key = keys.next().transpose().map_err(|_| invalid("must be readable text"))?;
    if keys.next().is_some() {
        return Err(invalid("is given more than once: give it once"));
    }
    let body = read_body(request, body, state.max_job_bytes, BODY_TIMEOUT, &state.bodies).await?;
    let chunk_size = state.chunk_size;
    let parsed = with_body_counted(body, move |body| {
        let (job, fingerprints) = submission::read(body, chunk_size, None)?;
        let (bytes, carries_code) = (job.memory_bytes(), carries_code(&job));
        Ok(((job, fingerprints, carries_code), bytes))
    });
    let ((mut job, fingerprints, carries_code), reservation) = parsed.await?;
    let mut missing = None;
    if is_program(job.kind) {
        demand_programs(caller)?;
        match state.programs.admit(&mut job).await {
            // The job may have been accepted before: its program can be deleted when the job is over.
            Err(AdmitError::Missing(invalid)) if id.is_some() || idempotency_key.is_some() => {
                Programs::admit_repeated(&mut job);
                missing = Some(invalid);
            }
            admitted => admitted.map_err(from_admit)?,
        }
    }
    admit_carried_code(state, caller, &mut job, carries_code)?;
    // Not a part of the fingerprint: the same job under another token is the same.
    job.options.submitted_by = caller.name().map(|name| name.to_string());
    job.options.trace = trace::current();
    let proposal = Proposal { id, idempotency_key, job, fingerprints, reservation: Some(reservation) };
    let accepted = match (state.accept(proposal).await, missing) {
        (Err(ApiError::Conflict(_)), Some(invalid)) => return Err(from_invalid(invalid)),
        (accepted, _) => accepted?,
    };
    let submission = accepted.submission;
    if let Submission::Existing(existing) = submission
        && id.is_some_and(|id| id != existing)
    {
        // The key names a job of another id: the client would never find its own id.
        return Err(ApiError::Mismatch(format!("job {existing} has the same idempotency key and another id")));
    }
    let job = as_leader_sees_it(state, request, accepted).await;
    let mut response = match submission {
        Submission::New => HttpResponse::Created(),
        Submission::Existing(_) => HttpResponse::Ok(),
    };
    Ok(response.insert_header((header::LOCATION, format!("/v1/jobs/{}", job.id))).json(job))
}

/// Lists jobs, the newest first.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    operation_id = "list_jobs",
    tag = "jobs",
    params(FilterQuery, PageQuery),
    responses(
        (status = 200, description = "A page of jobs", body = JobPage),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request.query_string())?;
    let (filter, limit) = (filter(&query)?, page_limit(&query)?);
    state.catch_up_with_views(&filter.states).await;
    let (records, next) =
        job_pages::page(&state.store, &filter, page_token(&query)?, limit).await.map_err(from_read)?;
    let jobs = state.views(records, &filter.states);
    state.answers.answer_value(&JobPage { jobs, next_page_token: next.map(|next| next.to_string()) })
}

fn filter(query: &Query) -> Result<JobFilter, ApiError> {
    let states = query.all("state").map(|state| state.parse::<JobState>().map_err(from_invalid));
    let tags = query.all("tag").map(tag);
    Ok(JobFilter { states: states.collect::<Result<_, _>>()?, kind: kind(query)?, tags: tags.collect() })
}

/// The kind in a query.
pub(super) fn kind(query: &Query) -> Result<Option<model::JobKind>, ApiError> {
    let known = |kind: model::JobKind| workloads::kind(kind).map(|known| known.name());
    query.one("kind")?.map(|kind| kind.parse().and_then(known).map_err(from_invalid)).transpose()
}

/// A tag in a query: `key`, `key:value` or `key=value`.
pub(super) fn tag(text: &str) -> (String, Option<String>) {
    let (key, value) = split_word(text);
    (key.to_owned(), value.map(str::to_owned))
}

/// A job: its state, its progress, the timestamps of its stages.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    operation_id = "show_job",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(state: Data<State>, path: Path<String>) -> Result<Json<Job>, ApiError> {
    let id = job_id(&path)?;
    let record = state.store.job(id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
    Ok(Json(state.view(record)))
}

/// The reason why the tasks of a job wait.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/explain",
    operation_id = "explain_job",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The reasons", body = Explanation),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn explain(state: Data<State>, path: Path<String>) -> Result<Json<Explanation>, ApiError> {
    let id = job_id(&path)?;
    let explanation = state.term()?.jobs.explain(id).await.map_err(from_read)?;
    explanation.map(Json).ok_or_else(|| unknown(id))
}

/// Changes a job: `cancel`, `pause`, `resume` or `retry`. Idempotent.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/{action}",
    operation_id = "change_job",
    tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "The job's id"),
        ("action" = String, Path, description = "`cancel`, `pause`, `resume` or `retry`", pattern = "^(cancel|pause|resume|retry)$"),
    ),
    responses(
        (status = 200, description = "The job as it is now", body = Job),
        (status = 404, description = "There is no such job or action", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job is over", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn act(
    state: Data<State>,
    path: Path<(String, String)>,
    request: HttpRequest,
) -> Result<Json<Job>, ApiError> {
    let (id, name) = path.into_inner();
    let (id, action) = (job_id(&id)?, action(&name, &request)?);
    state.term()?.jobs.act_once(id, action, first_asked_at(&request)?).await.map(Json).map_err(from_change)
}

/// Changes every job that matches a filter: `cancel`, `pause`, `resume` or `retry`, which takes canceled jobs only by `state`.
#[utoipa::path(
    post,
    path = "/v1/jobs/all/{action}",
    operation_id = "change_jobs",
    tag = "jobs",
    params(
        FilterQuery,
        ("action" = String, Path, description = "`cancel`, `pause`, `resume` or `retry`", pattern = "^(cancel|pause|resume|retry)$"),
    ),
    responses(
        (status = 200, description = "The numbers of jobs that matched and that changed", body = Changed),
        (status = 400, description = "A parameter is invalid, or there is no filter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such action", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Nothing can be stored", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn act_on_all(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<Json<Changed>, ApiError> {
    let action = action(&path, &request)?;
    let query = Query::parse(request.query_string())?;
    if query.is_empty() {
        let message = "is missing: name the jobs by state, kind or tag".to_owned();
        return Err(ApiError::InvalidField { field: "state", message });
    }
    let (filter, asked_at) = (filter(&query)?, first_asked_at(&request)?);
    state.term()?.jobs.act_on_all(filter, action, asked_at).await.map(Json).map_err(from_change)
}

fn from_admit(error: AdmitError) -> ApiError {
    match error {
        AdmitError::Invalid(invalid) | AdmitError::Missing(invalid) => from_invalid(invalid),
        AdmitError::Read(error) => from_read(error),
    }
}

pub(super) fn action(name: &str, request: &HttpRequest) -> Result<Action, ApiError> {
    let named = Action::ALL.into_iter().find(|action| action.name() == name);
    named.ok_or_else(|| ApiError::NotFound(request.path().to_owned()))
}

/// The id in a path.
pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    Uuid::try_parse(text)
        .map(JobId)
        .map_err(|_| ApiError::Unknown(format!("there is no job {text:?}: an id is a UUID")))
}

pub(super) fn unknown(id: JobId) -> ApiError {
    ApiError::Unknown(format!("there is no job {id}"))
}
