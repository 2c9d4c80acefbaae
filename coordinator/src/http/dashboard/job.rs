//! `/jobs/{id}`: a job.

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use api::Job;
use dashboard::{JobDetails, TaskList, TaskLogs, job_page};
use model::{JobId, TaskState};
use service::ApiError;
use store::JobRecord;

use super::super::State;
use super::super::errors::{from_invalid, from_read};
use super::super::jobs::{job_id, unknown};
use super::super::results::stream;
use super::super::{logs, tasks};
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html};
use crate::programs::is_program;

/// Tasks per page.
const TASKS: usize = 100;

/// Events that the page shows.
const SHOWN_EVENTS: usize = 40;

/// Bytes of the result that the page shows.
const SHOWN_RESULT_BYTES: usize = 4_096;

pub(super) async fn show(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    visit: Visit,
) -> Result<HttpResponse, PageError> {
    shown(&state, &path, request.query_string(), &visit).await.map_err(PageError::of_jobs)
}

async fn shown(state: &State, path: &str, query: &str, visit: &Visit) -> Result<HttpResponse, ApiError> {
    let dashboard = dashboard_of(state)?;
    let version = dashboard.version_of_stored(state).await?;
    let id = job_id(path)?;
    let record = state.store.job(id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
    // Only the leader knows the reason why a job waits.
    let explanation = match state.role.term().filter(|_| !record.state.is_over()) {
        Some(term) => term.jobs.explain(id).await.map_err(from_read)?,
        None => None,
    };
    let tasks = tasks_of(state, &record, query).await?;
    let events = state.store.last_events(id, SHOWN_EVENTS).await.map_err(from_read)?;
    let result = beginning_of_result(state, id).await?;
    let job = state.view(record);
    let stderr = stderr_of(state, &job, tasks.as_ref(), query).await?;
    let (explanation, tasks) = (explanation.as_ref(), tasks.as_ref());
    let page = JobDetails { job: &job, explanation, tasks, events: &events, result, stderr };
    Ok(html(StatusCode::OK, &job_page(&visit.viewer(&version), &page)))
}

/// The result, as a file to download.
pub(super) async fn result(state: Data<State>, path: Path<String>) -> Result<HttpResponse, PageError> {
    let id = job_id(&path).map_err(PageError::of_jobs)?;
    let result = state.store.result_stream(id).await.map_err(from_read)?;
    let result = result.ok_or_else(|| {
        let error = ApiError::Unknown(format!("there is no result of the job {id}"));
        PageError::with_way(error, format!("/jobs/{id}"), "To the job")
    })?;
    let mut response = stream(result).await?;
    let name = format!("attachment; filename=\"{id}.json\"");
    let name = header::HeaderValue::try_from(name).map_err(|error| ApiError::Internal(error.to_string()))?;
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    Ok(response)
}

async fn tasks_of(state: &State, record: &JobRecord, query: &str) -> Result<Option<TaskList>, ApiError> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let wanted = field("tasks").map(|name| name.parse::<TaskState>().map_err(from_invalid)).transpose()?;
    let first = field("first").and_then(|first| first.parse().ok()).unwrap_or(0);
    let page = tasks::page(state, record, wanted, first, TASKS).await?;
    Ok(page.map(|page| TaskList { page, state: wanted, first }))
}

/// The stderr of the task that the address names, else of a failed or running task of the page, else of the first task.
async fn stderr_of(
    state: &State,
    job: &Job,
    tasks: Option<&TaskList>,
    query: &str,
) -> Result<Option<TaskLogs>, ApiError> {
    if !is_program(job.kind) {
        return Ok(None);
    }
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let named = fields.iter().find(|(field, _)| field == "stderr").and_then(|(_, task)| task.parse().ok());
    let tasks = || tasks.into_iter().flat_map(|tasks| &tasks.page.tasks);
    let telling = [TaskState::Failed, TaskState::Running];
    let telling = telling.iter().find_map(|state| tasks().find(|task| task.state == *state));
    let task = named.or_else(|| telling.or_else(|| tasks().next()).map(|task| task.index)).unwrap_or(0);
    let logs = logs::of_task(state, &state.store, job.id, task).await?;
    Ok(Some(TaskLogs { task, logs }))
}

async fn beginning_of_result(state: &State, id: JobId) -> Result<Option<(String, u64)>, ApiError> {
    let Some(mut result) = state.store.result_stream(id).await.map_err(from_read)? else { return Ok(None) };
    let size = result.bytes();
    let first = result.next().await.map_err(from_read)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&first);
    let end = text.floor_char_boundary(SHOWN_RESULT_BYTES.min(text.len()));
    Ok(Some((text[..end].to_owned(), size)))
}
