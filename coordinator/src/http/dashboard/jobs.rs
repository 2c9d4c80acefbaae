//! `/jobs`: the list of jobs with its filter.

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use dashboard::{JobList, JobQuery, bulk_outcome, jobs_page};
use jiff::Timestamp;
use model::{InvalidJob, JobId};
use serde::Serialize;
use service::ApiError;
use store::{Cursor, JobFilter, JobRecord, ReadError};

use super::super::State;
use super::super::errors::{from_invalid, from_read};
use super::super::jobs::{job_id, tag};
use super::overview::dashboard_of;
use super::page::{PageError, Visit, html};
use crate::clock::now;

/// Jobs per page.
const PAGE: usize = 50;

/// Jobs whose end a browser may wait for.
const MAX_AWAITED: usize = 50;

/// Jobs read at a time during the search for a text, and the most jobs that one request examines.
const LOOKED_AT_ONCE: usize = 1_000;
pub(super) const MAX_LOOKED_AT: u64 = 20_000;

/// Jobs that match a query.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<JobRecord>,
    /// The place of the next page.
    pub(super) next: Option<Cursor>,
    /// Number of examined jobs, where the search ended at its bound.
    pub(super) gave_up_after: Option<u64>,
}

pub(super) async fn list(state: Data<State>, request: HttpRequest, visit: Visit) -> Result<HttpResponse, PageError> {
    let dashboard = dashboard_of(&state)?;
    // Taken before the jobs are read: a later change makes another version.
    let version = dashboard.version_of_stored(&state).await?;
    let (query, error) = match JobQuery::parse(request.query_string()) {
        Ok(query) => (query, None),
        Err(error) => (JobQuery::default(), Some(format!("{} {}", error.field, error.message))),
    };
    let found = if error.is_none() { find(&state, &query, PAGE).await } else { Ok(Found::default()) };
    let (found, error) = match found {
        Err(wrong @ ApiError::InvalidField { .. }) => (Found::default(), Some(wrong.to_string())),
        found => (found?, error),
    };
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let jobs = state.views(found.records, &query.states);
    let next = found.next.map(|next| next.to_string());
    let list = JobList {
        query: &query,
        jobs: &jobs,
        next: next.as_deref(),
        gave_up_after: found.gave_up_after,
        error,
        changed: changed(request.query_string()),
    };
    Ok(html(status, &jobs_page(&visit.viewer(&version), &list)))
}

/// The figures of a bulk change, from the query of the address that it redirected to.
fn changed(query: &str) -> Option<String> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    bulk_outcome(field("done")?, field("changed")?.parse().ok()?, field("matched")?.parse().ok()?)
}

/// The final states of the jobs that a browser waits for and that are over, as JSON.
pub(super) async fn states(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, PageError> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    let ids = fields.iter().filter(|(name, _)| name == "id").take(MAX_AWAITED);
    let mut over = Vec::new();
    for (_, id) in ids {
        let Ok(id) = job_id(id) else { continue };
        let ended = match state.store.job(id).await {
            Ok(Some(record)) if record.state.is_over() => {
                Ended { id, kind: record.kind.to_string(), state: record.state.as_str() }
            }
            // A job that cannot be read waits for a coordinator that can read it.
            Ok(Some(_)) | Err(ReadError::Unreadable { .. }) => continue,
            Ok(None) => Ended { id, kind: "job".to_owned(), state: "forgotten" },
            Err(error) => return Err(from_read(error).into()),
        };
        over.push(ended);
    }
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(over))
}

/// A job that is over.
#[derive(Serialize)]
struct Ended {
    id: JobId,
    kind: String,
    state: &'static str,
}

/// A query's filter in the store's terms: text and time are compared job by job.
pub(super) fn filter(query: &JobQuery) -> Result<JobFilter, InvalidJob> {
    let kind = query.kind.map(|kind| workloads::kind(kind).map(|known| known.name())).transpose()?;
    let tags = query.tags.iter().map(|text| tag(text));
    Ok(JobFilter { states: query.states.clone(), kind, tags: tags.collect() })
}

/// The earliest submission of a job that matches a query.
pub(super) fn oldest(query: &JobQuery) -> Option<Timestamp> {
    query.since.and_then(|since| now().at.checked_sub(since.age).ok())
}

/// The newest jobs that match a query, at most `limit`, from its page on.
pub(super) async fn find(state: &State, query: &JobQuery, limit: usize) -> Result<Found, ApiError> {
    let filter = filter(query).map_err(from_invalid)?;
    let invalid = |_| ApiError::InvalidField { field: "page", message: "is not a page of this list".to_owned() };
    let mut before: Option<Cursor> = query.page.as_deref().map(str::parse).transpose().map_err(invalid)?;
    let oldest = oldest(query);
    let text = query.text.as_deref().map(str::to_lowercase);
    state.catch_up_with_views(&filter.states).await;
    let step = if text.is_some() { LOOKED_AT_ONCE } else { limit + 1 };
    let (mut found, mut looked_at) = (Found::default(), 0);
    loop {
        let page = state.store.jobs(filter.clone(), before, step).await.map_err(from_read)?;
        let is_last = page.len() < step;
        for record in page {
            if is_older(&record, oldest) {
                return Ok(found);
            }
            looked_at += 1;
            let cursor = Cursor::from(&record);
            if text.as_deref().is_none_or(|text| contains(&record, text)) {
                if found.records.len() == limit {
                    found.next = before;
                    return Ok(found);
                }
                found.records.push(record);
            }
            before = Some(cursor);
        }
        if is_last {
            return Ok(found);
        }
        if looked_at >= MAX_LOOKED_AT {
            (found.next, found.gave_up_after) = (before, Some(looked_at));
            return Ok(found);
        }
    }
}

fn is_older(record: &JobRecord, oldest: Option<Timestamp>) -> bool {
    oldest.is_some_and(|oldest| record.submitted_at < oldest)
}

/// Whether a text, in lower case, occurs in the id, the kind, the parameters, a tag, the output's name or the error.
fn contains(record: &JobRecord, text: &str) -> bool {
    let has = |words: &str| words.to_lowercase().contains(text);
    has(&record.id.to_string())
        || has(record.kind.as_str())
        || has(record.params.get())
        || record.options.tags.iter().any(|(key, value)| has(key) || has(value))
        || record.options.output.as_deref().is_some_and(has)
        || record.error.as_deref().is_some_and(has)
}
