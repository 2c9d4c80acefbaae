//! `/jobs/{id}/{action}` and `/jobs/all/{action}`: changes of one job and of many.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use api::{Changed, Job};
use dashboard::{BulkChange, JobQuery, bulk_page, job_question_page};
use jiff::Timestamp;
use model::JobState;
use service::ApiError;

use super::super::State;
use super::super::errors::{from_change, from_invalid, from_read};
use super::super::jobs::{action, job_id, unknown};
use super::jobs::{MAX_LOOKED_AT, filter, find, oldest};
use super::page::{PageError, Visit, html, see_other};
use crate::jobs::{Action, ChangeError};
use crate::repeated::first_asked_at;

/// Jobs that a confirmation page shows.
const SHOWN: usize = 10;

pub(super) async fn act(
    state: Data<State>,
    path: Path<(String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, PageError> {
    let (id, name) = path.into_inner();
    let action = action(&name, &request).map_err(PageError::of_jobs)?;
    let id = job_id(&id).map_err(PageError::of_jobs)?;
    let page = format!("/jobs/{id}");
    match state.term()?.jobs.act_once(id, action, first_asked_at(&request)?).await {
        Ok(_) => Ok(see_other(&page)),
        Err(error @ ChangeError::Unknown(_)) => Err(PageError::of_jobs(from_change(error))),
        Err(error) => Err(PageError::with_way(from_change(error), page, "To the job")),
    }
}

/// The confirmation page of a change of one job.
pub(super) async fn ask_of_one(
    state: Data<State>,
    path: Path<(String, String)>,
    request: HttpRequest,
    visit: Visit,
) -> Result<HttpResponse, PageError> {
    visit.demand_read()?;
    let (id, name) = path.into_inner();
    let action = action(&name, &request).map_err(PageError::of_jobs)?;
    let id = job_id(&id).map_err(PageError::of_jobs)?;
    let record = state.store.job(id).await.map_err(from_read)?.ok_or_else(|| PageError::of_jobs(unknown(id)))?;
    Ok(html(StatusCode::OK, &job_question_page(&visit.viewer(""), &state.view(record), action.name())))
}

/// The confirmation page of a bulk change, with the number of jobs that would change.
pub(super) async fn ask(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
    visit: Visit,
) -> Result<HttpResponse, PageError> {
    visit.demand_read()?;
    let action = action(&path, &request)?;
    let query = query(&request)?;
    let changing = changing(&query, action);
    let Counted { count, is_more, newest } = match &changing {
        Some(changing) => count(&state, changing).await?,
        None => Counted::default(),
    };
    let change = BulkChange { action: action.name(), query: &query, count, is_more, newest: &newest };
    Ok(html(StatusCode::OK, &bulk_page(&visit.viewer(""), &change)))
}

/// The jobs that match a query.
#[derive(Default)]
struct Counted {
    count: u64,
    /// Whether there may be more jobs.
    is_more: bool,
    newest: Vec<Job>,
}

/// Counts the jobs of a query. A text is searched job by job, up to a bound.
async fn count(state: &State, query: &JobQuery) -> Result<Counted, ApiError> {
    let most = usize::try_from(MAX_LOOKED_AT).unwrap_or(usize::MAX);
    let found = find(state, query, if query.text.is_some() { most } else { SHOWN }).await?;
    let (count, is_more) = match query.text {
        Some(_) => (found.records.len() as u64, found.next.is_some()),
        None => {
            let filter = filter(query).map_err(from_invalid)?;
            (state.store.count(filter, oldest(query)).await.map_err(from_read)?, false)
        }
    };
    let newest = found.records.into_iter().take(SHOWN).map(|record| state.view(record)).collect();
    Ok(Counted { count, is_more, newest })
}

pub(super) async fn act_on_all(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, PageError> {
    let action = action(&path, &request)?;
    let (query, asked_at) = (query(&request)?, first_asked_at(&request)?);
    let changed = match changing(&query, action) {
        None => Changed { matched: 0, changed: 0 },
        Some(changing) if changing.text.is_none() && changing.since.is_none() => {
            let filter = filter(&changing).map_err(from_invalid)?;
            state.term()?.jobs.act_on_all(filter, action, asked_at).await.map_err(from_change)?
        }
        Some(changing) => act_on_found(&state, changing, action, asked_at).await?,
    };
    let outcome = serde_urlencoded::to_string([("matched", changed.matched), ("changed", changed.changed)]);
    Ok(see_other(&format!("/jobs?{}&done={}&{}", query.filter(), action.name(), outcome.unwrap_or_default())))
}

/// Changes the jobs of a query with a text or a time, which the store cannot filter by: jobs are found and changed page by
/// page.
async fn act_on_found(
    state: &State,
    mut query: JobQuery,
    action: Action,
    asked_at: Option<Timestamp>,
) -> Result<Changed, ApiError> {
    let mut total = Changed { matched: 0, changed: 0 };
    loop {
        let found = find(state, &query, 1_000).await?;
        let ids: Vec<_> = found.records.iter().map(|record| record.id).collect();
        let changed = state.term()?.jobs.act_on_some(&ids, action, asked_at).await.map_err(from_change)?;
        total.matched += changed.matched;
        total.changed += changed.changed;
        match found.next {
            Some(next) => query.page = Some(next.to_string()),
            None => return Ok(total),
        }
    }
}

fn query(request: &HttpRequest) -> Result<JobQuery, ApiError> {
    let query = JobQuery { page: None, ..JobQuery::parse(request.query_string()).map_err(from_invalid)? };
    if query.is_all() {
        let message = "is missing: filter the jobs by state, kind, tag, text or time".to_owned();
        return Err(ApiError::InvalidField { field: "filter", message });
    }
    Ok(query)
}

/// The query for the jobs that an action changes; `None` where none of the filter's states can change by it. Canceled jobs are
/// retried only where the filter names their state.
fn changing(query: &JobQuery, action: Action) -> Option<JobQuery> {
    use JobState::{Canceled, Failed, Paused, Queued, Running};
    let able: &[JobState] = match action {
        Action::Cancel => &[Queued, Running, Paused],
        Action::Pause => &[Queued, Running],
        Action::Resume => &[Paused],
        Action::Retry if query.states.is_empty() => &[Failed],
        Action::Retry => &[Failed, Canceled],
    };
    let is_wanted = |state: &&JobState| query.states.is_empty() || query.states.contains(state);
    let states: Vec<_> = able.iter().filter(is_wanted).copied().collect();
    (!states.is_empty()).then(|| JobQuery { states, ..query.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canceled_jobs_are_retried_only_where_the_filter_names_their_state() {
        let states = |filter: &str| {
            let query = JobQuery::parse(filter).expect("a filter");
            changing(&query, Action::Retry).map(|query| query.states)
        };
        assert_eq!(states("tag=a"), Some(vec![JobState::Failed]));
        assert_eq!(states("state=canceled"), Some(vec![JobState::Canceled]));
        assert_eq!(states("state=running"), None);
    }
}
