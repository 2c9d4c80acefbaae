//! Asks a grid over HTTP.

mod base_url;
mod error;
mod events;
mod http;
mod programs;
mod sse;
pub mod tls;
mod token;

use std::time::{Duration, Instant};

use model::{Algorithm, JobId, TraceContext, WorkerId};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::{
    ASKED_MS_AGO, Changed, CoordinatorList, Explanation, Job, JobPage, JobRequest, Problem, Simulation,
    SimulationStarted, StatisticsPage, Stats, SumOfPrimes, TaskPage, TaskStartsPage, WorkerSummary,
};

pub use base_url::{InvalidUrl, base_url};
pub use error::Error;
pub use events::{Events, EventsError, StreamItem};
pub use http::{
    AnswerError, StartError, UNREAD_TIMEOUT, http_client, http_client_with, read_bounded, read_bounded_json,
    upload_client, upload_client_with,
};
pub use sse::TooLong;
pub use tls::{ClientTls, TlsError};
pub use token::{AccessToken, InvalidAccessToken};

use http::opening_timeout;

/// Bound on the time of a request that does not wait for a job.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Bound on the time to send and store the payloads of a job.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The longest answer that is read into memory: a page of tasks with their results.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// The longest problem that is read.
const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// Parameters of a request.
pub type Query = Vec<(&'static str, String)>;

/// A client's change of a job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the job for good.
    Cancel,
    /// Stops the job until it is resumed.
    Pause,
    /// Continues the job after a pause.
    Resume,
    /// Runs the failed tasks again.
    Retry,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }
}

/// A client of a running grid.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    token: Option<AccessToken>,
    trace: Option<TraceContext>,
}

impl Client {
    /// A client of the grid at `url`, which may have a path. Connects at the first request. Its TLS is that of
    /// [`ClientTls::from_env`], and its requests are part of the span that `TRACEPARENT` and `TRACESTATE` name.
    ///
    /// # Errors
    /// The TLS of the environment cannot be used, or the system refuses the resources of an HTTP client.
    pub fn new(url: &Url) -> Result<Self, Error> {
        let tls = ClientTls::from_env().map_err(|error| Error::Start(error.into()))?;
        let is_https = url.scheme() == "https";
        let http = http_client_with(opening_timeout(is_https), &tls, is_https).map_err(Error::Start)?;
        let variable = |name| std::env::var(name).unwrap_or_default();
        let trace = TraceContext::parse(&variable("TRACEPARENT"), &variable("TRACESTATE"));
        Ok(Self { http, url: url.clone(), token: None, trace })
    }

    /// This client for long bodies, which the grid may leave unread for a while.
    fn for_uploads(&self) -> Result<Self, Error> {
        let tls = ClientTls::from_env().map_err(|error| Error::Start(error.into()))?;
        let is_https = self.url.scheme() == "https";
        let timeout = opening_timeout(is_https);
        let http = upload_client_with(timeout, UNREAD_TIMEOUT, &tls, is_https).map_err(Error::Start)?;
        Ok(Self { http, ..self.clone() })
    }

