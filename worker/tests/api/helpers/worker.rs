//! The worker's process and the requests that it takes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use api::client::http_client;
use model::AttemptId;
use reqwest::{Client, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{DEADLINE, eventually};

/// A worker of one slot; killed when dropped.
pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    pub(crate) boot_id: String,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    client: Client,
}

/// Body of `POST /lease`.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) attempt: AttemptId,
    pub(crate) body: Value,
}

/// The worker's binary with none of this environment's settings.
pub(crate) fn binary(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DIVVY_") || name == "POD_IP") {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Worker {
    /// Starts a worker for the coordinators of this list.
    pub(crate) async fn start(coordinators: &str, variables: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_divvy-worker")), coordinators, variables).await
    }

    /// Starts a worker by a command that ends in it.
    pub(crate) async fn spawn(command: Command, coordinators: &str, variables: &[(&str, &str)]) -> Self {
        let own = [
            ("DIVVY_LISTEN_ADDR", "127.0.0.1:0"),
            ("DIVVY_SLOTS", "1"),
            ("DIVVY_WORKER_ID", "worker"),
            ("DIVVY_LOG_FORMAT", "json"),
            ("DIVVY_COORDINATOR", coordinators),
        ];
        let mut process = binary(command).envs(own).envs(variables.iter().copied()).spawn().expect("start the worker");
        let stderr = BufReader::new(process.stderr.take().expect("piped"));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let client = http_client(DEADLINE).expect("a client");
        let mut worker = Self { address: unknown, boot_id: String::new(), process, log, client };
        let serving = worker.logged("serving").await;
        let text = |field: &str| serving[field].as_str().expect("text").to_owned();
        (worker.address, worker.boot_id) = (text("address").parse().expect("an address"), text("boot_id"));
        worker
    }

    /// A lease of one task of a stored job, of epoch 1.
    pub(crate) fn lease(&self, kind: &str, work: Value) -> Lease {
        let attempt = AttemptId(Uuid::new_v4());
        let body = json!({"job": Uuid::new_v4(), "attempt": attempt, "boot_id": self.boot_id, "slot": 0, "kind": kind,
            "work": work, "epoch": 1, "first": 3, "beyond": 4, "outlives_connection": true});
        Lease { attempt, body }
    }

    pub(crate) fn nap(&self, seconds: f64) -> Lease {
        self.lease("sleep", json!({"seconds": seconds, "fail_rate": 0}))
    }

    /// Sends a lease and waits for its answer.
    pub(crate) async fn run(&self, lease: &Lease) -> Response {
        self.client.post(self.url("/lease")).json(&lease.body).send().await.expect("an answer")
    }

    /// Sends a lease over a connection of its own, which closes when it is dropped.
    pub(crate) fn begin(&self, lease: &Lease) -> TcpStream {
        let body = lease.body.to_string();
        let mut connection = TcpStream::connect(self.address).expect("connect");
        let head = format!(
            "POST /lease HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + &body).as_bytes()).expect("send a lease");
        connection.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        connection
    }

    pub(crate) async fn revoke(&self, attempt: AttemptId, query: &str) -> Response {
        self.send(self.client.delete(self.url(&format!("/lease/{attempt}{query}")))).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(self.client.get(self.url(path))).await
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Response {
        request.send().await.expect("an answer")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The value of a sample of its metrics.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    pub(crate) async fn wait_for_metric(&self, sample: &str, value: f64) {
        let is_there = async || (self.metric(sample).await == value).then_some(());
        eventually(&format!("{sample} is {value}"), is_there).await;
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process()).expect("a process id")).expect("not zero");
        kill_process(pid, signal).expect("signal the worker");
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn exit_status(&mut self) -> ExitStatus {
        let process = &mut self.process;
        eventually("the worker ends", async || process.try_wait().expect("wait for the worker")).await
    }

    /// All log lines with this message.
    pub(crate) fn log(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lock().expect("no panic");
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == message).collect()
    }

    /// The first log line with this message.
    pub(crate) async fn logged(&self, message: &str) -> Value {
        eventually(&format!("the log says {message:?}"), async || self.log(message).into_iter().next()).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("log of the worker:\n{}", self.log.lock().map(|log| log.join("\n")).unwrap_or_default());
        }
    }
}
