//! A coordinator that serves, workers that are a few lines of HTTP, and the real ones.

mod bodies;
mod event_stream;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::{self, Json};
use actix_web::{App, HttpResponse, HttpServer};
use api::{Claimed, Heartbeat, Job, LeaseOutcome, LeaseRequest, Problem, Task, TaskPage, WorkerState, WorkerSummary};
use coordinator::config::Config;
use coordinator::startup::Coordinator;
use flate2::read::GzDecoder;
use model::{BootId, JobId, JobState, Labels};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use service::Listener;
use store::Shared;
use store::memory::MemoryShared;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;
use worker::startup::Worker;

pub(crate) use bodies::{claim, labels, numbered_tasks, sleeps, with};
pub(crate) use event_stream::EventStream;

pub(crate) const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// The longest that a condition is waited for: much longer than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running coordinator; it ends with the test's runtime, or when it is stopped.
pub(crate) struct TestCoordinator {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) client: Client,
    pub(crate) data_dir: TempDir,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

/// A real worker; it leaves when this is dropped.
pub(crate) struct TestWorker {
    _stop: oneshot::Sender<()>,
}

/// Settings by which no slow moment of the machine loses a worker or refuses a request.
pub(crate) fn config() -> Config {
    Config {
        public_addr: ANY_PORT.into(),
        internal_addr: ANY_PORT.into(),
        evict_after_ms: 600_000,
        no_worker_timeout_ms: 60_000,
        recovery_ms: 0,
        drain_timeout_ms: 100,
        ..Config::default()
    }
}

/// Settings by which a request without a worker is refused soon.
pub(crate) fn impatient() -> Config {
    Config { no_worker_timeout_ms: 50, ..config() }
}

impl TestCoordinator {
    pub(crate) fn start(config: Config) -> Self {
        let data_dir = TempDir::new().expect("a directory");
        let coordinator = build(&data_dir, config).expect("free ports and a directory of its own");
        Self::run(data_dir, coordinator)
    }

