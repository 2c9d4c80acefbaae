//! `/submit`: a form for each kind of job, and for a simulation.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use api::{JobRequest, Simulation};
use dashboard::{SubmitForm, form_field, form_number, job_body, submit_page};
use model::{JobKind, Priority};
use service::{ApiError, Caller, Reservation, parse_form, parse_json, read_body, with_body_counted};
use uuid::Uuid;

use super::super::State;
use super::super::errors::{from_accept, from_read};
use super::super::programs::{admit_carried_code, demand_programs};
use super::super::stats::simulate_checked;
use super::page::{PageError, Visit, html, see_other};
use crate::accepting::{AcceptError, Proposal};
use crate::carried_code::carries_code;
use crate::fingerprint::Fingerprints;
use crate::programs::{AdmitError, is_program};

/// Longest time that a form may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Factor by which a form's encoding can be longer than its text.
pub(crate) const FORM_EXPANSION: usize = 3;

/// The name of a simulation in place of a kind.
const SIMULATION: &str = "simulation";

/// The error of a form that became a job and comes again with other values, such as after a way back without scripts.
const SENT_BEFORE: &str = "This form was sent before with other values. Send it again to submit another job.";

/// A refused form: the field and the reason.
type Wrong = (String, String);

pub(super) async fn form(request: HttpRequest, visit: Visit) -> Result<HttpResponse, PageError> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    let kind = match fields.iter().find(|(name, _)| name == "kind") {
        Some((_, kind)) => kind_of(kind)?,
        None => Some(JobKind::SUM_OF_PRIMES),
    };
    let key = Uuid::new_v4().to_string();
    let form = SubmitForm { kind, values: &fields, wrong: None, key: &key };
    Ok(html(StatusCode::OK, &submit_page(&visit.viewer(""), &form)))
}

pub(super) async fn submit(
    state: Data<State>,
    request: HttpRequest,
    body: Payload,
    visit: Visit,
) -> Result<HttpResponse, PageError> {
    let most = state.max_job_bytes.saturating_mul(FORM_EXPANSION);
    let body = read_body(&request, body, most, BODY_TIMEOUT, &state.bodies).await?;
    let decoded = with_body_counted(body, |body| {
        let fields: Vec<(String, String)> = parse_form(body)?;
        Ok((fields, body.len()))
    });
    let (fields, reservation) = decoded.await?;
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
    let kind = kind_of(field("kind"))?;
    let caller = Caller::of(&request);
    let submitted = match kind {
        Some(kind) => submit_job(&state, kind, &fields, field("key"), &caller, reservation).await,
        None => start_simulation(&state, &fields, caller, field("key").parse().ok()).await,
    };
    match submitted {
        Ok(path) => Ok(see_other(&path)),
        Err(Refused::Wrong(wrong)) => {
            let key = Uuid::new_v4().to_string();
            let form = SubmitForm { kind, values: &fields, wrong: Some(wrong), key: &key };
            Ok(html(StatusCode::BAD_REQUEST, &submit_page(&visit.viewer(""), &form)))
        }
        Err(Refused::Other(ApiError::Mismatch(_))) => {
            let key = Uuid::new_v4().to_string();
            let wrong = Some(("job".to_owned(), SENT_BEFORE.to_owned()));
            let form = SubmitForm { kind, values: &fields, wrong, key: &key };
            Ok(html(StatusCode::UNPROCESSABLE_ENTITY, &submit_page(&visit.viewer(""), &form)))
        }
        Err(Refused::Other(error)) => Err(error.into()),
    }
}

/// The reason why nothing was submitted.
enum Refused {
    Wrong(Wrong),
    Other(ApiError),
}

