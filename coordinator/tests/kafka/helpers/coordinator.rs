//! The coordinator's process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Broker, PATIENCE, eventually};

/// Topics and partitions that come later are found soon; the time that it takes by default is not what is tested.
const QUICK: &str = "topic.metadata.refresh.interval.ms=500";

/// Killed when dropped.
pub(crate) struct Coordinator {
    child: Child,
    directory: Arc<TempDir>,
    variables: Vec<(String, String)>,
    public: SocketAddr,
    internal: SocketAddr,
}

/// The command with none of this environment's settings.
fn command(variables: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DIVVY_")) {
        command.env_remove(name);
    }
    command.env("DIVVY_LOG_FORMAT", "json").env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0");
    command.env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

impl Coordinator {
    /// Starts with the broker, which may not be there.
    pub(crate) fn start(broker: &Broker) -> Self {
        Self::start_with(broker, &[])
    }

    pub(crate) fn start_with(broker: &Broker, variables: &[(&str, &str)]) -> Self {
        let kafka = [
            ("DIVVY_KAFKA_BROKERS", broker.address()),
            ("DIVVY_KAFKA_CONFIG", broker.config() + "," + QUICK),
            ("DIVVY_KAFKA_PREFIX", broker.prefix().to_owned()),
        ];
        let own = kafka.into_iter().map(|(name, value)| (name.to_owned(), value));
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::start_on(Arc::new(TempDir::new().expect("a directory")), own.chain(variables).collect())
    }

    fn start_on(directory: Arc<TempDir>, variables: Vec<(String, String)>) -> Self {
        let log = directory.path().join("log");
        let file = File::create(&log).expect("room");
        let mut command = command(&variables);
        let mut child =
            command.env("DIVVY_DATA_DIR", directory.path().join("data")).stderr(file).spawn().expect("start");
        let serving = eventually("it serves", || {
            assert!(child.try_wait().expect("a process").is_none(), "it ended: {:?}", fs::read_to_string(&log));
            let log = fs::read_to_string(&log).expect("a log");
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["message"] == "serving")
        });
        let address = |field: &str| serving[field].as_str().and_then(|text| text.parse().ok()).expect("an address");
        Self { child, directory, variables, public: address("public"), internal: address("internal") }
    }

    /// The file of its store.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("data").join("divvy.db")
    }

    /// SIGKILL.
    pub(crate) fn stop(&mut self) {
        self.child.kill().expect("kill a coordinator");
        self.child.wait().expect("wait for a coordinator");
    }

    /// SIGSTOP: it does nothing, and its connections stay.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn wake(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success(), "the coordinator is gone");
    }

    /// SIGKILL, and started again on its data.
    pub(crate) fn kill_and_start_again(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts on the data of the process that has ended.
    pub(crate) fn start_again(&mut self) {
        let (directory, variables) = (Arc::clone(&self.directory), self.variables.clone());
        *self = Self::start_on(directory, variables);
    }

    /// Starts the coordinator again, with these variables from now on.
    pub(crate) fn start_again_with(&mut self, variables: &[(&str, &str)]) {
        self.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.start_again();
    }

    /// The status and the body of an answer.
    pub(crate) fn try_request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        ask(self.public, method, target, body)
    }

    /// The body of an answer, whose status is a success.
    pub(crate) fn request(&self, method: &str, target: &str, body: &str) -> String {
        let (status, answer) = ask(self.public, method, target, body);
        assert!((200..300).contains(&status), "{method} {target}: {status} {answer}");
        answer
    }

    pub(crate) fn get(&self, target: &str) -> Value {
        serde_json::from_str(&self.request("GET", target, "")).expect("JSON")
    }

    pub(crate) fn post(&self, target: &str, body: &str) -> Value {
        serde_json::from_str(&self.request("POST", target, body)).expect("JSON")
    }

    /// Completes all the tasks that a claim of `worker` gets.
    pub(crate) fn work(&self, worker: &str) {
        self.try_work(worker).unwrap_or_else(|said| panic!("{said}"));
    }

    /// The lease that a claim of `worker` gets; the answer as text where it gets none.
    pub(crate) fn claim(&self, worker: &str) -> Result<Value, String> {
        let claim = format!(r#"{{"worker_id":"{worker}","kinds":["tasks"],"max_tasks":100,"wait_seconds":5}}"#);
        let (status, claimed) = ask(self.internal, "POST", "/v1/worker/claim", &claim);
        if status != 200 {
            return Err(format!("{status} {claimed}"));
        }
        Ok(serde_json::from_str(&claimed).expect("JSON"))
    }

    /// [`Self::work`] with or without tasks and a leader; returns the error where there was no success.
    pub(crate) fn try_work(&self, worker: &str) -> Result<(), String> {
        let claimed = self.claim(worker)?;
        let results = vec![1; claimed["tasks"].as_array().expect("tasks").len()];
        let attempt = claimed["attempt"].as_str().expect("an attempt");
        let target = format!("/v1/worker/tasks/{attempt}/complete");
        let (status, said) = ask(self.internal, "POST", &target, &format!(r#"{{"results":{results:?}}}"#));
        if (200..300).contains(&status) { Ok(()) } else { Err(format!("{status} {said}")) }
    }

    pub(crate) fn kafka(&self) -> Value {
        self.get("/v1/stats")["kafka"].clone()
    }

    pub(crate) fn metrics(&self) -> String {
        ask(self.internal, "GET", "/metrics", "").1
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let metrics = self.metrics();
        let mut values = metrics.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        values.next().unwrap_or_else(|| panic!("no {sample} in {metrics}")).parse().expect("a number")
    }

    /// Every event that the coordinator has.
    pub(crate) fn events(&self) -> Vec<Value> {
        let stream = self.request("GET", "/v1/events?after=0&follow=false", "");
        stream.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
    }

    /// Waits until every event is published.
    pub(crate) fn wait_until_published(&self) {
        eventually("every event is published", || {
            let kafka = self.kafka();
            (kafka["unpublished_events"] == 0 && kafka["published_event"] != 0).then_some(())
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the coordinator:\n{}", self.log());
        }
    }
}

fn ask(address: SocketAddr, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let head = format!("{method} {target} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n");
    let length = if method == "GET" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// The error of a coordinator that refuses to start.
pub(crate) fn refusal(variables: &[(&str, &str)]) -> String {
    let directory = TempDir::new().expect("a directory");
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut command = command(&variables);
    let output = command.env("DIVVY_DATA_DIR", directory.path()).stderr(Stdio::piped()).output().expect("start");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}
