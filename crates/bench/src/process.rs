//! The services as processes, and what the kernel of the system accounts to them. Linux only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::tables::kafka;

/// Prefix of the names of compute threads.
const COMPUTE_THREAD: &str = "slot-";

/// Fields of `/proc/PID/stat` between the name and the ticks of user and system.
const USER_TICKS_AFTER_NAME: usize = 11;

/// The directory of the services' binaries.
#[derive(Debug)]
pub(crate) struct Binaries(PathBuf);

/// A service that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    serving: Value,
    accounts: Mutex<Accounts>,
}

/// CPU time in seconds, user and system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Processor time of the compute threads.
    pub(crate) computing: f64,
    /// Processor time of all other threads.
    pub(crate) serving: f64,
}

impl Binaries {
    /// Builds the services beside this program.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        let directory = this.parent().context("find this program's directory")?.to_owned();
        if let Some(cargo) = std::env::var_os("CARGO") {
            let arguments = ["build", "--release", "--quiet", "--package=coordinator", "--package=worker", "--bins"];
            let mut build = Command::new(cargo);
            build.args(arguments);
            if kafka::is_there() {
                build.arg("--features=coordinator/kafka");
            }
            let built = build.status().context("start cargo")?;
            ensure!(built.success(), "the services cannot be built");
        }
        Ok(Self(directory))
    }

    /// A directory for fetched files, beside the build's.
    pub(crate) fn cache(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }
}

impl Process {
    /// Starts a service with these variables and none of this environment's, and waits until it serves.
    pub(crate) fn start(binaries: &Binaries, name: &str, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(binaries.0.join(name));
        for (variable, _) in std::env::vars_os() {
            if variable == "POD_IP" || variable.to_string_lossy().starts_with("DIVVY_") {
                command.env_remove(variable);
            }
        }
        command.env("DIVVY_LOG_FORMAT", "json").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let log = child.stderr.take().context("a log that is piped")?;
        let mut process = Self { child, serving: Value::Null, accounts: Mutex::default() };
        process.serving = wait_until_serving(log).with_context(|| format!("start {name}"))?;
        Ok(process)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, signal).context("signal a service")
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> anyhow::Result<()> {
        self.child.wait().context("wait for a service").map(drop)
    }

    /// A field of the log event with which the service began to serve.
    pub(crate) fn serving(&self, field: &str) -> anyhow::Result<&str> {
        self.serving[field].as_str().with_context(|| format!("{field} of a service"))
    }

