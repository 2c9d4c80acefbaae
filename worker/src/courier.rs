//! Fetches from the coordinator what tasks need, and reports to it on the side, for threads that compute. The coordinator
//! is the one whose answer to a heartbeat was of the highest epoch; while none is there, fetching waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use api::Problem;
use api::client::read_bounded_json;
use reqwest::header::HOST;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use service::Credential;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::contact::describe;
use crate::coordinators::Endpoint;

/// How soon a thread that waits notices that its computation was stopped.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a coordinator may be away before what needs it fails: as long as a restart may take, and a little.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the coordinator may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a report may take; its text is of no use to anybody long after.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

const MAX_PROBLEM_BYTES: usize = 8 * 1024;

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("it was stopped")]
    Stopped,
    /// The coordinator will not answer otherwise later.
    #[error("the coordinator answered {status}{detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the coordinator could not be asked: {0}")]
    Unreachable(String),
    #[error("what was fetched could not be kept: {0}")]
    Local(std::io::Error),
}

#[derive(Debug)]
pub(crate) struct Courier {
    client: Client,
    credential: Credential,
    runtime: Handle,
    current: Mutex<Option<Endpoint>>,
}

impl Courier {
    /// For threads other than those of `runtime`.
    pub(crate) fn new(client: Client, credential: Credential, runtime: Handle) -> Self {
        Self { client, credential, runtime, current: Mutex::default() }
    }

    /// A client for what takes as long as it takes; each report has its own limit.
    pub(crate) fn client() -> anyhow::Result<Client> {
        api::client::http_client(CONNECT_TIMEOUT).context("build the HTTP client")
    }

    /// Requests go to this coordinator from now on.
    pub(crate) fn turn_to(&self, endpoint: &Endpoint) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.url() != endpoint.url()) {
            *current = Some(endpoint.clone());
        }
    }

    /// Gets what is at `path` and takes it in by `take`, which starts over with each attempt. Blocks the calling thread.
    pub(crate) fn fetch<T>(
        &self,
        path: &[&str],
        query: &[(&str, u64)],
        stop: &AtomicBool,
        take: impl AsyncFn(Response) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let fetching = async {
            let (until, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
            loop {
                let error = match self.attempt(path, query, &take).await {
                    Err(FetchError::Unreachable(error)) => error,
                    ended => return ended,
                };
                if Instant::now() > until {
                    return Err(FetchError::Unreachable(error));
                }
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                fetched = fetching => fetched,
                () = stopped(stop) => Err(FetchError::Stopped),
            }
        })
    }

    async fn attempt<T>(
        &self,
        path: &[&str],
        query: &[(&str, u64)],
        take: &impl AsyncFn(Response) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let nobody = || FetchError::Unreachable("none has taken a heartbeat yet".to_owned());
        let request = self.request(Method::GET, path).ok_or_else(nobody)?.query(query);
        let response = request.send().await.map_err(|error| FetchError::Unreachable(describe(&error)))?;
        let status = response.status();
        if status.is_success() {
            return take(response).await;
        }
        let problem = read_bounded_json::<Problem>(response, MAX_PROBLEM_BYTES).await;
        let detail = problem.map_or_else(|_| String::new(), |problem| format!(": {}", problem.detail));
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(FetchError::Unreachable(format!("it answered {status}{detail}")));
        }
        Err(FetchError::Refused { status, detail })
    }

    /// Reports once and waits for the answer. Blocks the calling thread.
    pub(crate) fn report(&self, path: &[&str], body: &impl serde::Serialize) -> Result<(), String> {
        self.runtime.block_on(self.send_report(path, body))
    }

    /// Reports what `news` has, without waiting, and `interval` later what is new then, until there is nothing.
    pub(crate) fn report_aside<T: serde::Serialize + Send + Sync + 'static>(
        self: &Arc<Self>,
        path: Vec<String>,
        interval: Duration,
        news: impl Fn() -> Option<T> + Send + 'static,
    ) {
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            while let Some(report) = news() {
                if let Err(error) = this.send_report(&path, &report).await {
                    tracing::debug!(error, "a report on the side was not taken");
                }
                sleep(interval).await;
            }
        });
    }

    async fn send_report(&self, path: &[&str], body: &impl serde::Serialize) -> Result<(), String> {
        let request = self.request(Method::PUT, path).ok_or("no coordinator has taken a heartbeat yet")?;
        let response = request.timeout(REPORT_TIMEOUT).json(body).send().await.map_err(|error| describe(&error))?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("the coordinator answered {status}")) }
    }

    fn request(&self, method: Method, path: &[&str]) -> Option<RequestBuilder> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = current.as_ref()?;
        let request = self.client.request(method, endpoint.join(path)).header(HOST, endpoint.host().clone());
        Some(self.credential.sign(request))
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(STOP_INTERVAL).await;
    }
}