    /// Starts on another coordinator's data. Its threads may still hold the directory: they end by themselves.
    pub(crate) async fn start_on(data_dir: TempDir, config: Config) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match build(&data_dir, config.clone()) {
                Ok(coordinator) => return Self::run(data_dir, coordinator),
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            pause().await;
        }
    }

    /// Starts one of several coordinators.
    pub(crate) fn start_shared(shared: &MemoryShared, config: Config) -> Self {
        Self::start_over(Arc::new(shared.clone()), config)
    }

    /// Starts a coordinator over a store that others may share.
    pub(crate) fn start_over(shared: Arc<dyn Shared>, config: Config) -> Self {
        let coordinator = Coordinator::build_shared(config, shared).expect("free ports");
        Self::run(TempDir::new().expect("a directory"), coordinator)
    }

    fn run(data_dir: TempDir, coordinator: Coordinator) -> Self {
        let (public, internal) = (coordinator.public_addr(), coordinator.internal_addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(coordinator.run(async move {
            if stopped.await.is_err() {
                // Its test is over, and so will its runtime be.
                std::future::pending().await
            }
        }));
        let client = api::client::http_client(Duration::from_secs(1)).expect("a client");
        Self { public, internal, client, data_dir, stop, running }
    }

    /// Stops it as SIGTERM does; returns its data.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.send(()).expect("it runs");
        self.running.await.expect("no panic").expect("a clean end");
        self.data_dir
    }

    /// Waits until the coordinator ends by itself; returns the reason.
    pub(crate) async fn failure(self) -> anyhow::Error {
        self.running.await.expect("no panic").expect_err("nobody stops it")
    }

    /// Stops it and starts another one on its data, on other ports.
    pub(crate) async fn restart(self, config: Config) -> Self {
        Self::start_on(self.stop().await, config).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.public)).send().await.expect("an answer")
    }

    pub(crate) async fn get_internal(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.internal)).send().await.expect("an answer")
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("http://{}{path}", self.public)).json(body).send().await.expect("an answer")
    }

    pub(crate) async fn post_internal(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("http://{}{path}", self.internal)).json(body).send().await.expect("an answer")
    }

    /// Submits a job that is accepted.
    pub(crate) async fn submit(&self, body: &Value) -> Job {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.post("/v1/jobs", body).await;
            // One thread serves all requests of a test. If it reads the head of a request too late, it refuses the request unread,
            // and clients send it again.
            if answer.status() != StatusCode::REQUEST_TIMEOUT || Instant::now() > deadline {
                return read(answer, 201).await;
            }
        }
    }

    pub(crate) async fn job(&self, id: JobId) -> Job {
        read(self.get(&format!("/v1/jobs/{id}")).await, 200).await
    }

    pub(crate) async fn act(&self, id: JobId, action: &str) -> Response {
        self.post(&format!("/v1/jobs/{id}/{action}"), &Value::Null).await
    }

    /// Waits until the job is as `wanted` says.
    pub(crate) async fn job_when(&self, id: JobId, wanted: impl Fn(&Job) -> bool) -> Job {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let job = self.job(id).await;
            if wanted(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "it stayed like this: {job:?}");
            pause().await;
        }
    }

    pub(crate) async fn job_in(&self, id: JobId, state: JobState) -> Job {
        self.job_when(id, |job| job.state == state).await
    }

    /// The first task of a list, once there is one: the engine's state is on its way to the store.
    pub(crate) async fn first_task(&self, id: JobId, query: &str) -> Task {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(first) = self.tasks(id, query).await.into_iter().next() {
                return first;
            }
            assert!(Instant::now() < deadline, "no task came");
            pause().await;
        }
    }

    /// Waits until `count` pulling workers are known.
    pub(crate) async fn wait_for_pulling(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats: Value = read(self.get("/v1/stats").await, 200).await;
            if stats["workers"]["pulling"] == count {
                return;
            }
            assert!(Instant::now() < deadline, "they stayed like this: {}", stats["workers"]);
            pause().await;
        }
    }

    /// Waits for the result of a job.
    pub(crate) async fn result(&self, id: JobId) -> Value {
        read(self.get(&format!("/v1/jobs/{id}/result?wait=60s")).await, 200).await
    }

    pub(crate) async fn tasks(&self, id: JobId, query: &str) -> Vec<Task> {
        let page: TaskPage = read(self.get(&format!("/v1/jobs/{id}/tasks{query}")).await, 200).await;
        page.tasks
    }

    /// Fetches tasks of any kind as the worker `id`; `more` is added to the claim.
    pub(crate) async fn claim(&self, id: &str, more: &Value) -> Option<Claimed> {
        let response = self.post_internal("/v1/worker/claim", &claim(id, more)).await;
        if response.status() == StatusCode::NO_CONTENT {
            return None;
        }
        Some(read(response, 200).await)
    }

    /// Fetches tasks that must be there.
    pub(crate) async fn claimed(&self, id: &str, more: &Value) -> Claimed {
        self.claim(id, more).await.expect("a task waits for it")
    }

    /// Reports of a claim: `complete`, `fail` or `renew`.
    pub(crate) async fn report(&self, claimed: &Claimed, how: &str, body: &Value) -> Response {
        self.post_internal(&format!("/v1/worker/tasks/{}/{how}", claimed.attempt), body).await
    }

    pub(crate) async fn complete(&self, claimed: &Claimed, results: &Value) {
        let response = self.report(claimed, "complete", &json!({ "results": results })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    pub(crate) async fn fail(&self, claimed: &Claimed, error: &str) {
        let response = self.report(claimed, "fail", &json!({ "error": error })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    pub(crate) async fn register(&self, id: &str, heartbeat: &Heartbeat) -> Response {
        let url = format!("http://{}/worker/register/{id}", self.internal);
        self.client.put(url).json(heartbeat).send().await.expect("an answer")
    }

    pub(crate) async fn workers(&self) -> Vec<WorkerSummary> {
        read(self.get("/workers").await, 200).await
    }

    pub(crate) async fn state_of(&self, id: &str) -> WorkerState {
        let workers = self.workers().await;
        workers.iter().find(|worker| worker.id.as_str() == id).expect("a registered worker").state
    }

    /// Starts a worker that answers leases as `answer` does, and registers it.
    pub(crate) async fn add_worker(&self, id: &str, answer: fn(LeaseRequest) -> HttpResponse) -> JoinHandle<()> {
        let (heartbeat, serving) = start_worker(answer);
        assert_eq!(self.register(id, &heartbeat).await.status(), StatusCode::OK);
        serving
    }

    /// Starts a real worker with `slots` slots and waits until it is registered.
    pub(crate) async fn add_real_worker(&self, id: &str, slots: u32, labels: Labels) -> TestWorker {
        let worker = start_real_worker(&[self.internal], id, slots, labels);
        let deadline = Instant::now() + PATIENCE;
        while !self.workers().await.iter().any(|worker| worker.id.as_str() == id) {
            assert!(Instant::now() < deadline, "it never registered");
            pause().await;
        }
        worker
    }
}

/// Starts a real worker of the coordinators at these internal addresses.
pub(crate) fn start_real_worker(coordinators: &[SocketAddr], id: &str, slots: u32, labels: Labels) -> TestWorker {
    let urls: Vec<_> = coordinators.iter().map(|address| format!("http://{address}")).collect();
    let worker = Worker::build(worker::config::Config {
        listen_addr: ANY_PORT.into(),
        coordinator: urls.join(",").try_into().expect("URLs"),
        worker_id: Some(id.parse().expect("a name")),
        slots,
        worker_labels: worker::config::WorkerLabels(labels),
        drain_timeout_ms: 100,
        heartbeat_timeout_ms: 1_000,
        orphan_timeout_ms: 60_000,
        max_held_bytes: 1 << 20,
        programs: None,
        allow_native: false,
        // It cannot be used: these workers run no programs.
        program_dir: Some("/dev/null/programs".into()),
        program_cache_bytes: 0,
        program_memory_bytes: 0,
        worker_token: service::WorkerToken::default(),
        worker_token_file: None,
        deletion_cost_pod: None,
        kubernetes_account_dir: "/dev/null".into(),
        pod_ip: None,
        doors: service::DoorSettings::default(),
    });
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(worker.expect("a free port").run(async move { drop(stopped.await) }));
    TestWorker { _stop: stop }
}

fn build(data_dir: &TempDir, mut config: Config) -> anyhow::Result<Coordinator> {
    data_dir.path().clone_into(&mut config.data_dir);
    Coordinator::build(config)
}

/// Between two looks at something that is waited for.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// The numbers that tasks have in their job.
pub(crate) fn indices(claimed: &Claimed) -> Vec<u64> {
    claimed.tasks.iter().map(|task| task.index).collect()
}

/// Checks the status and reads the answer.
pub(crate) async fn read<T: serde::de::DeserializeOwned>(response: Response, status: u16) -> T {
    let (found, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The body of a compressed answer.
pub(crate) fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut plain).expect("gzip");
    plain
}

pub(crate) fn heartbeat(port: u16) -> Heartbeat {
    Heartbeat {
        epoch: 0,
        abilities: model::Labels::new(),
        port,
        boot_id: BootId(Uuid::new_v4()),
        slots: 1,
        running: 0,
        cpu_load: 0.5,
        free_memory_bytes: 1 << 30,
        version: "0.0.0-test".to_owned(),
        labels: model::Labels::new(),
        resources: model::Resources::default(),
        kinds: vec![model::JobKind::SUM_OF_PRIMES],
        is_draining: false,
        programs: api::ProgramAbilities::default(),
        held: Vec::new(),
    }
}

pub(crate) fn start_worker(answer: fn(LeaseRequest) -> HttpResponse) -> (Heartbeat, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind(ANY_PORT).expect("a free port");
    let heartbeat = heartbeat(listener.local_addr().expect("bound").port());
    let lease = move |lease: Json<LeaseRequest>| async move { answer(lease.into_inner()) };
    let app = move || App::new().route("/lease", web::post().to(lease));
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("serve").run();
    (heartbeat, tokio::spawn(async move { server.await.expect("serve") }))
}

/// Computes the request, by one slow method for all.
pub(crate) fn compute(lease: LeaseRequest) -> HttpResponse {
    assert_eq!(lease.kind, model::JobKind::SUM_OF_PRIMES);
    let range: Value = serde_json::from_str(lease.work.get()).expect("a range");
    let end = |name: &str| range[name].as_u64().expect("a number");
    let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let value = (end("a")..=end("b")).filter(is_prime).map(u128::from).sum();
    HttpResponse::Ok().json(LeaseOutcome { attempt: lease.attempt, value, results: Vec::new(), compute_us: 1 })
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
