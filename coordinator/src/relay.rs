//! Passes requests on to the coordinator that leads, and to the next one when it goes away.

mod bounds;
mod clients;
mod heads;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError, dev};
use api::ASKED_MS_AGO;
use api::client::read_bounded_json;
use futures_util::future::LocalBoxFuture;
use futures_util::stream;
use reqwest::Response;
use serde::de::DeserializeOwned;
use service::{AnsweringProcess, ApiError, BodyBudget, BodySize, Passed, Relay, Route, payload_of, read_body, trace};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::http::State;
use crate::members::{Leader, Members};
use crate::metrics::{CoordinatorMetrics, Forwarded};
use crate::repeated::{note_passing, passed_on};
use crate::role::Role;
use crate::undelivered::give_back_if_lost;

use bounds::Bounds;
use clients::Clients;
use heads::is_passed_on;
use upload::Upload;

/// Marks a request that another coordinator has passed on: it is not passed on again.
const PASSED_ON: &str = "divvy-passed-on";

/// Marks the answer of a coordinator that does not lead, to a request that was passed on to it.
const NOT_LEADING: &str = "divvy-not-leading";

/// Time for which a request waits for a leader. The wait starts anew when a leader goes away with the request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for which a read waits for a leader if its client can repeat it: longer than a takeover takes with the usual lease.
const BRIEF_PATIENCE: Duration = Duration::from_secs(3);

/// The most leaders that may go away over one request: the request may be the cause.
const MAX_BROKEN: u32 = 5;

/// A leader that refuses within this time has not begun the request.
const HANDED_BACK_AFTER: Duration = Duration::from_secs(1);

/// Pause between two checks for a leader.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest time that an answer may take to begin that each coordinator could give itself.
const IF_ANY_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer that [`LeaderRelay::look_up`] reads, in bytes: a job whose parameters are of a usual length.
const MAX_LOOKED_UP_BYTES: usize = 1 << 20;

/// The port of a coordinator from which requests are passed on, to the same port of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Public,
    Internal,
}

/// Passes requests of one port on to the leader.
#[derive(Debug)]
pub(crate) struct LeaderRelay {
    port: Port,
    role: Arc<Role>,
    members: Arc<Members>,
    clients: Clients,
    scheme: &'static str,
    bounds: Bounds,
    bodies: BodyBudget,
    metrics: CoordinatorMetrics,
    /// Whether the last request found no connection to the leader. Only a change is logged.
    is_cut_off: AtomicBool,
}

/// A request that is passed on.
struct Passing<'a> {
    request: &'a HttpRequest,
    method: &'a Method,
    target: &'a str,
    body: Outgoing,
    size: BodySize,
    is_repeatable: bool,
    patience: Duration,
}

/// The body of a request that is passed on.
enum Outgoing {
    /// A complete body.
    Whole(Bytes),
    /// A body that is too long to be held: it is passed on as it arrives.
    Upload(Upload),
}

impl Outgoing {
    /// The body as a payload for a handler of this process.
    fn into_payload(self) -> dev::Payload {
        match self {
            Self::Whole(bytes) => payload_of(bytes),
            Self::Upload(upload) => upload.into_payload(),
        }
    }

    /// Whether the complete body can be sent once more.
    fn is_there(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Upload(upload) => upload.is_there(),
        }
    }
}

impl<'a> Passing<'a> {
    fn new(request: &'a HttpRequest, route: &Route, body: Outgoing) -> Self {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let is_repeatable = route.may_be_repeated(request);
        let patience = if route.waits_briefly() { BRIEF_PATIENCE } else { PATIENCE };
        let size = route.body_size();
        note_passing(request);
        Self { request, method: request.method(), target, body, size, is_repeatable, patience }
    }
}

/// The result of asking a leader.
enum Asked {
    Answered(Response),
    /// The leader has not taken the request.
    NotTaken,
    /// The leader went away with the request, or is the leader no longer.
    Broken,
    /// The client's body cannot be passed on.
    Refused(ApiError),
}

impl LeaderRelay {
    pub(crate) fn new(port: Port, config: &Config, state: &State) -> anyhow::Result<Self> {
        let is_https = match port {
            Port::Public => config.doors.has_tls(),
            Port::Internal => config.doors.has_internal_tls(),
        };
        Ok(Self {
            port,
            role: Arc::clone(&state.role),
            members: Arc::clone(&state.members),
            clients: Clients::new(is_https)?,
            scheme: if is_https { "https" } else { "http" },
            bounds: Bounds::new(config),
            bodies: state.bodies.clone(),
            metrics: state.metrics.clone(),
            is_cut_off: AtomicBool::new(false),
        })
    }

