//! `/v1/jobs/{id}/events` and `/v1/events`: the events of jobs, as Server-Sent Events.
//!
//! The event table is the stream: a client that comes back with the number of its last event gets the events that it missed,
//! also after the job's end. Where some of them are gone, a `reset` comes first.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::HeaderValue;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, Responder};
use actix_web_lab::sse::{self, Sse};
use api::{Problem, RESET_EVENT, StreamReset, schema};
use bytestring::ByteString;
use model::{JobEvent, JobId};
use service::{ApiError, Query, Right, until_revoked};
use store::ReadError;
use tokio::sync::mpsc;

use super::State;
use super::errors::from_read;
use super::jobs::{job_id, unknown};

/// Events read at a time, and the most that may wait for a slow client.
const PAGE: usize = 100;

/// Interval of comments that keep an idle stream alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The events of one job, from its submission on; the stream ends after the job's end.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    operation_id = "job_events",
    tag = "events",
    params(
        ("id" = Uuid, Path, description = "The job's id"),
        ("after" = Option<u64>, Query, description = "Only events with a larger number. Default 0: all of them"),
        ("follow" = Option<bool>, Query, description = "`false` for the stored events alone, without a wait. Default `true`"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event, as browsers send it"),
    ),
    responses(
        (status = 200, description = "Events, each with its number as `id`, its type as `event` and the JSON of this schema as `data`. An event `reset`, with a StreamReset as `data`, comes first where the stream cannot go on after the event that was asked for", body = schema::JobEvent, content_type = "text/event-stream"),
        (status = 204, description = "The job is over, and there is nothing after that event"),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_job(
    state: Data<State>,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let id = job_id(&path)?;
    let (after, follow) = wanted(&request)?;
    let after = after.unwrap_or(0);
    let is_over = has_ended(&state, id).await.map_err(from_read)?.ok_or_else(|| unknown(id))?;
    let reset = reset(&state, after, Some(id)).await?;
    let after = reset.map_or(after, |reset| reset.resumes_after);
    let first = state.store.events(after, Some(id), 1).await.map_err(from_read)?;
    if is_over && first.is_empty() {
        // This status makes a browser stop its requests.
        return Ok(HttpResponse::NoContent().finish());
    }
    Ok(stream(state, Wanted { after, job: Some(id), follow, reset }, &request))
}

/// The events of all jobs, from now on or from an event on. The stream has no end.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "all_events",
    tag = "events",
    params(
        ("after" = Option<u64>, Query, description = "Only events with a larger number. Default: only new events"),
        ("follow" = Option<bool>, Query, description = "`false` for the stored events alone, without a wait. Default `true`"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event, as browsers send it"),
    ),
    responses(
        (status = 200, description = "Events, each with its number as `id`, its type as `event` and the JSON of this schema as `data`. An event `reset`, with a StreamReset as `data`, comes first where the stream cannot go on after the event that was asked for", body = schema::JobEvent, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_all(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let latest = *state.store.latest_event().borrow();
    let (after, follow) = wanted(&request)?;
    let after = after.unwrap_or(latest);
    let reset = reset(&state, after, None).await?;
    let after = reset.map_or(after, |reset| reset.resumes_after);
    Ok(stream(state, Wanted { after, job: None, follow, reset }, &request))
}

/// The events that a client wants.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    after: u64,
    job: Option<JobId>,
    follow: bool,
    /// The reset to send before the first event.
    reset: Option<StreamReset>,
}

/// The reset for a client that cannot get every event after `after`: the store has no such event, as after it was replaced,
/// or the next events are not kept any more. A job's events are kept as long as the job.
async fn reset(state: &State, after: u64, job: Option<JobId>) -> Result<Option<StreamReset>, ApiError> {
    if after == 0 {
        return Ok(None);
    }
    let store = &state.store;
    let read = |after, limit| async move { store.events(after, None, limit).await.map_err(from_read) };
    // Read before the table, which then has all events up to it. It may be behind: a replica hears of new events a little
    // later.
    let known = *store.latest_event().borrow();
    let around = read(after - 1, 2).await?;
    let newest = around.last().map_or(0, |event| event.seq).max(known);
    let next = around.iter().find(|event| event.seq > after);
    let (is_beyond, is_gap) = (after > newest, next.map_or(newest, |next| next.seq - 1) > after);
    if !is_beyond && (job.is_some() || !is_gap) {
        return Ok(None);
    }
    let oldest = read(0, 1).await?.first().map(|event| event.seq);
    let resumes_after = match (is_beyond, job) {
        (true, Some(_)) => 0,
        (true, None) => newest,
        (false, _) => next.map_or(newest, |next| next.seq - 1),
    };
    Ok(Some(StreamReset { asked_after: after, oldest, newest, resumes_after }))
}

/// The event after which the stream begins, and whether it goes on with new events.
fn wanted(request: &HttpRequest) -> Result<(Option<u64>, bool), ApiError> {
    let query = Query::parse(request.query_string())?;
    let invalid = |message: &str| ApiError::InvalidField { field: "Last-Event-ID", message: message.to_owned() };
    let mut headers = request.headers().get_all("last-event-id").filter(|id| !id.is_empty());
    let number = |id: &HeaderValue| {
        id.to_str().ok().and_then(|id| id.parse().ok()).ok_or_else(|| invalid("must be an event's number"))
    };
    let header = headers.next().map(number).transpose()?;
    if headers.next().is_some() {
        return Err(invalid("is given more than once: give it once"));
    }
    Ok((header.or(query.parsed("after")?), query.parsed("follow")?.unwrap_or(true)))
}

fn stream(state: Data<State>, wanted: Wanted, request: &HttpRequest) -> HttpResponse {
    let (sender, receiver) = mpsc::channel(PAGE);
    let revoked = until_revoked(request, Right::Read);
    actix_web::rt::spawn(async move {
        tokio::select! {
            // The client may leave, and a read may fail: either ends the stream, and the client may come back.
            _ = send(&state, wanted, &sender) => (),
            () = revoked => (),
        }
    });
    Sse::from_infallible_receiver(receiver).with_keep_alive(KEEP_ALIVE).respond_to(request).map_into_boxed_body()
}

/// Sends stored and new events, until the client leaves, its job is over or the coordinator stops.
async fn send(state: &State, wanted: Wanted, client: &mpsc::Sender<sse::Event>) -> Option<Infallible> {
    let Wanted { mut after, job, follow, reset } = wanted;
    if let Some(reset) = reset {
        let data = sse::Data::new_json(reset).ok()?.id(reset.resumes_after.to_string()).event(RESET_EVENT);
        client.send(data.into()).await.ok()?;
    }
    loop {
        // Subscribed before the table is read, so that no event falls between the two.
        let mut live = state.events.subscribe(job);
        let is_over = send_stored(state, &mut after, job, client).await?;
        if is_over || !follow {
            return None;
        }
        loop {
            let event = tokio::select! {
                event = live.next() => event,
                () = client.closed() => return None,
                () = state.health.drained() => return None,
            };
            // Events were missed: the table has them.
            let Some(event) = event else { break };
            if event.seq > after {
                after = event.seq;
                client.send(to_sse(&event)?).await.ok()?;
                if job.is_some() && event.kind.is_end() && has_ended(state, event.job).await.ok()?.unwrap_or(true) {
                    return None;
                }
            }
        }
    }
}

/// Sends the events of the table after a number. Returns whether the job is over and no more events come.
async fn send_stored(
    state: &State,
    after: &mut u64,
    job: Option<JobId>,
    client: &mpsc::Sender<sse::Event>,
) -> Option<bool> {
    loop {
        let is_over = match job {
            Some(job) => has_ended(state, job).await.ok()?.unwrap_or(true),
            None => false,
        };
        let page = state.store.events(*after, job, PAGE).await.ok()?;
        let is_last_page = page.len() < PAGE;
        // The job ended after the check, which is repeated: no other event would end the stream.
        let has_ended = !is_over && job.is_some() && page.iter().any(|event| event.kind.is_end());
        for event in page {
            *after = event.seq;
            client.send(to_sse(&event)?).await.ok()?;
        }
        if is_last_page && !has_ended {
            return Some(is_over);
        }
    }
}

/// Whether a job is over; `None` where it is gone. Events tell of a job that cannot be read.
async fn has_ended(state: &State, job: JobId) -> Result<Option<bool>, ReadError> {
    match state.store.job(job).await {
        Err(ReadError::Unreadable { .. }) => {
            let last = state.store.last_events(job, 1).await?.pop();
            Ok(Some(last.is_some_and(|event| event.kind.is_end())))
        }
        record => Ok(record?.map(|record| record.state.is_over())),
    }
}

fn to_sse(event: &JobEvent) -> Option<sse::Event> {
    let data = sse::Data::new_json(event).ok()?;
    let (id, name) = (ByteString::from(event.seq.to_string()), event.kind.as_str());
    Some(data.id(id).event(name).into())
}
