//! A small service on port 0, and raw clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::Value;
use service::{
    ApiError, BodyBudget, Caller, Compressed, Connection, Doors, Health, Limits, Listener, Metrics, Right, Route,
    read_body, read_json, resource, serve, when_answer_is_lost,
};
use tokio::sync::Notify;

/// The table of the routes below.
pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/things", Right::Read).query(&["limit", "tag"]),
    Route::new("POST", "/things", Right::Submit),
    Route::new("GET", "/slow", Right::Read),
    Route::new("POST", "/slow", Right::Submit),
    Route::new("GET", "/minded", Right::Read),
    Route::new("GET", "/stream", Right::Read),
    Route::new("GET", "/page", Right::Read),
    Route::new("GET", "/whoami", Right::Read),
    Route::new("GET", "/workers", Right::Read),
    Route::new("POST", "/upload", Right::Submit).any_body(),
    Route::new("POST", "/programs", Right::Programs).any_body(),
    // Served by a resource of another crate, which leaves other methods alone.
    Route::new("GET", "/foreign", Right::Read),
];

const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// State that the handlers and the tests share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Lets handlers of `/slow` go on.
    pub(crate) go_on: Notify,
    /// Handlers of `/slow` and streams that have begun.
    pub(crate) begun: AtomicU64,
    /// Requests whose handler was dropped before its end.
    pub(crate) dropped: AtomicU64,
    /// Connections that reported their end.
    pub(crate) closed: AtomicU64,
    /// Answers of `/minded` that did not reach their clients.
    pub(crate) lost: AtomicU64,
    pub(crate) budget: BodyBudget,
    /// Pause of `/upload` before it reads.
    pub(crate) read_after: Duration,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    handle: actix_web::dev::ServerHandle,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    pub(crate) doors: Doors,
    pub(crate) limits: Limits,
    pub(crate) budget_bytes: usize,
    pub(crate) read_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            doors: Doors::default(),
            limits: Limits::default(),
            budget_bytes: 256 << 20,
            read_after: Duration::ZERO,
        }
    }
}

/// Starts the service on a runtime of its own.
pub(crate) fn start(options: Options) -> Service {
    let Options { address, doors, limits, budget_bytes, read_after } = options;
    let shared = Arc::new(Shared {
        go_on: Notify::new(),
        begun: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        closed: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        budget: BodyBudget::new(budget_bytes),
        read_after,
    });
    let listener = Listener::bind(address).expect("bind").guarded(doors, ROUTES).limited(limits);
    let port = listener.address().port();
    let state = Data::from(Arc::clone(&shared));
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let metrics = Metrics::new(Registry::default());
            let own = metrics.clone();
            let configure = move |config: &mut ServiceConfig| {
                Health::default().configure(config);
                own.configure(config);
                routes(config, &state);
            };
            let server = serve(listener, 1, Duration::from_secs(20), &metrics, configure).expect("serve");
            send.send(server.handle()).expect("the test waits");
            server.await.expect("serve");
        });
    });
    let handle = receive.recv().expect("started");
    Service { address: (Ipv4Addr::LOCALHOST, port).into(), shared, handle }
}

fn routes(config: &mut ServiceConfig, state: &Data<Shared>) {
    config
        .app_data(state.clone())
        .service(resource("/things", "GET, POST").get(things).post(new_thing))
        .service(resource("/slow", "GET, POST").get(slow).post(slow))
        .service(resource("/minded", "GET").get(minded))
        .service(resource("/stream", "GET").get(endless))
        .service(resource("/page", "GET").get(page))
        .service(resource("/whoami", "GET").get(whoami))
        .service(resource("/workers", "GET").get(things))
        .service(resource("/upload", "POST").post(upload))
        .service(resource("/programs", "POST").post(async || "added"))
        .service(resource("/forgotten", "GET").get(async || "seen"))
        .service(web::resource("/foreign").guard(actix_web::guard::Get()).to(async || "foreign"));
}

async fn things() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body("[]")
}