    async fn ask_leaders(&self, mut passing: Passing<'_>) -> Result<Passed, ApiError> {
        let (mut until, mut broken) = (Instant::now() + passing.patience, 0);
        let mut leaders = self.members.leader();
        loop {
            if !passing.body.is_there() {
                break;
            }
            if self.role.term().is_some() {
                return Ok(Passed::Here(passing.body.into_payload()));
            }
            let leader = leaders.borrow_and_update().clone().filter(|leader| leader.id != self.members.own().id);
            let asked_at = Instant::now();
            let asked = match &leader {
                Some(leader) => self.ask(&mut passing, leader).await,
                None => Asked::NotTaken,
            };
            match asked {
                Asked::Refused(error) => return Err(error),
                Asked::Answered(response) => {
                    self.metrics.forwarded(Forwarded::Answered);
                    if let Some(leader) = &leader {
                        let client = self.clients.of(BodySize::Usual);
                        give_back_if_lost(client, &self.base_of(leader), passing.request, &response);
                    }
                    return Ok(Passed::Answered(answer(response)));
                }
                // The leader has had the request until it led no longer.
                Asked::NotTaken if asked_at.elapsed() > HANDED_BACK_AFTER && broken < MAX_BROKEN => {
                    self.metrics.forwarded(Forwarded::AskedAgain);
                    (until, broken) = (Instant::now() + passing.patience, broken + 1);
                }
                Asked::NotTaken if Instant::now() >= until => break,
                Asked::NotTaken => (),
                Asked::Broken if passing.is_repeatable && broken < MAX_BROKEN => {
                    self.metrics.forwarded(Forwarded::AskedAgain);
                    (until, broken) = (Instant::now() + passing.patience, broken + 1);
                }
                Asked::Broken => break,
            }
            self.members.look_again();
            tokio::select! {
                () = sleep(PAUSE) => (),
                _ = leaders.changed() => (),
                () = self.role.leading() => (),
            }
        }
        self.metrics.forwarded(Forwarded::Failed);
        // The store names a leader: the connection between the two coordinators is at fault.
        let is_there = leaders.borrow().as_ref().is_some_and(|leader| leader.id != self.members.own().id);
        if is_there && self.is_cut_off.load(Ordering::Relaxed) {
            return Err(ApiError::Unavailable("the coordinator that leads cannot be reached from this one".to_owned()));
        }
        Err(ApiError::NotLeading)
    }

    /// Asks the leader once for an answer that each coordinator could give, without a body.
    async fn ask_if_any(&self, mut passing: Passing<'_>) -> Passed {
        match self.ask_once(&mut passing).await {
            Some(response) => {
                self.metrics.forwarded(Forwarded::Answered);
                Passed::Answered(answer(response))
            }
            None => Passed::Here(passing.body.into_payload()),
        }
    }

    /// The leader's answer if it begins soon and is no error. Its body has no time limit.
    async fn ask_once(&self, passing: &mut Passing<'_>) -> Option<Response> {
        let leader = self.members.leader().borrow().clone().filter(|leader| leader.id != self.members.own().id)?;
        match timeout(IF_ANY_TIMEOUT, self.ask(passing, &leader)).await {
            Ok(Asked::Answered(response)) if response.status().is_success() => Some(response),
            Ok(Asked::Answered(_) | Asked::NotTaken | Asked::Broken | Asked::Refused(_)) | Err(_) => None,
        }
    }

    /// The leader's answer at `target`, for the client of `request`; `None` if it does not begin soon.
    pub(crate) async fn look_up<T: DeserializeOwned>(&self, request: &HttpRequest, target: &str) -> Option<T> {
        let (body, size, patience) = (Outgoing::Whole(Bytes::new()), BodySize::Usual, Duration::ZERO);
        let mut passing = Passing { request, method: &Method::GET, target, body, size, is_repeatable: false, patience };
        let reading = async {
            let response = self.ask_once(&mut passing).await?;
            read_bounded_json(response, MAX_LOOKED_UP_BYTES).await.ok()
        };
        timeout(IF_ANY_TIMEOUT, reading).await.ok().flatten()
    }

    /// The leader's URL, without a path.
    fn base_of(&self, leader: &Leader) -> String {
        let address = match self.port {
            Port::Public => &leader.public_address,
            Port::Internal => &leader.internal_address,
        };
        format!("{}://{address}", self.scheme)
    }

