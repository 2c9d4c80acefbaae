//! A coordinator that records heartbeats and reports, and answers as it is told.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, Json, Path, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use api::{Heartbeat, HeartbeatAnswer, HeldLease, HeldState, LogReport};
use model::AttemptId;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::DEADLINE;

/// The longest report and heartbeat that is taken.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Requests that a coordinator has received, and its answers.
#[derive(Debug, Default)]
pub(crate) struct FakeState {
    pub(crate) epoch: u64,
    pub(crate) heartbeats: Vec<Heartbeat>,
    pub(crate) reports: Vec<Report>,
    pub(crate) deregistrations: u32,
    /// The status of every answer to a heartbeat but 200.
    pub(crate) refusal: Option<u16>,
    /// Said in each answer.
    pub(crate) settled: Vec<AttemptId>,
    /// Whether finished attempts are asked for.
    pub(crate) asks_for_outcomes: bool,
    /// Whether an attempt is settled with its report.
    pub(crate) settles_reports: bool,
    /// The status of the answers to reports; 204 where it is none.
    pub(crate) report_status: Option<u16>,
    /// Lengths of the outputs that came.
    pub(crate) outputs: Vec<usize>,
    /// The status of the answers to outputs; 204 where it is none.
    pub(crate) output_status: Option<u16>,
    /// Reports of the stderr of programs, in the order of their arrival.
    pub(crate) logs: Vec<LogReport>,
    /// The status of the answers to these reports; 204 where it is none.
    pub(crate) log_status: Option<u16>,
    /// Number of times that a program was asked for.
    pub(crate) fetches: u32,
    /// The bytes of every program; none is there where there are none.
    pub(crate) program: Vec<u8>,
    /// Whether it takes outputs, and requests for programs, and does not answer.
    pub(crate) is_silent: bool,
    /// Paths and `Host` headers of heartbeats.
    pub(crate) asked: Vec<(String, String)>,
}

/// A request to `/v1/worker/tasks/{attempt}/{what}`.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) attempt: AttemptId,
    pub(crate) what: String,
    pub(crate) body: Value,
}

impl FakeState {
    /// The entry of the last heartbeat for an attempt.
    pub(crate) fn held(&self, attempt: AttemptId) -> Option<&HeldLease> {
        self.heartbeats.last()?.held.iter().find(|held| held.attempt == attempt)
    }

    pub(crate) fn is_held(&self, attempt: AttemptId, state: HeldState) -> bool {
        self.held(attempt).is_some_and(|held| held.state == state)
    }

    pub(crate) fn report(&self, attempt: AttemptId) -> Option<&Report> {
        self.reports.iter().find(|report| report.attempt == attempt)
    }
}

/// A running coordinator; stopped when dropped.
pub(crate) struct FakeCoordinator {
    pub(crate) address: SocketAddr,
    state: Arc<watch::Sender<FakeState>>,
    server: ServerHandle,
    ended: oneshot::Receiver<()>,
}

impl FakeCoordinator {
    pub(crate) async fn start(epoch: u64) -> Self {
        Self::listen(own_address(), epoch).await
    }

    /// Starts one at an address where none is.
    pub(crate) async fn listen(address: SocketAddr, epoch: u64) -> Self {
        let listener = listen_again(address).await;
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(watch::Sender::new(FakeState { epoch, ..FakeState::default() }));
        let (send_handle, handle) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let data = Data::from(Arc::clone(&state));
        thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(configure));
                let server = server.workers(1).disable_signals().listen(listener).expect("listen").run();
                assert!(send_handle.send(server.handle()).is_ok(), "the test waits");
                server.await.expect("serve");
            });
            // The test may be over.
            let _ = tell_ended.send(());
        });
        Self { address, state, server: handle.await.expect("a server"), ended }
    }

    /// Ends it at once, with its connections; returns its address.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.server.stop(false).await;
        (&mut self.ended).await.expect("it ends");
        self.address
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut FakeState)) {
        self.state.send_modify(change);
    }

    /// Waits until the state is so.
    pub(crate) async fn wait(&self, what: &str, is_so: impl FnMut(&FakeState) -> bool) {
        self.wait_for(what, is_so, |_| ()).await;
    }

    /// Waits until the state is so, and looks at it.
    pub(crate) async fn wait_for<T>(
        &self,
        what: &str,
        is_so: impl FnMut(&FakeState) -> bool,
        look: impl FnOnce(&FakeState) -> T,
    ) -> T {
        let mut states = self.state.subscribe();
        let state = timeout(DEADLINE, states.wait_for(is_so)).await.unwrap_or_else(|_| panic!("in time: {what}"));
        look(&state.expect("a field of this"))
    }

    /// Waits for heartbeats that leave from now on: one may be on its way already.
    pub(crate) async fn wait_for_new_heartbeats(&self) {
        let seen = self.state.borrow().heartbeats.len();
        self.wait("two more heartbeats", |state| state.heartbeats.len() >= seen + 2).await;
    }
}