    /// The client with a token that it sends with every request.
    #[must_use]
    pub fn with_token(self, token: AccessToken) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The grid's URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The sum of all primes from `a` to `b`, without a limit of time.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn sum_of_primes(&self, a: u64, b: u64) -> Result<SumOfPrimes, Error> {
        self.sum_of_primes_by(a, b, Algorithm::Auto, false).await
    }

    /// The sum of all primes from `a` to `b` by an algorithm, and with `verify` by the other one, too.
    ///
    /// # Errors
    /// As [`Self::sum_of_primes`]; also when the two algorithms disagree.
    pub async fn sum_of_primes_by(
        &self,
        a: u64,
        b: u64,
        algorithm: Algorithm,
        verify: bool,
    ) -> Result<SumOfPrimes, Error> {
        let mut request = self.request(Method::GET, &["sum-of-primes"]).query(&[("a", a), ("b", b)]);
        // Services of earlier releases refuse parameters that they do not know.
        if algorithm != Algorithm::Auto {
            request = request.query(&[("algorithm", algorithm.as_str())]);
        }
        if verify {
            request = request.query(&[("verify", "true")]);
        }
        self.read(self.send(request).await?).await
    }

    /// Submits a job under an id or a key, if one is given.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn submit(
        &self,
        job: &JobRequest,
        id: Option<JobId>,
        idempotency_key: Option<&str>,
    ) -> Result<Job, Error> {
        let mut request = match id {
            Some(id) => self.request(Method::PUT, &["v1", "jobs", &id.to_string()]),
            None => self.request(Method::POST, &["v1", "jobs"]),
        };
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.read(self.send(request.json(job).timeout(SUBMIT_TIMEOUT)).await?).await
    }

    /// A job.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn job(&self, id: JobId) -> Result<Job, Error> {
        self.get(&["v1", "jobs", &id.to_string()], &Query::new()).await
    }

    /// A page of the jobs that the query's filter finds, the newest first.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn job_page(&self, query: &Query) -> Result<JobPage, Error> {
        self.get(&["v1", "jobs"], query).await
    }

    /// A page of a job's individual tasks.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn task_page(&self, id: JobId, query: &Query) -> Result<TaskPage, Error> {
        self.get(&["v1", "jobs", &id.to_string(), "tasks"], query).await
    }

    /// Explains why a job's tasks wait.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn explain(&self, id: JobId) -> Result<Explanation, Error> {
        self.get(&["v1", "jobs", &id.to_string(), "explain"], &Query::new()).await
    }

    /// Changes a job; returns it after the change. `asked_at` is the instant of the first of several equal requests: a job that
    /// was retried since then is not retried once more.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn change(&self, id: JobId, action: Action, asked_at: Instant) -> Result<Job, Error> {
        let request = self.request(Method::POST, &["v1", "jobs", &id.to_string(), action.as_str()]);
        let request = request.header(ASKED_MS_AGO, asked_at.elapsed().as_millis().to_string());
        self.read(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    /// Changes all jobs that the filter finds. `asked_at` is as in [`Self::change`].
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn change_all(&self, filter: &Query, action: Action, asked_at: Instant) -> Result<Changed, Error> {
        let request = self.request(Method::POST, &["v1", "jobs", "all", action.as_str()]).query(filter);
        let request = request.header(ASKED_MS_AGO, asked_at.elapsed().as_millis().to_string());
        self.read(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    /// A job's result, waited for up to `wait`: an answer whose body is yet to be read.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or the job has no result.
    pub async fn result(&self, id: JobId, wait: Duration) -> Result<Response, Error> {
        let request = self.request(Method::GET, &["v1", "jobs", &id.to_string(), "result"]);
        self.ask_for_result(id, request.query(&[("wait", format!("{}ms", wait.as_millis()))])).await
    }

    /// The result of one task of a job: an answer whose body is yet to be read.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or the task has no result.
    pub async fn task_result(&self, id: JobId, task: u64) -> Result<Response, Error> {
        let path = ["v1", "jobs", &id.to_string(), "tasks", &task.to_string(), "result"];
        self.ask_for_result(id, self.request(Method::GET, &path)).await
    }

    async fn ask_for_result(&self, id: JobId, request: RequestBuilder) -> Result<Response, Error> {
        let again = request.try_clone();
        let response = self.ask(request).await?;
        if response.status() != StatusCode::CONFLICT {
            return self.check(response).await;
        }
        let detail = self.problem(response).await;
        let state = self.job(id).await?.state;
        // The job may have ended after that answer.
        let Some(again) = again.filter(|_| state.is_over()) else { return Err(Error::NoResult { state, detail }) };
        let response = self.ask(again).await?;
        if response.status() != StatusCode::CONFLICT {
            return self.check(response).await;
        }
        Err(Error::NoResult { state, detail: self.problem(response).await })
    }

    /// The events after number `after`, of a job or of all, and with `follow` also later events. `None` when the job is over and
    /// all of its events were sent.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn events(&self, id: Option<JobId>, after: Option<u64>, follow: bool) -> Result<Option<Events>, Error> {
        let request = match id {
            Some(id) => self.request(Method::GET, &["v1", "jobs", &id.to_string(), "events"]),
            None => self.request(Method::GET, &["v1", "events"]),
        };
        let request = request.header("Accept", "text/event-stream").query(&[("follow", follow)]);
        let request = match after {
            Some(after) => request.header("Last-Event-ID", after),
            None => request,
        };
        let response = self.send(request).await?;
        Ok((response.status() != StatusCode::NO_CONTENT).then(|| Events::new(response)))
    }

    /// The figures of the grid as a whole.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.get(&["v1", "stats"], &Query::new()).await
    }

    /// The coordinators of the grid.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn coordinators(&self) -> Result<CoordinatorList, Error> {
        self.get(&["v1", "coordinators"], &Query::new()).await
    }

    /// A page of figures by period and kind.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn statistics(&self, query: &Query) -> Result<StatisticsPage, Error> {
        self.get(&["v1", "statistics"], query).await
    }

    /// A page of starts of tasks by name.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn task_statistics(&self, query: &Query) -> Result<TaskStartsPage, Error> {
        self.get(&["v1", "statistics", "tasks"], query).await
    }

    /// All registered workers.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn workers(&self) -> Result<Vec<WorkerSummary>, Error> {
        self.get(&["workers"], &Query::new()).await
    }

    /// Drains a worker: it finishes its leases and gets no more.
    ///
    /// # Errors
    /// The grid cannot be reached, or refuses: there is no such worker.
    pub async fn drain_worker(&self, worker: &WorkerId) -> Result<(), Error> {
        let request = self.request(Method::POST, &["workers", worker.as_str(), "drain"]).timeout(ANSWER_TIMEOUT);
        self.send(request).await.map(drop)
    }

    /// Starts simulated workers and jobs for them.
    ///
    /// # Errors
    /// The grid cannot be reached, refuses, or answers something else.
    pub async fn simulate(&self, simulation: &Simulation) -> Result<SimulationStarted, Error> {
        let request = self.request(Method::POST, &["v1", "simulate"]).json(simulation);
        self.read(self.send(request.timeout(SUBMIT_TIMEOUT)).await?).await
    }

    /// The error of a request, or of the reading of its answer, that broke off.
    #[must_use]
    pub fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable { url: self.url.clone(), source }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &Query) -> Result<T, Error> {
        let request = self.request(Method::GET, path).query(query).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// A request to a path under the grid's URL, which may have a path of its own.
    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url);
        if let Some(trace) = &self.trace {
            request = request.header("traceparent", trace.traceparent());
            if !trace.state.is_empty() {
                request = request.header("tracestate", &trace.state);
            }
        }
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.header()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        self.check(self.ask(request).await?).await
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| self.unreachable(error))
    }

    async fn check(&self, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(Error::Refused { status, detail: self.problem(response).await })
    }

    async fn problem(&self, response: Response) -> String {
        let status = response.status();
        let problem = read_bounded_json::<Problem>(response, MAX_PROBLEM_BYTES).await;
        problem.map_or_else(|_| format!("{} answered {status}", self.url), |problem| problem.detail)
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let answer = read_bounded_json(response, MAX_ANSWER_BYTES).await;
        answer.map_err(|source| Error::Answer { url: self.url.clone(), source })
    }
}
