//! Fetches the inputs of tasks from the coordinator and sends reports to it, for threads that compute. Requests go to the
//! coordinator whose answer to a heartbeat had the highest epoch; a fetch waits while no coordinator is reachable.

mod patience;
mod reports;
mod waits;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::web::Bytes;
use anyhow::Context;
use api::Problem;
use api::client::read_bounded_json;
use futures_util::stream;
use model::AttemptId;
use reqwest::header::{CONTENT_LENGTH, HOST};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode};
use service::Credential;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::contact::describe;
use crate::coordinators::Endpoint;

use patience::Patience;
use reports::Reports;
use waits::{Waiting, Waits};

/// Interval at which a waiting thread checks whether its computation was stopped.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

const LAST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between uploads of one output: a coordinator whose disk is full must not get a long output over and over.
const LAST_HAND_IN_PAUSE: Duration = Duration::from_secs(5);

/// Longest time without progress of an upload, and longest time that the coordinator may take to store a complete output.
const STALL_TIMEOUT: Duration = Duration::from_mins(2);

/// Bytes of one read of a file.
const PIECE_BYTES: usize = 256 * 1024;

/// Longest time that an answer's head, and then each piece of its body, may take to arrive: a halted coordinator keeps its
/// connections open.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time that the coordinator may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time that the coordinator may leave an output unread in its connection: the coordinator waits for memory before it
/// reads.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(40);

/// Longest time that a former leader may take to answer an open request: a live one notices immediately that it leads no more.
const SUPERSEDED_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time that one request with a report may take, and longest time that a computing thread waits for a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

const MAX_PROBLEM_BYTES: usize = 8 * 1024;

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("it was stopped")]
    Stopped,
    /// The coordinator refuses for good: a repeated request gets the same answer.
    #[error("the coordinator answered {status}{detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the coordinator could not be asked: {0}")]
    Unreachable(String),
    /// No coordinator is reachable.
    #[error("there is no coordinator: {0}")]
    Absent(String),
    #[error("the fetched content could not be kept: {0}")]
    Local(std::io::Error),
    /// The answer is longer than the worker's limit. The worker is not at fault.
    #[error("{0}")]
    TooLong(String),
}

#[derive(Debug)]
pub(crate) struct Courier {
    client: Client,
    credential: Credential,
    runtime: Handle,
    current: Mutex<Option<Endpoint>>,
    /// The epoch of the coordinator that requests go to.
    epoch: watch::Sender<u64>,
    /// The time that each attempt has waited for a coordinator.
    waits: Waits,
    reports: Reports,
}

impl Courier {
    /// Makes a courier whose blocking methods are for threads other than those of `runtime`.
    pub(crate) fn new(client: Client, credential: Credential, runtime: Handle) -> Self {
        let (current, waits, reports) = (Mutex::default(), Waits::default(), Reports::default());
        Self { client, credential, runtime, current, epoch: watch::Sender::new(0), waits, reports }
    }

    /// An HTTP client without an overall time limit; each report has a limit of its own.
    pub(crate) fn client() -> anyhow::Result<Client> {
        api::client::upload_client(CONNECT_TIMEOUT, UNREAD_TIMEOUT).context("build the HTTP client")
    }

