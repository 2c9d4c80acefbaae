//! A grid that runs programs: a coordinator with a token, workers with a directory of their own, and programs that are
//! built here.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Coordinator, Worker, divvy, eventually, in_time, request, try_request};

/// The source of the document's example.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../programs/sum_integers");

/// Longest silence of a command that follows.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// The sandbox's hostile program.
const HOSTILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/sandbox/tests/programs/hostile.c");

#[derive(Debug)]
pub(crate) struct ProgramGrid {
    pub(crate) coordinator: Coordinator,
    pub(crate) directory: TempDir,
    token: String,
    bearer: String,
}

impl ProgramGrid {
    /// A coordinator that stays at its ports, with a token that has every right which programs need.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// [`Self::start`] with variables of the coordinator.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_by(|own| Coordinator::start_to_stay(&[own, variables].concat()))
    }

    /// With a coordinator that is started by its caller, with variables of this grid's own.
    pub(crate) fn start_by(start: impl FnOnce(&[(&str, &str)]) -> Coordinator) -> Self {
        let directory = TempDir::new().expect("a directory");
        let tokens = directory.path().join("tokens.toml");
        let rights = ["token", "new", "ci", "--rights", "read,submit,programs", "--file", path(&tokens)];
        let token = text(&divvy(&rights).output().expect("run").stdout).trim_end().to_owned();
        let coordinator = start(&[("DIVVY_API_TOKENS_FILE", path(&tokens))]);
        let bearer = format!("Bearer {token}");
        Self { coordinator, directory, token, bearer }
    }

    pub(crate) fn restart_coordinator(&mut self) {
        self.restart_coordinator_with(&[]);
    }

    /// [`Self::restart_coordinator`] with variables.
    pub(crate) fn restart_coordinator_with(&mut self, variables: &[(&str, &str)]) {
        let tokens = self.directory.path().join("tokens.toml");
        self.coordinator.start_again(&[&[("DIVVY_API_TOKENS_FILE", path(&tokens))], variables].concat());
    }

    /// A worker of one slot, under the same name if it is started again.
    pub(crate) fn worker(&self, name: &str, variables: &[(&str, &str)]) -> Worker {
        let directory = self.directory.path().join(name);
        let own = [("DIVVY_PROGRAM_DIR", path(&directory)), ("DIVVY_WORKER_ID", name)];
        let worker = Worker::start(self.coordinator.internal, &[&own, variables].concat());
        worker.logged("the coordinator takes heartbeats");
        worker
    }

    /// Waits until a worker is ready and the same process as before: a heartbeat that is late on a full machine suspends the
    /// worker until the next one.
    pub(crate) fn stays_ready(&self, worker: &Worker) {
        let is_ready = |listed: &Value| listed["boot_id"] == worker.boot_id.as_str() && listed["state"] == "ready";
        eventually("the worker is ready", || {
            self.ask("GET", "/workers", "").json().as_array()?.iter().any(is_ready).then_some(())
        });
    }

    /// The command as a user runs it.
    pub(crate) fn divvy(&self, arguments: &[&str]) -> Output {
        let url = format!("http://{}", self.coordinator.public);
        divvy(arguments).env("DIVVY_URL", url).env("DIVVY_TOKEN", &self.token).output().expect("run")
    }

    /// The command as it runs, with its output line by line.
    pub(crate) fn follow(&self, arguments: &[&str]) -> Follower {
        let url = format!("http://{}", self.coordinator.public);
        let mut command = divvy(arguments);
        command.env("DIVVY_URL", url).env("DIVVY_TOKEN", &self.token).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run");
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Follower { child, lines }
    }

    /// The stdout of the command, which must succeed.
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        let output = self.divvy(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    /// Stores a program; its hash.
    pub(crate) fn put(&self, file: &Path) -> String {
        self.printed(&["program", "put", path(file)])
    }

    /// Submits a job; its id.
    pub(crate) fn submit(&self, program: &str, arguments: &[&str]) -> String {
        let all = [&["job", "submit", "program", "--output", "quiet", "--program", program], arguments].concat();
        self.printed(&all)
    }

    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        request(self.coordinator.public, method, target, &self.headers(), body)
    }

    /// [`Self::ask`] with headers and no body.
    pub(crate) fn ask_with(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.coordinator.public, method, target, &[&self.headers(), headers].concat(), "")
    }

    fn headers(&self) -> [(&str, &str); 1] {
        [("authorization", &self.bearer)]
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        self.ask("GET", &format!("/v1/jobs/{id}"), "").json()
    }

    /// The state of a job, as far as somebody is there to ask.
    pub(crate) fn state(&self, id: &str) -> Option<String> {
        let target = format!("/v1/jobs/{id}");
        let answer = try_request(self.coordinator.public, "GET", &target, &self.headers(), "")?;
        (answer.status == 200).then(|| answer.json()["state"].as_str().map(str::to_owned))?
    }

    /// Waits until the job is over; the job.
    pub(crate) fn ended(&self, id: &str) -> Value {
        let is_over = |state: &String| matches!(state.as_str(), "succeeded" | "failed" | "canceled");
        eventually("the job is over", || self.state(id).filter(is_over));
        self.job(id)
    }

    /// The result of a job that succeeds.
    pub(crate) fn result(&self, id: &str) -> Value {
        let job = self.ended(id);
        assert_eq!(job["state"], "succeeded", "{job}");
        self.ask("GET", &format!("/v1/jobs/{id}/result"), "").json()
    }

    /// The job's tasks.
    pub(crate) fn tasks(&self, id: &str) -> Vec<Value> {
        let page = self.ask("GET", &format!("/v1/jobs/{id}/tasks?limit=1000"), "").json();
        page["tasks"].as_array().expect("a page").clone()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the test.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.file(name);
        fs::write(&file, content).expect("write a file");
        file
    }

    /// The example as a WASI module, by Debian's clang, lld and wasi-libc.
    pub(crate) fn wasi_example(&self) -> PathBuf {
        let module = self.file("sum_integers.wasm");
        let what = "clang with lld, wasi-libc and libclang-rt-dev-wasm32";
        compile("clang", &["--target=wasm32-wasi", "-O2"], &format!("{EXAMPLE}/sum_integers.c"), &module, what);
        module
    }

    pub(crate) fn native_example(&self) -> PathBuf {
        let executable = self.file("sum_integers");
        compile("gcc", &["-O2", "-static"], &format!("{EXAMPLE}/sum_integers.c"), &executable, "gcc");
        executable
    }

    pub(crate) fn hostile(&self) -> PathBuf {
        let executable = self.file("hostile");
        compile("gcc", &["-O1", "-pthread"], HOSTILE, &executable, "gcc");
        executable
    }

    /// A file of names with the example in Python, and more entries.
    pub(crate) fn names(&self, others: &str) -> PathBuf {
        let python = format!(
            "[program.sum-integers]\ncommand = [\"python3\", \"{EXAMPLE}/sum_integers.py\"]\n\
             description = \"Sums the integers of a range\"\n{others}"
        );
        self.write("programs.toml", python)
    }
}