impl From<Wrong> for Refused {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// The kind of a name; `None` for a simulation.
fn kind_of(name: &str) -> Result<Option<JobKind>, ApiError> {
    if name == SIMULATION {
        return Ok(None);
    }
    let known = name.parse().and_then(workloads::kind);
    let unknown = |error: model::InvalidJob| ApiError::InvalidField { field: error.field, message: error.message };
    known.map(|kind| Some(kind.name())).map_err(unknown)
}

async fn submit_job(
    state: &State,
    kind: JobKind,
    fields: &[(String, String)],
    key: &str,
    caller: &Caller,
    mut reservation: Reservation,
) -> Result<String, Refused> {
    let body = serde_json::to_vec(&job_body(kind, fields)?).map_err(|error| whole(error.to_string()))?;
    let chunk_size = state.chunk_size;
    let parse = move || {
        let parsed = parse_json::<JobRequest>(&body).map_err(from_body).and_then(|request| {
            let job = request.parse(chunk_size).map_err(|error| form_field(kind, &error))?;
            let (fingerprints, carries_code) = (Fingerprints::of(&job), carries_code(&job));
            Ok((job, fingerprints, carries_code))
        });
        Ok(parsed)
    };
    let (mut job, fingerprints, carries_code) = state.bodies.work(parse).await.map_err(Refused::Other)??;
    let fields_bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    reservation.resize(fields_bytes + job.memory_bytes()).map_err(Refused::Other)?;
    if is_program(job.kind) {
        demand_programs(caller).map_err(Refused::Other)?;
        state.programs.admit(&mut job).await.map_err(|error| match error {
            AdmitError::Invalid(error) | AdmitError::Missing(error) => Refused::Wrong(form_field(kind, &error)),
            AdmitError::Read(error) => Refused::Other(from_read(error)),
        })?;
    }
    admit_carried_code(state, caller, &mut job, carries_code).map_err(Refused::Other)?;
    job.options.submitted_by = caller.name().map(|name| name.to_string());
    job.options.trace = service::trace::current();
    let idempotency_key = (!key.is_empty()).then(|| format!("page-{key}"));
    let term = state.term().map_err(Refused::Other)?;
    let proposal = Proposal { id: None, idempotency_key, job, fingerprints, reservation: Some(reservation) };
    match term.jobs.accept(proposal).await {
        Ok((job, _)) => Ok(format!("/jobs/{0}?submitted={0}", job.id)),
        Err(AcceptError::Invalid(error)) => Err(form_field(kind, &error).into()),
        Err(error) => Err(Refused::Other(from_accept(error))),
    }
}

async fn start_simulation(
    state: &Data<State>,
    fields: &[(String, String)],
    caller: Caller,
    key: Option<Uuid>,
) -> Result<String, Refused> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
    let whole = |name: &str| form_number(field(name)).map_err(|wrong| (name.to_owned(), wrong));
    let seconds = field("seconds").trim().parse::<f64>();
    let priorities = field("priorities").split([',', ' ']).filter(|part| !part.is_empty()).map(|part| {
        let priority = part.parse::<u8>().ok().and_then(|number| Priority::try_from(number).ok());
        priority.ok_or_else(|| ("priorities".to_owned(), "must be numbers from 1 to 9 with commas between".to_owned()))
    });
    let simulation = Simulation {
        tasks: whole("tasks")?,
        seconds: seconds.map_err(|_| ("seconds".to_owned(), "must be a number, such as 0.5".to_owned()))?,
        // A larger number is refused as too many workers.
        workers: u32::try_from(whole("workers")?).unwrap_or(u32::MAX),
        priorities: priorities.collect::<Result<_, Wrong>>()?,
    };
    match simulate_checked(state, simulation, caller, key).await {
        Ok(started) => {
            let ids: Vec<_> = started.jobs.iter().map(|job| job.id.to_string()).collect();
            Ok(match ids.as_slice() {
                [only] => format!("/jobs/{only}?submitted={only}"),
                all => format!("/jobs?tag=simulation%3Atrue&submitted={}", all.join(",")),
            })
        }
        Err(ApiError::InvalidField { field, message }) => Err((field.to_owned(), message).into()),
        Err(error) => Err(Refused::Other(error)),
    }
}

/// The error of a body, shown at the form's field of the same name.
fn from_body(error: ApiError) -> Refused {
    let ApiError::InvalidBody { field, message } = error else { return Refused::Other(error) };
    let Some(path) = field else { return whole(message) };
    let name = path.rsplit('.').next().unwrap_or_default().to_owned();
    let shown = message.split(" (line ").next().unwrap_or_default().to_owned();
    Refused::Wrong((name, shown))
}

fn whole(message: String) -> Refused {
    Refused::Wrong(("job".to_owned(), message))
}