/// An answer that may be compressed.
async fn page() -> HttpResponse {
    let mut answer = HttpResponse::Ok().insert_header(("vary", "Accept")).body("a line of a page\n".repeat(200));
    Compressed::default().mark(&mut answer);
    answer
}

#[derive(Debug, Deserialize)]
struct Thing {
    name: String,
}

async fn new_thing(body: Payload) -> Result<HttpResponse, ApiError> {
    let Thing { name } = read_json(body).await?;
    Ok(HttpResponse::Created().body(name))
}

async fn whoami(caller: Caller) -> String {
    caller.name().map_or_else(|| "nobody".to_owned(), |name| name.to_string())
}

/// Counts handlers that are dropped before their end.
struct Begun(Data<Shared>, bool);

impl Begun {
    fn new(shared: &Data<Shared>) -> Self {
        shared.begun.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone(), false)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.1 {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn slow(shared: Data<Shared>, request: HttpRequest) -> &'static str {
    if let Some(connection) = request.conn_data::<Connection>() {
        let shared = shared.clone().into_inner();
        connection.when_closed(move || {
            shared.closed.fetch_add(1, Ordering::SeqCst);
        });
    }
    let going_on = shared.go_on.notified();
    let mut begun = Begun::new(&shared);
    going_on.await;
    begun.1 = true;
    "done"
}

/// Like `/slow`, and counts lost answers.
async fn minded(shared: Data<Shared>, request: HttpRequest) -> &'static str {
    let counting = shared.clone().into_inner();
    when_answer_is_lost(&request, move || {
        counting.lost.fetch_add(1, Ordering::SeqCst);
    });
    slow(shared, request).await
}

/// Begins with a line and goes on once when it is notified.
async fn endless(shared: Data<Shared>) -> HttpResponse {
    let state = (Begun::new(&shared), shared, 0);
    let lines = stream::unfold(state, |(begun, shared, line)| async move {
        if line > 0 {
            shared.go_on.notified().await;
        }
        Some((Ok::<_, std::io::Error>(web::Bytes::from(format!("line {line}\n"))), (begun, shared, line + 1)))
    });
    HttpResponse::Ok().streaming(lines)
}

async fn upload(shared: Data<Shared>, request: HttpRequest, body: Payload) -> Result<String, ApiError> {
    shared.begun.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(shared.read_after).await;
    let body = read_body(&request, body, 64 << 20, Duration::from_secs(60), &shared.budget).await?;
    Ok(body.len().to_string())
}

impl Service {
    /// Stops the service as SIGTERM does.
    pub(crate) fn stop(&self) -> impl FnOnce() + Send + use<> {
        let handle = self.handle.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(handle.stop(true));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(LONGEST_WAIT)).expect("set");
        stream.set_write_timeout(Some(LONGEST_WAIT)).expect("set");
        stream
    }

    /// Sends one request on a connection of its own; returns the answer's status, head and body.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("send");
        read_to_end(&mut stream)
    }

    /// A request without a body, with more header fields where they are given.
    pub(crate) fn request(&self, method: &str, target: &str, fields: &[&str]) -> Answer {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        self.ask(&format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n"))
    }

    pub(crate) fn get(&self, target: &str, fields: &[&str]) -> Answer {
        self.request("GET", target, fields)
    }

    /// Sends a body of JSON.
    pub(crate) fn post(&self, target: &str, fields: &[&str], body: &str) -> Answer {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let length = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}");
        self.ask(&format!("{head}\r\n{fields}\r\n{body}"))
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn detail(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// Reads an answer up to the connection's end.
pub(crate) fn read_to_end(stream: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let rest = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    let (head, body) = rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?}: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Reads up to a text; returns all that came.
pub(crate) fn read_up_to(stream: &mut impl Read, end: &str) -> String {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(end.as_bytes()) {
        assert_eq!(stream.read(&mut byte).expect("read"), 1, "{}", String::from_utf8_lossy(&seen));
        seen.extend(byte);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Waits until `is_so`, or fails.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LONGEST_WAIT;
    while !is_so() {
        assert!(Instant::now() < until, "not {what} in {LONGEST_WAIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
