//! Passes requests on to the coordinator that leads, and to the next one when it goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use api::client::{ClientTls, http_client_with};
use futures_util::future::LocalBoxFuture;
use futures_util::stream;
use reqwest::{Client, Response};
use service::{ApiError, BodyBudget, Passed, Place, Relay, Route, read_body, trace};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::debug;

use crate::config::Config;
use crate::http::{REPORT_OVERHEAD_BYTES, State};
use crate::members::{Leader, Members};
use crate::metrics::{CoordinatorMetrics, Forwarded};
use crate::role::Role;

/// Marks a request that a coordinator has passed on: it goes no further.
const PASSED_ON: &str = "divvy-passed-on";

/// Marks the answer of a coordinator that does not lead, to a request that was passed on to it.
const NOT_LEADING: &str = "divvy-not-leading";

/// How long a request waits for a leader. It starts anew when a leader that had the request goes away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many leaders may go away over one request: it may be the cause.
const MAX_BROKEN: u32 = 5;

/// A leader that refuses at once has not taken a request.
const HANDED_BACK_AFTER: Duration = Duration::from_secs(1);

/// Between two looks for a leader.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a leader's host may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long an answer may take that each coordinator could give itself.
const IF_ANY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Headers of one connection (RFC 9110, 7.6.1), and those that this request's own client writes. `Origin` was compared with
/// the host that the caller asked.
const NOT_PASSED_ON: [&str; 13] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "host",
    "content-length",
    "origin",
];

/// Which of its two ports a coordinator passes requests on from, and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Public,
    Internal,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaderRelay {
    port: Port,
    role: Arc<Role>,
    members: Arc<Members>,
    client: Client,
    scheme: &'static str,
    max_body_bytes: usize,
    bodies: BodyBudget,
    metrics: CoordinatorMetrics,
}

/// A request that is passed on.
struct Passing<'a> {
    request: &'a HttpRequest,
    body: Bytes,
    is_repeatable: bool,
}

/// How asking a leader ended.
enum Asked {
    Answered(Response),
    /// The leader has not taken the request.
    NotTaken,
    /// The leader went away with the request, or is the leader no longer.
    Broken,
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
            client: http_client_with(CONNECT_TIMEOUT, &ClientTls::from_env()?, is_https)?,
            scheme: if is_https { "https" } else { "http" },
            max_body_bytes: config.max_result_bytes.saturating_add(REPORT_OVERHEAD_BYTES),
            bodies: state.bodies.clone(),
            metrics: state.metrics.clone(),
        })
    }

    async fn ask_leaders(&self, passing: Passing<'_>) -> Result<Passed, ApiError> {
        let (mut until, mut broken) = (Instant::now() + PATIENCE, 0);
        let mut leaders = self.members.leader();
        loop {
            if self.role.term().is_some() {
                return Ok(Passed::Here(passing.body));
            }
            let leader = leaders.borrow_and_update().clone().filter(|leader| leader.id != self.members.own().id);
            let asked_at = Instant::now();
            let asked = match &leader {
                Some(leader) => self.ask(&passing, leader, None).await,
                None => Asked::NotTaken,
            };
            match asked {
                Asked::Answered(response) => {
                    self.metrics.forwarded(Forwarded::Answered);
                    return Ok(Passed::Answered(answer(response)));
                }
                // The leader has had it until it led no longer.
                Asked::NotTaken if asked_at.elapsed() > HANDED_BACK_AFTER && broken < MAX_BROKEN => {
                    self.metrics.forwarded(Forwarded::AskedAgain);
                    (until, broken) = (Instant::now() + PATIENCE, broken + 1);
                }
                Asked::NotTaken if Instant::now() >= until => break,
                Asked::NotTaken => (),
                Asked::Broken if passing.is_repeatable && broken < MAX_BROKEN => {
                    self.metrics.forwarded(Forwarded::AskedAgain);
                    (until, broken) = (Instant::now() + PATIENCE, broken + 1);
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
        Err(ApiError::NotLeading)
    }

    /// One try of what each coordinator could answer, without a body.
    async fn ask_if_any(&self, passing: Passing<'_>) -> Passed {
        let leader = self.members.leader().borrow().clone().filter(|leader| leader.id != self.members.own().id);
        let Some(leader) = leader else { return Passed::Here(passing.body) };
        match self.ask(&passing, &leader, Some(IF_ANY_TIMEOUT)).await {
            Asked::Answered(response) if response.status().is_success() => {
                self.metrics.forwarded(Forwarded::Answered);
                Passed::Answered(answer(response))
            }
            Asked::Answered(_) | Asked::NotTaken | Asked::Broken => Passed::Here(passing.body),
        }
    }

    /// Asks until the leader answers, goes away or leads no longer.
    async fn ask(&self, passing: &Passing<'_>, leader: &Leader, patience: Option<Duration>) -> Asked {
        let address = match self.port {
            Port::Public => &leader.public_address,
            Port::Internal => &leader.internal_address,
        };
        let (method, target) = (passing.request.method().as_str(), passing.request.uri());
        let target = target.path_and_query().map_or("/", |target| target.as_str());
        let Ok(method) = method.parse::<reqwest::Method>() else { return Asked::NotTaken };
        let mut request = self.client.request(method, format!("{}://{address}{target}", self.scheme));
        // The span of the request here, where it has one, is the parent of the leader's.
        let span = trace::current();
        for (name, value) in passing.request.headers() {
            let is_of_span = span.is_some() && trace::HEADERS.contains(&name.as_str());
            if !is_of_span && !NOT_PASSED_ON.contains(&name.as_str()) {
                request = request.header(name.as_str(), value.as_bytes());
            }
        }
        for (name, value) in span.iter().flat_map(trace::headers) {
            request = request.header(name, value);
        }
        request = request.header(PASSED_ON, self.members.own().id.to_string()).body(passing.body.clone());
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        tokio::select! {
            answered = request.send() => match answered {
                Ok(response) if response.headers().contains_key(NOT_LEADING) => Asked::NotTaken,
                Ok(response) => Asked::Answered(response),
                Err(error) => {
                    debug!(%address, %error, "the leader does not answer");
                    if error.is_connect() { Asked::NotTaken } else { Asked::Broken }
                }
            },
            () = superseded(self.members.leader(), leader.epoch) => Asked::Broken,
        }
    }
}

/// Resolves when a later epoch than this has a leader: what was asked of the earlier leader is answered no more.
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
            let is_repeatable = request.method().is_safe() || route.is_repeatable();
            if route.place() == Place::LeaderIfAny {
                return Ok(self.ask_if_any(Passing { request, body: Bytes::new(), is_repeatable }).await);
            }
            // Kept until the answer is there: another leader may have to be asked.
            let body = read_body(request, body, self.max_body_bytes, BODY_TIMEOUT, &self.bodies).await?;
            self.ask_leaders(Passing { request, body: body.bytes(), is_repeatable }).await
        })
    }
}

/// What a coordinator that does not lead says to another one that took it for the leader.
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
        if !NOT_PASSED_ON.contains(&name.as_str()) {
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
