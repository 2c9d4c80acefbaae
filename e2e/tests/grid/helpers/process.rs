//! The binaries and their processes.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::eventually;

/// A process with its log; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    has_ended: bool,
    log: Arc<Mutex<Vec<String>>>,
}

/// The `divvy` command with `arguments` and none of this environment's settings.
pub(crate) fn divvy(arguments: &[&str]) -> Command {
    let mut command = command("divvy");
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a service that logs JSON; `variables` come last and so win.
    pub(crate) fn start(binary: &str, variables: &[(&str, &str)]) -> Self {
        // A service minds the end of its terminal also where these tests ignore it, as below `nohup`.
        let mut command = clean(Command::new("/usr/bin/env"));
        command.arg("--default-signal=HUP").arg(binaries().join(binary));
        command.env("DIVVY_LOG_FORMAT", "json").envs(variables.iter().copied());
        Self::spawn(command.stdout(Stdio::null()))
    }

    /// Starts a service that logs JSON with mounts of its own, which `mount`, a line of shell, makes.
    pub(crate) fn start_with_mounts(mount: &str, binary: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = clean(Command::new("unshare"));
        command.args(["--mount", "sh", "-c", &format!("{mount} && exec \"$0\"")]).arg(binaries().join(binary));
        command.env("DIVVY_LOG_FORMAT", "json").envs(variables.iter().copied());
        Self::spawn(command.stdout(Stdio::null()))
    }

    /// Starts `command` and collects its stderr.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start a binary");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        });
        Self { child, has_ended: false, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal a process");
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill a process");
        self.child.wait().expect("wait for a process");
        self.has_ended = true;
    }

    /// Whether the process was not seen to end.
    pub(crate) fn is_running(&self) -> bool {
        !self.has_ended
    }

    /// Waits for the process to end by itself.
    pub(crate) fn exit_status(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the process ends", || child.try_wait().expect("wait for a process"));
        self.has_ended = true;
        status
    }

    /// The exit status of the process, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a process")
    }

    /// The root of the file system as the process sees it.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.child.id()))
    }

    /// The most memory that the process has had.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        peak.and_then(|peak| peak.trim().parse::<u64>().ok()).expect("a number") * 1024
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }

    /// The first log line with this message.
    pub(crate) fn logged(&self, message: &str) -> Value {
        let find = || {
            let lines = self.log();
            let mut lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["message"] == message)
        };
        eventually(&format!("the log says {message:?}"), find)
    }

    pub(crate) fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("piped, and taken once")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("not zero")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of process {}:\n{}", self.child.id(), self.log().join("\n"));
        }
    }
}

/// A binary without this environment's settings.
pub(crate) fn command(binary: &str) -> Command {
    clean(Command::new(binaries().join(binary)))
}

/// Without this environment's settings of services.
fn clean(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if name == "POD_IP" || text.starts_with("DIVVY_") || text.starts_with("OTEL_") || text.starts_with("TRACE") {
            command.env_remove(name);
        }
    }
    command
}

/// Variable that says that the binaries are those of these sources, as after `cargo test --workspace` has built everything.
const ARE_BUILT: &str = "E2E_BINARIES_ARE_BUILT";

/// The directory of the binaries, which the first call of a run builds: cargo builds only the binaries of a test's own
/// package, and those of an earlier build may be stale.
fn binaries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        // target/<profile>/deps/<this test>
        let this_test = env::current_exe().expect("the path of this test");
        let directory = this_test.ancestors().nth(2).expect("a directory of the profile").to_owned();
        if env::var_os(ARE_BUILT).is_some() {
            return directory;
        }
        let target = directory.parent().expect("a target directory");
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            other => other.expect("a profile"),
        };
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                "build",
                "--quiet",
                "--package=coordinator",
                "--package=worker",
                "--package=divvy",
                "--package=loadtest",
                "--bins",
            ])
            .args(["--profile", profile, "--target-dir"])
            .arg(target)
            .status();
        assert!(built.expect("start cargo").success(), "the binaries are built");
        directory
    })
}