    /// Directs all further requests to this coordinator, which leads in `epoch`.
    pub(crate) fn turn_to(&self, endpoint: &Endpoint, epoch: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.url() != endpoint.url()) {
            *current = Some(endpoint.clone());
        }
        drop(current);
        self.epoch.send_if_modified(|known| std::mem::replace(known, epoch) != epoch);
    }

    /// Gets the resource at `path` and reads its body with `take`, which starts over with each try. While no coordinator is
    /// reachable, waits until `stop` is set, such as by a worker that gives its leases up. Blocks the calling thread.
    pub(crate) fn fetch<T>(
        &self,
        path: &[&str],
        query: &[(&str, u64)],
        stop: &AtomicBool,
        take: impl AsyncFn(Response) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let fetching = async {
            let mut patience = Patience::begin(LAST_PAUSE);
            loop {
                let (begun_at, epochs) = (Instant::now(), self.epoch());
                let attempt = tokio::select! {
                    attempt = self.attempt(path, query, &take) => attempt,
                    () = superseded(epochs) => {
                        patience = Patience::begin(LAST_PAUSE);
                        continue;
                    }
                };
                let error = match attempt {
                    Err(FetchError::Unreachable(error)) => error,
                    Err(FetchError::Absent(error)) => {
                        debug!(error, "waiting for a coordinator to fetch from");
                        patience.pause_while_away(begun_at).await;
                        continue;
                    }
                    ended => return ended,
                };
                patience.note(begun_at);
                if patience.is_over() {
                    return Err(FetchError::Unreachable(error));
                }
                patience.pause().await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                fetched = fetching => fetched,
                () = stopped(stop) => Err(FetchError::Stopped),
            }
        })
    }

    /// Uploads a file to `path`. Tries again while the coordinator is unreachable, cannot store the file or does not know the
    /// lease yet: like an outcome, the file waits until `stop` is set. Blocks the calling thread.
    pub(crate) fn hand_in(
        &self,
        attempt: AttemptId,
        path: &[&str],
        query: &[(&str, String)],
        content: &Content,
        stop: &AtomicBool,
    ) -> Result<(), FetchError> {
        let _noted = self.waits.begin(attempt);
        let handing_in = async {
            let mut patience = Patience::begin(LAST_HAND_IN_PAUSE);
            loop {
                let epochs = self.epoch();
                let attempt = tokio::select! {
                    attempt = self.attempt_to_hand_in(path, query, content) => attempt,
                    () = superseded(epochs) => {
                        patience = Patience::begin(LAST_HAND_IN_PAUSE);
                        continue;
                    }
                };
                match attempt {
                    Err(FetchError::Unreachable(error)) => debug!(error, "an output was not taken; it is sent again"),
                    ended => return ended,
                }
                patience.pause().await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                handed_in = handing_in => handed_in,
                () = stopped(stop) => Err(FetchError::Stopped),
            }
        })
    }

    /// Counts the time until the result is dropped as waiting time of an attempt.
    pub(crate) fn waiting(&self, attempt: AttemptId) -> Waiting<'_> {
        self.waits.begin(attempt)
    }

    /// The time that an attempt has spent on fetches and uploads. The attempt does not compute meanwhile.
    pub(crate) fn waited(&self, attempt: AttemptId) -> Duration {
        self.waits.total(attempt)
    }

    /// Forgets the waiting time of an attempt that has ended.
    pub(crate) fn ended(&self, attempt: AttemptId) {
        self.waits.forget(attempt);
    }

    async fn attempt_to_hand_in(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        content: &Content,
    ) -> Result<(), FetchError> {
        let nobody = || FetchError::Unreachable("none has taken a heartbeat yet".to_owned());
        let request = self.request(Method::PUT, path).ok_or_else(nobody)?.query(query);
        let (body, progress) = content.body();
        let sending = request.header(CONTENT_LENGTH, content.bytes).body(body).send();
        let response = tokio::select! {
            response = sending => response.map_err(|error| FetchError::Unreachable(describe(&error)))?,
            () = stalled(&progress) => return Err(FetchError::Unreachable("it takes no more of an output".to_owned())),
        };
        // A coordinator that has just begun to lead does not know the lease before the next heartbeat.
        accepted(response, |status| status == StatusCode::CONFLICT || is_transient(status)).await.map(drop)
    }

    async fn attempt<T>(
        &self,
        path: &[&str],
        query: &[(&str, u64)],
        take: &impl AsyncFn(Response) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let nobody = || FetchError::Absent("none has taken a heartbeat yet".to_owned());
        let request = self.request(Method::GET, path).ok_or_else(nobody)?.query(query);
        let response = timeout(PIECE_TIMEOUT, request.send()).await.map_err(|_| silent())?;
        let response = response.map_err(|error| {
            let is_absent = error.is_connect();
            let error = describe(&error);
            if is_absent { FetchError::Absent(error) } else { FetchError::Unreachable(error) }
        })?;
        take(accepted(response, is_transient).await?).await
    }

    /// Reports until the report is taken or refused, for about a minute. Blocks the calling thread for [`REPORT_TIMEOUT`] at
    /// most; the report goes on after that.
    pub(crate) fn report(self: &Arc<Self>, path: Vec<String>, body: impl serde::Serialize + Send + Sync + 'static) {
        let (this, under_way) = (Arc::clone(self), self.reports.begin());
        let reporting = self.runtime.spawn(async move {
            this.report_until_taken(&path, &body).await;
            drop(under_way);
        });
        // The task of a report logs that the report is not accepted.
        let _ = self.runtime.block_on(async { timeout(REPORT_TIMEOUT, reporting).await });
    }

    /// Waits for the reports that are under way, for `patience` at most. Returns whether all have ended.
    pub(crate) async fn finish(&self, patience: Duration) -> bool {
        self.reports.finish(patience).await
    }

    async fn report_until_taken(&self, path: &[String], body: &impl serde::Serialize) {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let mut patience = Patience::begin(LAST_PAUSE);
        loop {
            match self.send_report(&path, body).await {
                Ok(()) => return,
                Err(FetchError::Unreachable(error)) if !patience.is_over() => debug!(error, "a report is sent again"),
                Err(error) => {
                    debug!(%error, "a report was not accepted");
                    return;
                }
            }
            patience.pause().await;
        }
    }

    /// Runs `task` on a thread of the runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// The epoch of the coordinator that requests go to: a new leader knows nothing of earlier reports.
    pub(crate) fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Reports once, on a thread of the runtime.
    pub(crate) async fn send_report(&self, path: &[&str], body: &impl serde::Serialize) -> Result<(), FetchError> {
        let nobody = || FetchError::Unreachable("none has taken a heartbeat yet".to_owned());
        let request = self.request(Method::PUT, path).ok_or_else(nobody)?;
        let response = request.timeout(REPORT_TIMEOUT).json(body).send().await;
        let response = response.map_err(|error| FetchError::Unreachable(describe(&error)))?;
        accepted(response, is_transient).await.map(drop)
    }

    fn request(&self, method: Method, path: &[&str]) -> Option<RequestBuilder> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = current.as_ref()?;
        let request = self.client.request(method, endpoint.join(path)).header(HOST, endpoint.host().clone());
        Some(self.credential.sign(request))
    }
}