    /// Processor time of the process so far, with ended threads as far as they were seen: see [`Accounts`].
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.look(&format!("/proc/{}", self.child.id()))
    }

    /// Seconds that all its threads have used so far, those that have ended included, in the steps of the system's clock:
    /// usually 10 ms.
    pub(crate) fn cpu_with_ended_threads(&self) -> anyhow::Result<f64> {
        let account = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("read its account")?;
        // The name of the program, in parentheses, may have spaces.
        let (_, fields) = account.rsplit_once(')').context("its account has no name")?;
        let ticks = fields.split_whitespace().skip(USER_TICKS_AFTER_NAME).take(2);
        let ticks: f64 = ticks.map(str::parse::<f64>).sum::<Result<_, _>>().context("its account")?;
        #[expect(clippy::cast_precision_loss, reason = "a hundred or a thousand")]
        Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Bytes of memory that are its own: heap and stacks, without its program.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("read its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("its memory")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("its memory")?;
        Ok(kilobytes * 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time in seconds of the live threads of this process.
pub(crate) fn own_cpu() -> anyhow::Result<f64> {
    Ok(cpu_by_thread("/proc/self")?.into_values().map(Cpu::total).sum())
}

/// Processor time of this thread so far, in seconds.
pub(crate) fn own_thread_cpu() -> anyhow::Result<f64> {
    // Otherwise the account is as old as the last tick.
    thread::yield_now();
    seconds_on_cpu(Path::new("/proc/thread-self"))
}

impl Cpu {
    pub(crate) fn total(self) -> f64 {
        self.computing + self.serving
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { computing: self.computing + other.computing, serving: self.serving + other.serving }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self { computing: self.computing - other.computing, serving: self.serving - other.serving }
    }
}

/// CPU time of the threads of a process. Those that have ended keep what they had used when they were last seen: without them
/// the time between two looks would be too short by all that they ever used. A pool's thread is idle for seconds before it
/// ends, so that looks that are closer together miss nothing of it.
#[derive(Debug, Default)]
struct Accounts {
    seen: BTreeMap<OsString, Cpu>,
    ended: Cpu,
}

impl Accounts {
    /// Processor time of all threads so far.
    fn look(&mut self, process: &str) -> anyhow::Result<Cpu> {
        let seen = cpu_by_thread(process)?;
        for (number, cpu) in &self.seen {
            // A later thread may have the number of one that has ended.
            if seen.get(number).is_none_or(|now| now.total() < cpu.total()) {
                self.ended = self.ended.plus(*cpu);
            }
        }
        self.seen = seen;
        Ok(self.seen.values().fold(self.ended, |sum, cpu| sum.plus(*cpu)))
    }
}

/// Exact to the microsecond for threads that sleep, where the account of the process counts in ticks.
fn cpu_by_thread(process: &str) -> anyhow::Result<BTreeMap<OsString, Cpu>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("{process}/task")).context("list threads")? {
        let entry = entry.context("list threads")?;
        let thread = entry.path();
        // A thread may end between the list and the look.
        let (Ok(seconds), Ok(name)) = (seconds_on_cpu(&thread), fs::read_to_string(thread.join("comm"))) else {
            continue;
        };
        let cpu = if name.starts_with(COMPUTE_THREAD) {
            Cpu { computing: seconds, serving: 0.0 }
        } else {
            Cpu { computing: 0.0, serving: seconds }
        };
        threads.insert(entry.file_name(), cpu);
    }
    Ok(threads)
}

fn seconds_on_cpu(thread: &Path) -> anyhow::Result<f64> {
    let account = fs::read_to_string(thread.join("schedstat")).context("read a thread's account")?;
    let nanoseconds: f64 =
        account.split_whitespace().next().context("an empty account")?.parse().context("read a thread's account")?;
    Ok(nanoseconds * 1e-9)
}

/// The log line that says so; the rest of the log goes nowhere.
fn wait_until_serving(log: ChildStderr) -> anyhow::Result<Value> {
    let mut lines = BufReader::new(log).lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.next() {
        let line = line.context("read its log")?;
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "serving" {
            thread::spawn(move || lines.take_while(Result::is_ok).for_each(drop));
            return Ok(event);
        }
        seen.push(line);
    }
    anyhow::bail!("it ended at once:\n{}", seen.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    /// Longest wait for a thread to be scheduled on a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(60);

    #[test]
    fn a_thread_that_has_ended_stays_in_the_account() -> anyhow::Result<()> {
        const USED_SECONDS: f64 = 0.05;
        let (busy, is_busy) = mpsc::channel();
        let (end, is_to_end) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let started_at = Instant::now();
            while own_thread_cpu()? < USED_SECONDS {
                ensure!(started_at.elapsed() < DEADLINE, "the account does not grow");
            }
            busy.send(()).context("it is waited for")?;
            // The send fails when the other end is dropped.
            let _ = is_to_end.recv();
            anyhow::Ok(())
        });
        is_busy.recv().context("it computes")?;
        let mut accounts = Accounts::default();
        let before = accounts.look("/proc/self")?.total();
        drop(end);
        thread.join().ok().context("it does not panic")??;
        let after = accounts.look("/proc/self")?.total();
        assert!(before >= USED_SECONDS && after >= before, "{before} and then {after}");
        Ok(())
    }
}
