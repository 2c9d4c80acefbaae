//! A grid in a process of its own, and the command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// Longest wait for any condition on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// URL of a port without a listener.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:1";

/// A port for a grid, below those that the system gives to connections: none of them takes it while no grid listens.
pub(crate) fn own_port() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(16).wrapping_add(LAST.fetch_add(1, Ordering::Relaxed));
    (18_000 + number % 12_000).to_string()
}

/// `divvy up`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Grid {
    process: Child,
    pub(crate) url: String,
    /// The first coordinator's internal address, as `host:port`.
    pub(crate) internal: String,
}

impl Grid {
    /// A grid with two workers that forgets everything.
    pub(crate) fn start() -> Self {
        Self::up(&["--port", "0"])
    }

    /// A grid that keeps its jobs in `data`, at the port of the one before.
    pub(crate) fn start_with_data(data: &Path, port: &str) -> Self {
        Self::up(&["--port", port, "--data-dir", data.to_str().expect("UTF-8")])
    }

    pub(crate) fn up(arguments: &[&str]) -> Self {
        let mut command = divvy(&["up", "--workers", "2"]);
        command.args(arguments).env("DIVVY_LOG", "error").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("start a grid");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let internal = lines.find_map(|line| Some(line.strip_prefix("workers of your own: http://")?.to_owned()));
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        let mut url = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut url).expect("a URL");
        let internal = internal.expect("where workers fetch tasks");
        let grid = Self { process, url: url.trim_end().to_owned(), internal };
        eventually("two workers are there", || {
            let workers: Vec<api::WorkerSummary> = grid.json(&["worker", "list"]);
            (workers.len() == 2).then_some(())
        });
        grid
    }

    /// The command, told to ask this grid.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = divvy(arguments);
        command.env("DIVVY_URL", &self.url);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run the command")
    }

    /// The stdout of a command that must succeed.
    pub(crate) fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // A command that waits tells first how to go on.
        let stderr: String = stderr.lines().filter(|line| !line.starts_with("submitted; ")).collect();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The parsed stdout of the command with `--output json`.
    pub(crate) fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let stdout = self.stdout(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
    }

    /// Submits a job and answers its id.
    pub(crate) fn submit(&self, arguments: &[&str]) -> String {
        let stdout = self.stdout(&[&["job", "submit"], arguments, &["--output", "quiet"]].concat());
        stdout.trim_end().to_owned()
    }

    /// The body of the answer to a POST at `path` of the internal port.
    pub(crate) fn post_internal(&self, path: &str, body: &[u8]) -> String {
        post(&self.internal, path, body)
    }

    /// The body of the answer to a POST at `path` of the public port.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> String {
        post(self.url.trim_start_matches("http://"), path, body)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("kill a process");
        self.process.wait().expect("wait for a process");
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command with none of this environment's settings.
pub(crate) fn divvy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("DIVVY_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The command with SIGHUP as it is by default, also where this test ignores it, as below `nohup`.
pub(crate) fn minding_hang_up(command: &Command) -> Command {
    let mut minding = Command::new("env");
    minding.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => minding.env(name, value),
            None => minding.env_remove(name),
        };
    }
    minding
}

fn post(address: &str, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// A pipe that nobody reads.
pub(crate) fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// Runs a command with this on its stdin.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Output {
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    process.stdin.take().expect("piped").write_all(input.as_bytes()).expect("write to the command");
    process.wait_with_output().expect("wait for the command")
}

/// Asserts a failure with this exit code and exactly one line on stderr, which is the answer.
pub(crate) fn assert_fails(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.ends_with('\n') && stderr.len() > 20, "{stderr}");
    stderr
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started_at = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started_at.elapsed() < DEADLINE, "in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}