impl Drop for FakeCoordinator {
    fn drop(&mut self) {
        // It stops without being waited for.
        drop(self.server.stop(false));
    }
}

/// Below the ports that the system gives to connections and to listeners that leave the choice to it.
const PORT: u16 = 17_600;

/// A loopback address that no other test uses: its port stays free while nobody listens on it.
///
/// No listener looks for it: a process that is forked meanwhile would keep it open until its `exec`, and the port taken.
pub(crate) fn own_address() -> SocketAddr {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = (std::process::id() << 8) + LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let [_, high, middle, low] = number.to_be_bytes();
    SocketAddr::from(([127, high, middle, low], PORT))
}

/// Listens at an address at which there may have been a listener a moment ago: see [`own_address`].
async fn listen_again(address: SocketAddr) -> TcpListener {
    for _ in 0..1_000 {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::time::sleep(Duration::from_millis(5)).await,
            bound => return bound.expect("bind an address"),
        }
    }
    panic!("{address} is in use");
}

fn configure(config: &mut ServiceConfig) {
    config
        .app_data(web::JsonConfig::default().limit(MAX_BODY_BYTES))
        .route("/{prefix:.*}worker/register/{worker}", web::put().to(take_heartbeat))
        .route("/{prefix:.*}worker/register/{worker}", web::delete().to(deregister))
        .route("/{prefix:.*}worker/outputs/{job}/{attempt}/{task}", web::put().to(take_output))
        .route("/{prefix:.*}worker/logs/{job}/{task}/{attempt}", web::put().to(take_log))
        .route("/{prefix:.*}worker/programs/{hash}", web::get().to(give_program))
        .route("/{prefix:.*}v1/worker/tasks/{attempt}/{what}", web::post().to(take_report));
}

async fn take_output(state: Data<watch::Sender<FakeState>>, output: Bytes) -> HttpResponse {
    let (mut is_silent, mut status) = (false, 204);
    state.send_modify(|state| {
        state.outputs.push(output.len());
        (is_silent, status) = (state.is_silent, state.output_status.unwrap_or(status));
    });
    if is_silent {
        std::future::pending::<()>().await;
    }
    HttpResponse::build(StatusCode::from_u16(status).expect("a status")).finish()
}

async fn take_log(state: Data<watch::Sender<FakeState>>, report: Json<LogReport>) -> HttpResponse {
    let mut status = 204;
    state.send_modify(|state| {
        state.logs.push(report.into_inner());
        status = state.log_status.unwrap_or(status);
    });
    HttpResponse::build(StatusCode::from_u16(status).expect("a status")).finish()
}

async fn give_program(state: Data<watch::Sender<FakeState>>) -> HttpResponse {
    let (mut is_silent, mut program) = (false, Vec::new());
    state.send_modify(|state| {
        state.fetches += 1;
        (is_silent, program) = (state.is_silent, state.program.clone());
    });
    if is_silent {
        std::future::pending::<()>().await;
    }
    if program.is_empty() { HttpResponse::NotFound().finish() } else { HttpResponse::Ok().body(program) }
}

async fn take_heartbeat(
    state: Data<watch::Sender<FakeState>>,
    request: HttpRequest,
    heartbeat: Json<Heartbeat>,
) -> HttpResponse {
    let mut response = HttpResponse::NoContent().finish();
    state.send_modify(|state| {
        let is_finished = |held: &&HeldLease| state.asks_for_outcomes && held.state == HeldState::Finished;
        let deliver = heartbeat.held.iter().filter(is_finished).map(|held| held.attempt).collect();
        let settled = state.settled.clone();
        let answer = HeartbeatAnswer { epoch: state.epoch, settled, deliver, is_standby: false };
        state.heartbeats.push(heartbeat.into_inner());
        let host = request.headers().get("Host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        state.asked.push((request.path().to_owned(), host.to_owned()));
        if let Some(status) = state.refusal {
            let status = StatusCode::from_u16(status).expect("a status");
            let detail = format!("refused for the {}th time", state.heartbeats.len());
            response =
                HttpResponse::build(status).json(json!({"title": "", "status": status.as_u16(), "detail": detail}));
        } else if answer != HeartbeatAnswer::default() {
            response = HttpResponse::Ok().json(answer);
        }
    });
    response
}

async fn deregister(state: Data<watch::Sender<FakeState>>) -> HttpResponse {
    state.send_modify(|state| state.deregistrations += 1);
    HttpResponse::NoContent().finish()
}

async fn take_report(
    state: Data<watch::Sender<FakeState>>,
    path: Path<(String, AttemptId, String)>,
    body: Json<Value>,
) -> HttpResponse {
    let (_, attempt, what) = path.into_inner();
    let mut status = 204;
    state.send_modify(|state| {
        state.reports.push(Report { attempt, what, body: body.into_inner() });
        if state.settles_reports {
            state.settled.push(attempt);
        }
        status = state.report_status.unwrap_or(status);
    });
    HttpResponse::build(StatusCode::from_u16(status).expect("a status")).finish()
}