    /// Asks until the leader answers, goes away or leads no longer.
    async fn ask(&self, passing: &mut Passing<'_>, leader: &Leader) -> Asked {
        let (base, target) = (self.base_of(leader), passing.target);
        let Ok(method) = passing.method.as_str().parse::<reqwest::Method>() else { return Asked::NotTaken };
        let mut request = self.clients.of(passing.size).request(method, format!("{base}{target}"));
        // The span of the request here, where it has one, is the parent of the leader's.
        let span = trace::current();
        for (name, value) in passing.request.headers() {
            let is_of_span = span.is_some() && trace::HEADERS.contains(&name.as_str());
            if !is_of_span && is_passed_on(name.as_str()) {
                request = request.header(name.as_str(), value.as_bytes());
            }
        }
        for (name, value) in span.iter().flat_map(trace::headers) {
            request = request.header(name, value);
        }
        request = request.header(PASSED_ON, self.members.own().id.to_string());
        // This process sends a request again if the leader is lost before its answer.
        for ms in passed_on(passing.request) {
            request = request.header(ASKED_MS_AGO, ms.as_slice());
        }
        let sending = async {
            match &mut passing.body {
                Outgoing::Whole(bytes) => Ok(request.body(bytes.clone()).send().await),
                Outgoing::Upload(upload) => upload.send(request).await,
            }
        };
        tokio::select! {
            sent = sending => match sent {
                Err(error) => Asked::Refused(error),
                Ok(answered) => self.asked(&base, answered),
            },
            () = superseded(self.members.leader(), leader.epoch) => Asked::Broken,
        }
    }

    fn asked(&self, base: &str, answered: reqwest::Result<Response>) -> Asked {
        let is_cut_off = answered.as_ref().is_err_and(reqwest::Error::is_connect);
        let was_cut_off = self.is_cut_off.swap(is_cut_off, Ordering::Relaxed);
        if was_cut_off && !is_cut_off {
            info!(%base, "the coordinator that leads is reached again");
        }
        match answered {
            Ok(response) if response.headers().contains_key(NOT_LEADING) => Asked::NotTaken,
            // A halted leader has given the request up unread when it goes on: this process sends each without pauses.
            Ok(response) if response.status() == reqwest::StatusCode::REQUEST_TIMEOUT => Asked::NotTaken,
            Ok(response) => Asked::Answered(response),
            Err(error) if is_cut_off => {
                if !was_cut_off {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    warn!(%base, error, "the coordinator that leads cannot be reached");
                }
                Asked::NotTaken
            }
            Err(error) => {
                debug!(%base, %error, "the leader does not answer");
                Asked::Broken
            }
        }
    }
}

/// Resolves when a later epoch than `epoch` has a leader: the earlier leader does not answer any more.
async fn superseded(mut leaders: watch::Receiver<Option<Leader>>, epoch: u64) {
    let is_later = |leader: &Option<Leader>| leader.as_ref().is_some_and(|leader| leader.epoch > epoch);
    if leaders.wait_for(is_later).await.is_err() {
        std::future::pending().await
    }
}

impl Relay for LeaderRelay {
    fn leads(&self) -> bool {
        self.role.term().is_some()
    }

    fn refuse(&self, request: &HttpRequest) -> Option<HttpResponse> {
        request.headers().contains_key(PASSED_ON).then(refusal)
    }

    fn pass<'a>(
        &'a self,
        request: &'a HttpRequest,
        body: Payload,
        route: &'static Route,
    ) -> LocalBoxFuture<'a, Result<Passed, ApiError>> {
        Box::pin(async move {
            if let Some(refusal) = self.refuse(request) {
                return Ok(Passed::Answered(refusal));
            }
            if route.place() == AnsweringProcess::LeaderIfAny {
                return Ok(self.ask_if_any(Passing::new(request, route, Outgoing::Whole(Bytes::new()))).await);
            }
            let (most, time) = self.bounds.of(route.body_size());
            if route.body_size() == BodySize::File && upload::is_long(request) {
                let upload = Upload::new(request, body, most, time, &self.bodies)?;
                return self.ask_leaders(Passing::new(request, route, Outgoing::Upload(upload))).await;
            }
            // Kept until the answer arrives: another leader may have to be asked.
            let body = read_body(request, body, most, time, &self.bodies).await?;
            self.ask_leaders(Passing::new(request, route, Outgoing::Whole(body.bytes()))).await
        })
    }
}

/// The answer of a coordinator that does not lead to another one that took it for the leader.
fn refusal() -> HttpResponse {
    let mut response = ApiError::NotLeading.error_response();
    response.headers_mut().insert(HeaderName::from_static(NOT_LEADING), HeaderValue::from_static("1"));
    response
}

/// The leader's answer, piece by piece.
fn answer(response: Response) -> HttpResponse {
    let status = StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = HttpResponse::build(status);
    for (name, value) in response.headers() {
        if is_passed_on(name.as_str()) {
            answer.append_header((name.as_str(), value.as_bytes()));
        }
    }
    match response.content_length() {
        Some(0) => return answer.finish(),
        Some(length) => answer.no_chunking(length),
        None => &mut answer,
    };
    let pieces = stream::try_unfold(response, |mut response| async move {
        let piece = response.chunk().await?;
        Ok::<_, reqwest::Error>(piece.map(|piece| (piece, response)))
    });
    answer.streaming(Box::pin(pieces))
}