/// A command that goes on; killed when dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follower {
    /// The next line of its output, waited for; none when it has ended.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(LINE_TIMEOUT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line for {LINE_TIMEOUT:?}"),
        }
    }

    /// Whether the command succeeds.
    pub(crate) fn succeeds(mut self) -> bool {
        self.child.wait().expect("its end").success()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compile(compiler: &str, options: &[&str], source: &str, target: &Path, needed: &str) {
    let built = Command::new(compiler).args(options).arg("-o").arg(target).arg(source).output();
    let built = built.unwrap_or_else(|error| panic!("this test needs {needed}: {error}"));
    assert!(built.status.success(), "this test needs {needed}: {}", text(&built.stderr));
}

/// Processes that have `marker` among their arguments.
pub(crate) fn processes_marked(marker: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_marked = |process: &u32| {
        let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
    };
    processes.filter(is_marked).collect()
}

/// Longest time until the processes of a canceled job or of a killed worker are gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Waits until no process is marked. Returns the time of the wait.
fn until_gone(marker: &str) -> Duration {
    let since = Instant::now();
    eventually("its processes are gone", || processes_marked(marker).is_empty().then_some(()));
    since.elapsed()
}

/// Tries that the processes of a task are soon gone when its job is canceled, and when its worker is killed. `run` submits a
/// job whose processes are marked.
pub(crate) fn assert_processes_go(
    grid: &ProgramGrid,
    name: &str,
    worker: Worker,
    start_worker: impl Fn() -> Worker,
    run: impl Fn(&str) -> String,
) {
    let run = |marker: &str| {
        let job = run(marker);
        eventually("its processes are there", || (processes_marked(marker).len() >= 2).then_some(()));
        job
    };
    let marker = format!("canceled-{name}-{}", std::process::id());
    in_time(GONE_WITHIN, "the processes of a canceled job are gone", || {
        let job = run(&marker);
        grid.printed(&["job", "cancel", &job]);
        until_gone(&marker)
    });
    let marker = format!("killed-{name}-{}", std::process::id());
    let mut worker = Some(worker);
    in_time(GONE_WITHIN, "the processes of a killed worker are gone", || {
        let mut killed = worker.take().unwrap_or_else(&start_worker);
        let job = run(&marker);
        killed.kill();
        let took = until_gone(&marker);
        grid.printed(&["job", "cancel", &job]);
        took
    });
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}
