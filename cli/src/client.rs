//! Asks a grid over HTTP.

use std::time::Duration;

use anyhow::Context;
use api::{
    Changed, Explanation, Job, JobPage, JobRequest, Problem, Simulation, SimulationStarted, Stats, SumOfPrimes,
    TaskPage, WorkerSummary,
};
use model::{JobId, JobState};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use crate::failure::Failure;

/// How long the grid may take to answer a connection, over whatever network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request may take that waits for nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the payloads of a job may take to be sent and stored.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The longest answer that is read into memory: a page of tasks with their results.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// The longest problem that is read.
const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// Parameters of a request.
pub(crate) type Query = Vec<(&'static str, String)>;

/// What can be done with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Resume,
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

/// A running grid.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    client: Client,
    url: Url,
}

impl Grid {
    pub(crate) fn new(url: &Url) -> Result<Self, Failure> {
        let client = service::http_client(CONNECT_TIMEOUT).context("start the HTTP client")?;
        Ok(Self { client, url: url.clone() })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The sum of all primes from `a` to `b`, however long it takes.
    pub(crate) async fn sum_of_primes(&self, a: u64, b: u64) -> Result<SumOfPrimes, Failure> {
        let request = self.request(Method::GET, &["sum-of-primes"]).query(&[("a", a), ("b", b)]);
        self.read(self.send(request).await?).await
    }

    /// Submits a job under an id or a key, where there is one.
    pub(crate) async fn submit(
        &self,
        job: &JobRequest,
        id: Option<Uuid>,
        idempotency_key: Option<&str>,
    ) -> Result<Job, Failure> {
        let mut request = match id {
            Some(id) => self.request(Method::PUT, &["v1", "jobs", &id.to_string()]),
            None => self.request(Method::POST, &["v1", "jobs"]),
        };
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.read(self.send(request.json(job).timeout(SUBMIT_TIMEOUT)).await?).await
    }

    pub(crate) async fn job(&self, id: JobId) -> Result<Job, Failure> {
        self.get(&["v1", "jobs", &id.to_string()], &Query::new()).await
    }

    pub(crate) async fn job_page(&self, query: &Query) -> Result<JobPage, Failure> {
        self.get(&["v1", "jobs"], query).await
    }

    pub(crate) async fn task_page(&self, id: JobId, query: &Query) -> Result<TaskPage, Failure> {
        self.get(&["v1", "jobs", &id.to_string(), "tasks"], query).await
    }

    pub(crate) async fn explain(&self, id: JobId) -> Result<Explanation, Failure> {
        self.get(&["v1", "jobs", &id.to_string(), "explain"], &Query::new()).await
    }

    pub(crate) async fn change(&self, id: JobId, action: Action) -> Result<Job, Failure> {
        let request = self.request(Method::POST, &["v1", "jobs", &id.to_string(), action.as_str()]);
        self.read(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    pub(crate) async fn change_all(&self, filter: &Query, action: Action) -> Result<Changed, Failure> {
        let request = self.request(Method::POST, &["v1", "jobs", "all", action.as_str()]).query(filter);
        self.read(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    /// A job's result, waited for as long as `wait`: an answer whose body is yet to be read.
    pub(crate) async fn result(&self, id: JobId, wait: Duration) -> Result<Response, Failure> {
        let request = self.request(Method::GET, &["v1", "jobs", &id.to_string(), "result"]);
        let request = request.query(&[("wait", format!("{}ms", wait.as_millis()))]);
        let response = self.ask(request).await?;
        if response.status() != StatusCode::CONFLICT {
            return self.check(response).await;
        }
        let detail = self.problem(response).await;
        Err(match self.job(id).await?.state {
            JobState::Canceled => Failure::Canceled(detail),
            JobState::Succeeded | JobState::Failed => Failure::Failed(detail),
            JobState::Queued | JobState::Running | JobState::Paused => Failure::NotYet(detail),
        })
    }

    /// The events after number `after`, of a job or of all: an answer whose body goes on.
    pub(crate) async fn events(
        &self,
        id: Option<JobId>,
        after: Option<u64>,
        follow: bool,
    ) -> Result<Response, Failure> {
        let request = match id {
            Some(id) => self.request(Method::GET, &["v1", "jobs", &id.to_string(), "events"]),
            None => self.request(Method::GET, &["v1", "events"]),
        };
        let request = request.header("Accept", "text/event-stream").query(&[("follow", follow)]);
        self.send(match after {
            Some(after) => request.header("Last-Event-ID", after),
            None => request,
        })
        .await
    }

    pub(crate) async fn stats(&self) -> Result<Stats, Failure> {
        self.get(&["v1", "stats"], &Query::new()).await
    }

    pub(crate) async fn workers(&self) -> Result<Vec<WorkerSummary>, Failure> {
        self.get(&["workers"], &Query::new()).await
    }

    pub(crate) async fn simulate(&self, simulation: &Simulation) -> Result<SimulationStarted, Failure> {
        let request = self.request(Method::POST, &["v1", "simulate"]).json(simulation);
        self.read(self.send(request.timeout(SUBMIT_TIMEOUT)).await?).await
    }

    /// What it means that a request or the reading of its answer broke off.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::Unreachable { url: self.url.to_string(), cause: root_cause(error) }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &Query) -> Result<T, Failure> {
        let request = self.request(Method::GET, path).query(query).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// A request to a path under the grid's URL, which may have a path of its own.
    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.client.request(method, url)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        self.check(self.ask(request).await?).await
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn check(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(Failure::from_problem(status, self.problem(response).await))
    }

    async fn problem(&self, response: Response) -> String {
        let status = response.status();
        let problem: anyhow::Result<Problem> = service::read_bounded_json(response, MAX_PROBLEM_BYTES).await;
        problem.map_or_else(|_| format!("{} answered {status}", self.url), |problem| problem.detail)
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        let answer = service::read_bounded_json(response, MAX_ANSWER_BYTES).await;
        Ok(answer.with_context(|| format!("{} answered what is no answer of a grid", self.url))?)
    }
}

/// The error's innermost source says what happened; the outer ones repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
