//! A worker that registers like a good one and answers leases as badly as a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Coordinator, connect, eventually};

/// More often than a good worker: a suspended one gets work again after a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);

/// An attempt that no coordinator gives out.
const OTHER_ATTEMPT: &str = "00000000-0000-4000-8000-000000000000";

/// The fault of a [`FakeWorker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Status500,
    /// The server of a worker that was halted gives up the request that came meanwhile.
    RequestTimeout,
    /// Another process than the lease is for.
    Conflict,
    /// No room for a lease.
    TooManyRequests,
    /// Another worker token than the coordinator's.
    Unauthorized,
    /// A certificate is missing.
    Forbidden,
    Garbage,
    HalfAnAnswer,
    WrongAttempt,
    ImpossibleSum,
    /// A sum that could be, and is not.
    WrongSum,
    /// Two such sums, and no answer after them.
    TwoWrongSums,
    EndlessBody,
    LongBody,
    RedirectToItself,
    ClosedConnection,
    Silence,
}

/// Registered and heard of until it is dropped.
#[derive(Debug)]
pub(crate) struct FakeWorker {
    /// Leases that reached it.
    leases: Arc<AtomicU64>,
    port: u16,
    /// Dropped to end the heartbeats.
    _heartbeats: Sender<()>,
}

impl FakeWorker {
    /// Starts a worker of one slot and waits until `coordinator` lists it.
    pub(crate) fn join(coordinator: &Coordinator, fault: Fault) -> Self {
        let leases = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&leases);
        let port = serve(move |stream| answer(stream, fault, &counter));
        let heartbeats = announce(coordinator, port, "sum-of-primes");
        Self { leases, port, _heartbeats: heartbeats }
    }

    /// Registers the same process at the coordinator that has taken the place of another one.
    pub(crate) fn join_again(&mut self, coordinator: &Coordinator) {
        let (leases, port) = (Arc::clone(&self.leases), self.port);
        *self = Self { leases, port, _heartbeats: announce(coordinator, port, "sum-of-primes") };
    }

    /// The worker, as `coordinator` shows it.
    pub(crate) fn seen_by(&self, coordinator: &Coordinator) -> Value {
        coordinator.find(&boot_id(self.port)).expect("registered")
    }

    pub(crate) fn leases(&self) -> u64 {
        self.leases.load(Ordering::Relaxed)
    }
}

/// Starts a worker of one slot that answers each lease's connection so, and waits until `coordinator` lists it. Its
/// heartbeats end when the answer is dropped.
pub(super) fn join(
    coordinator: &Coordinator,
    kind: &str,
    answer: impl Fn(&TcpStream) + Send + Sync + 'static,
) -> Sender<()> {
    announce(coordinator, serve(answer), kind)
}

/// Answers each connection so, from now on. Returns the port.
fn serve(answer: impl Fn(&TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let answer = Arc::new(answer);
    // The thread ends with the test's process: a listener cannot be told to stop accepting.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || answer(&stream));
        }
    });
    port
}

fn boot_id(port: u16) -> String {
    format!("00000000-0000-4000-8000-{port:012}")
}

/// Registers a worker and waits until `coordinator` lists it.
fn announce(coordinator: &Coordinator, port: u16, kind: &str) -> Sender<()> {
    let boot_id = boot_id(port);
    let (heartbeats, stopped) = mpsc::channel();
    let (internal, body) = (coordinator.internal, heartbeat(port, &boot_id, kind));
    thread::spawn(move || {
        // One connection for all heartbeats, as of a real worker: a closed connection counts as a lost worker.
        let stream = connect(internal);
        while register(&stream, &format!("fake-{port}"), &body)
            && stopped.recv_timeout(HEARTBEAT_INTERVAL) == Err(RecvTimeoutError::Timeout)
        {}
    });
    eventually("the fake worker is registered", || coordinator.find(&boot_id));
    heartbeats
}

fn heartbeat(port: u16, boot_id: &str, kind: &str) -> String {
    let heartbeat = json!({
        "port": port, "boot_id": boot_id, "slots": 1, "running": 0, "cpu_load": 0.0, "free_memory_bytes": 0,
        "kinds": [kind], "abilities": {"divvy.prime-plan": "1"}, "version": "fake",
    });
    heartbeat.to_string()
}

/// Whether the coordinator was there to take it.
fn register(mut stream: &TcpStream, id: &str, body: &str) -> bool {
    let length = body.len();
    let head = format!("PUT /worker/register/{id} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json");
    let request = format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}");
    // The answer has no body; a heartbeat's answer comes in one piece.
    stream.write_all(request.as_bytes()).is_ok() && stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0)
}

fn answer(stream: &TcpStream, fault: Fault, leases: &AtomicU64) {
    let Some(lease) = read_lease(stream) else { return };
    let before = leases.fetch_add(1, Ordering::Relaxed);
    let attempt = lease["attempt"].as_str().expect("an attempt");
    let outcome =
        |attempt: &str, value: &str| ok(&json!({ "attempt": attempt, "value": value, "compute_us": 1 }).to_string());
    // The coordinator may close first, which is its right.
    let _ = match fault {
        Fault::Status500 => write(stream, "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
        Fault::RequestTimeout => refuse(stream, "408 Request Timeout"),
        Fault::Conflict => refuse(stream, "409 Conflict"),
        Fault::TooManyRequests => refuse(stream, "429 Too Many Requests"),
        Fault::Unauthorized => refuse(stream, "401 Unauthorized"),
        Fault::Forbidden => refuse(stream, "403 Forbidden"),
        Fault::Garbage => write(stream, "\0\u{1}\u{2} this is no HTTP\r\n\r\n"),
        Fault::HalfAnAnswer => write(stream, &half(&outcome(attempt, "0"))),
        Fault::WrongAttempt => write(stream, &outcome(OTHER_ATTEMPT, "0")),
        Fault::ImpossibleSum => write(stream, &outcome(attempt, &u128::MAX.to_string())),
        Fault::WrongSum => write(stream, &outcome(attempt, "1")),
        Fault::TwoWrongSums if before < 2 => write(stream, &outcome(attempt, "1")),
        Fault::EndlessBody => write_for_ever(stream),
        Fault::LongBody => write(stream, &ok(&" ".repeat(1 << 20))),
        Fault::RedirectToItself => {
            write(stream, "HTTP/1.1 307 Temporary Redirect\r\nlocation: /lease\r\ncontent-length: 0\r\n\r\n")
        }
        Fault::ClosedConnection => Ok(()),
        Fault::TwoWrongSums | Fault::Silence => wait_for_close(stream),
    };
}

pub(super) fn read_lease(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

pub(super) fn ok(body: &str) -> String {
    // The connection ends with the answer; unannounced, the next lease would be sent on it and lost.
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn refuse(stream: &TcpStream, status: &str) -> std::io::Result<()> {
    write(stream, &format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"))
}

fn half(answer: &str) -> String {
    answer[..answer.len() - 10].to_owned()
}

pub(super) fn write(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())
}

fn write_for_ever(stream: &TcpStream) -> std::io::Result<()> {
    write(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    loop {
        write(stream, "4\r\n    \r\n")?;
    }
}

fn wait_for_close(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0]).map(drop)
}