/// The next piece of an answer; none after the last.
pub(crate) async fn piece_of(response: &mut Response) -> Result<Option<Bytes>, FetchError> {
    let piece = timeout(PIECE_TIMEOUT, response.chunk()).await.map_err(|_| silent())?;
    piece.map_err(|error| FetchError::Unreachable(describe(&error)))
}

/// Whether a later request may get another answer. A refused credential says nothing of the task: its file is read again.
fn is_transient(status: StatusCode) -> bool {
    const LATER: [StatusCode; 4] =
        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || LATER.contains(&status)
}

fn silent() -> FetchError {
    FetchError::Unreachable("it says nothing".to_owned())
}

/// Resolves some time after requests go to the coordinator of a later epoch: the former leader may be halted and never answer.
async fn superseded(mut epochs: watch::Receiver<u64>) {
    if epochs.changed().await.is_err() {
        std::future::pending().await
    }
    sleep(SUPERSEDED_TIMEOUT).await;
}

/// The answer if its status is a success; `may_pass` tells which refusals are worth another try.
async fn accepted(response: Response, may_pass: fn(StatusCode) -> bool) -> Result<Response, FetchError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = read_bounded_json::<Problem>(response, MAX_PROBLEM_BYTES).await;
    let detail = problem.map_or_else(|_| String::new(), |problem| format!(": {}", problem.detail));
    if may_pass(status) {
        return Err(FetchError::Unreachable(format!("it answered {status}{detail}")));
    }
    Err(FetchError::Refused { status, detail })
}

/// A file to be uploaded.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) file: Arc<File>,
    pub(crate) bytes: u64,
}

impl Content {
    /// The file in pieces, and the number of bytes sent so far.
    fn body(&self) -> (Body, Arc<AtomicU64>) {
        let taken = Arc::new(AtomicU64::new(0));
        let (file, progress) = (Arc::clone(&self.file), Arc::clone(&taken));
        let pieces = stream::try_unfold((file, progress), |(file, progress)| async move {
            let at = progress.load(Ordering::Relaxed);
            let reading = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let length = file.read_at(&mut piece, at)?;
                piece.truncate(length);
                Ok::<_, std::io::Error>((file, piece))
            });
            let (file, piece) = reading.await.map_err(std::io::Error::other)??;
            progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, (file, progress))))
        });
        (Body::wrap_stream(pieces), taken)
    }
}

/// Resolves when no byte was sent for [`STALL_TIMEOUT`] or up to twice as long.
async fn stalled(progress: &AtomicU64) {
    let mut before = progress.load(Ordering::Relaxed);
    loop {
        sleep(STALL_TIMEOUT).await;
        let now = progress.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) == now {
            return;
        }
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(STOP_INTERVAL).await;
    }
}
