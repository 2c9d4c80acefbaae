//! A coordinator that serves, and workers that are a few lines of HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use actix_web::web::{self, Json};
use actix_web::{App, HttpResponse, HttpServer};
use coordinator::config::Config;
use coordinator::startup::Coordinator;
use protocol::{BootId, Heartbeat, LeaseOutcome, LeaseRequest, Problem, Work, WorkerState, WorkerSummary};
use reqwest::{Client, Response, StatusCode};
use service::Listener;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A running coordinator; it ends with the test's runtime.
pub(crate) struct TestCoordinator {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) client: Client,
    _data_dir: TempDir,
}

/// Settings that need no patience.
pub(crate) fn config() -> Config {
    Config {
        public_addr: ANY_PORT.into(),
        internal_addr: ANY_PORT.into(),
        no_worker_timeout_ms: 50,
        drain_timeout_ms: 100,
        ..Config::default()
    }
}

impl TestCoordinator {
    pub(crate) fn start(mut config: Config) -> Self {
        let data_dir = TempDir::new().expect("a directory");
        data_dir.path().clone_into(&mut config.data_dir);
        let coordinator = Coordinator::build(config).expect("free ports");
        let (public, internal) = (coordinator.public_addr(), coordinator.internal_addr());
        tokio::spawn(coordinator.run(std::future::pending()));
        let client = service::http_client(Duration::from_secs(1)).expect("a client");
        Self { public, internal, client, _data_dir: data_dir }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.public)).send().await.expect("an answer")
    }

    pub(crate) async fn get_internal(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.internal)).send().await.expect("an answer")
    }

    pub(crate) async fn register(&self, id: &str, heartbeat: &Heartbeat) -> Response {
        let url = format!("http://{}/worker/register/{id}", self.internal);
        self.client.put(url).json(heartbeat).send().await.expect("an answer")
    }

    pub(crate) async fn state_of(&self, id: &str) -> WorkerState {
        let workers: Vec<WorkerSummary> = self.get("/workers").await.json().await.expect("a list");
        workers.iter().find(|worker| worker.id.as_str() == id).expect("a registered worker").state
    }

    /// Starts a worker that answers leases as `answer` does, and registers it.
    pub(crate) async fn add_worker(&self, id: &str, answer: fn(LeaseRequest) -> HttpResponse) -> JoinHandle<()> {
        let (heartbeat, serving) = start_worker(answer);
        assert_eq!(self.register(id, &heartbeat).await.status(), StatusCode::NO_CONTENT);
        serving
    }
}

pub(crate) fn heartbeat(port: u16) -> Heartbeat {
    Heartbeat {
        port,
        boot_id: BootId(Uuid::new_v4()),
        slots: 1,
        running: 0,
        cpu_load: 0.5,
        free_memory_bytes: 1 << 30,
        version: "0.0.0-test".to_owned(),
        labels: protocol::Labels::new(),
        resources: protocol::Resources::default(),
        kinds: vec![protocol::JobKind::SumOfPrimes],
        is_draining: false,
    }
}

fn start_worker(answer: fn(LeaseRequest) -> HttpResponse) -> (Heartbeat, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind(ANY_PORT).expect("a free port");
    let heartbeat = heartbeat(listener.local_addr().expect("bound").port());
    let lease = move |lease: Json<LeaseRequest>| async move { answer(lease.into_inner()) };
    let app = move || App::new().route("/lease", web::post().to(lease));
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("serve").run();
    (heartbeat, tokio::spawn(async move { server.await.expect("serve") }))
}

/// Computes what was asked, one slow method for all.
pub(crate) fn compute(lease: LeaseRequest) -> HttpResponse {
    let Work::SumOfPrimes(range) = lease.work else { panic!("another kind") };
    let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let value = (range.a..=range.b).filter(is_prime).map(u128::from).sum();
    HttpResponse::Ok().json(LeaseOutcome { attempt: lease.attempt, value, compute_us: 1 })
}

pub(crate) fn refuse(_: LeaseRequest) -> HttpResponse {
    HttpResponse::InternalServerError().body("no")
}

/// Checks that the answer is a problem of this status; hands back its detail.
pub(crate) async fn problem(response: Response, status: u16) -> Problem {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Problem = response.json().await.expect("a problem");
    assert_eq!(problem.status, status);
    problem
}

/// An address that nothing listens on.
pub(crate) fn closed_port() -> u16 {
    Listener::bind(ANY_PORT.into()).expect("a free port").address().port()
}
