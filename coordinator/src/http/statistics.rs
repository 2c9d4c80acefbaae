//! `/v1/statistics`: figures by period and kind, from the store alone.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use api::{PeriodStatistics, Problem, StatisticsPage, TaskStarts, TaskStartsPage, csv_lines};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use model::{Grain, JobKind};
use serde::{Deserialize, Serialize};
use service::{ApiError, prefers_to_json};
use store::statistics::{PeriodKey, Query, TaskKey};
use utoipa::IntoParams;

use super::State;
use super::errors::{from_invalid, from_read};
use super::query::{MAX_LIMIT, invalid_page_token, limit_or};
use crate::clock::now;

/// The parameters of both lists.
pub(super) const PARAMETERS: &[&str] = &["grain", "from", "to", "kind", "page_token", "limit"];
/// The parameters of the list of periods.
pub(super) const PERIOD_PARAMETERS: &[&str] = &["grain", "from", "to", "kind", "page_token", "limit", "fill"];

/// Query of statistics.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which are read one by one")]
pub(super) struct StatisticsQuery {
    /// Length of the periods. Default `hour`.
    #[param(inline, value_type = Option<api::schema::Grain>)]
    grain: Option<Grain>,
    /// From the period of this time on, in RFC 3339, or a date for its midnight in UTC. Default: 1 hour, 1 day, 31 days, 26
    /// weeks or 2 years before `to`, by the grain.
    from: Option<String>,
    /// Periods that begin before this time. Default: now.
    to: Option<String>,
    /// Only jobs of this kind.
    #[param(inline, value_type = Option<api::schema::JobKind>)]
    kind: Option<JobKind>,
    /// The `next_page_token` of the page before.
    page_token: Option<String>,
    /// The most to list, 1 to 1000. Default 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Query of the list of periods, beside the query of both lists.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameter")]
pub(super) struct FillQuery {
    /// Whether periods in which nothing of a kind was counted are listed too while jobs of it are open, up to now. Default
    /// `false`.
    fill: Option<bool>,
}

/// Figures by period and kind of job: as JSON, or with `Accept: text/csv` as CSV without the buckets.
#[utoipa::path(
    get,
    path = "/v1/statistics",
    operation_id = "statistics",
    tag = "statistics",
    params(StatisticsQuery, FillQuery),
    responses(
        (status = 200, description = "A page of periods; with CSV, the next page is in the header Link", content((StatisticsPage = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn periods(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let fields = service::Query::parse(request.query_string())?;
    let (wanted, is_filled) = (Wanted::parse(&fields)?, fields.parsed("fill")?.unwrap_or(false));
    let after = wanted.page_token.as_deref().map(period_key).transpose()?;
    let (grain, mut query) = (wanted.query.grain, wanted.query);
    let rows = if is_filled {
        query.starts.end = query.starts.end.min(now().at);
        state.store.filled_periods(query, after, wanted.limit + 1).await
    } else {
        state.store.periods(query, after, wanted.limit + 1).await
    };
    let rows = rows.map_err(from_read)?;
    let next_page_token = next(&rows, wanted.limit, |row| format!("{}.{}", row.start.as_second(), row.kind));
    let rows = rows.iter().take(wanted.limit);
    let periods = rows.map(|row| PeriodStatistics::new(grain, row.start, row.kind, &row.counts)).collect();
    let page = StatisticsPage { grain, periods, next_page_token };
    let table = || (StatisticsPage::COLUMNS.map(str::to_owned).to_vec(), page.records().collect());
    Ok(answer(&request, &page, page.next_page_token.as_deref(), table))
}

/// Starts of tasks by period, kind of job and name: as JSON, or with `Accept: text/csv` as CSV.
#[utoipa::path(
    get,
    path = "/v1/statistics/tasks",
    operation_id = "task_statistics",
    tag = "statistics",
    params(StatisticsQuery),
    responses(
        (status = 200, description = "A page of names; with CSV, the next page is in the header Link", content((TaskStartsPage = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn tasks(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let wanted = Wanted::parse(&service::Query::parse(request.query_string())?)?;
    let after = wanted.page_token.as_deref().map(task_key).transpose()?;
    let grain = wanted.query.grain;
    let rows = state.store.task_starts(wanted.query, after, wanted.limit + 1).await.map_err(from_read)?;
    let token = |row: &store::statistics::TaskRow| format!("{}.{}.{}", row.start.as_second(), row.kind, row.task);
    let next_page_token = next(&rows, wanted.limit, token);
    let rows = rows.into_iter().take(wanted.limit);
    let tasks = rows.map(|row| TaskStarts {
        start: row.start,
        end: grain.end_of(row.start),
        kind: row.kind,
        task: row.task,
        starts: row.starts,
    });
    let page = TaskStartsPage { grain, tasks: tasks.collect(), next_page_token };
    let table = || (TaskStartsPage::COLUMNS.map(str::to_owned).to_vec(), page.records().collect());
    Ok(answer(&request, &page, page.next_page_token.as_deref(), table))
}

/// A request for statistics.
struct Wanted {
    query: Query,
    page_token: Option<String>,
    limit: usize,
}

impl Wanted {
    fn parse(fields: &service::Query) -> Result<Self, ApiError> {
        let grain = fields.one("grain")?.map(|name| name.parse::<Grain>().map_err(from_invalid)).transpose()?;
        let grain = grain.unwrap_or(Grain::Hour);
        let end = fields.one("to")?.map(|text| time("to", text)).transpose()?;
        let to = end.unwrap_or_else(|| now().at);
        let from = fields.one("from")?.map(|text| time("from", text)).transpose()?;
        let from = from.unwrap_or_else(|| to.checked_sub(usual_span(grain)).unwrap_or(Timestamp::MIN));
        if from > to {
            let bound = if end.is_some() { "\"to\"" } else { "now, where \"to\" is not given" };
            return Err(ApiError::InvalidField { field: "from", message: format!("must not be after {bound}") });
        }
        let kind = super::jobs::kind(fields)?;
        let limit = limit_or(fields, MAX_LIMIT)?;
        let page_token = fields.one("page_token")?.map(str::to_owned);
        Ok(Self { query: Query { grain, starts: from..to, kind }, page_token, limit })
    }
}

/// Time span of a list without `from` in the query.
pub(super) fn usual_span(grain: Grain) -> Duration {
    let days = |days: u64| Duration::from_hours(24 * days);
    match grain {
        Grain::Minute => Duration::from_hours(1),
        Grain::Hour => days(1),
        Grain::Day => days(31),
        Grain::Week => days(26 * 7),
        Grain::Month => days(731),
    }
}

fn time(field: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    // The last dates of the calendar, which stand for no end, lie beyond the last timestamp.
    let of_midnight = |date: Date| date.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |midnight| midnight.timestamp());
    let date = || text.parse::<Date>().ok().filter(|date| date.year() > 0).map(of_midnight);
    // A date with a time of day and no zone would be read as the date alone.
    let found = text.parse().ok().or_else(|| date().filter(|_| !text.contains([':', 'T', ' '])));
    found.ok_or_else(|| ApiError::InvalidField {
        field,
        message: "must be a time such as 2026-03-21T10:00:00Z, or a date such as 2026-03-21".to_owned(),
    })
}

fn period_key(token: &str) -> Result<PeriodKey, ApiError> {
    let (start, kind) = token.split_once('.').ok_or_else(invalid_page_token)?;
    let start =
        start.parse().ok().and_then(|second| Timestamp::from_second(second).ok()).ok_or_else(invalid_page_token)?;
    Ok((start, kind.parse().map_err(|_| invalid_page_token())?))
}

fn task_key(token: &str) -> Result<TaskKey, ApiError> {
    let (start, rest) = token.split_once('.').ok_or_else(invalid_page_token)?;
    let (kind, task) = rest.split_once('.').ok_or_else(invalid_page_token)?;
    let (start, kind) = period_key(&format!("{start}.{kind}"))?;
    Ok((start, kind, task.to_owned()))
}

/// The token of the next page, where more rows than `limit` were found.
fn next<R>(rows: &[R], limit: usize, token: impl Fn(&R) -> String) -> Option<String> {
    rows.get(limit).and(rows.get(limit - 1)).map(token)
}

/// The page in the form that the client accepts.
fn answer(
    request: &HttpRequest,
    page: &impl Serialize,
    next_page_token: Option<&str>,
    table: impl FnOnce() -> (Vec<String>, Vec<Vec<String>>),
) -> HttpResponse {
    if !prefers_to_json(request.headers(), ("text", "csv")) {
        return HttpResponse::Ok().insert_header((header::VARY, "Accept")).json(page);
    }
    let mut response = HttpResponse::Ok();
    response.insert_header((header::VARY, "Accept")).content_type("text/csv; charset=utf-8; header=present");
    if let Some(token) = next_page_token {
        response.insert_header((header::LINK, next_link(request, token)));
    }
    let (head, rows) = table();
    response.body(csv_lines(std::iter::once(head).chain(rows)))
}

/// The next page as RFC 8288 names it.
fn next_link(request: &HttpRequest, token: &str) -> String {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    let mut fields: Vec<_> = fields.into_iter().filter(|(name, _)| name != "page_token").collect();
    fields.push(("page_token".to_owned(), token.to_owned()));
    let query = serde_urlencoded::to_string(fields).unwrap_or_default();
    format!("<{}?{query}>; rel=\"next\"", request.path())
}
