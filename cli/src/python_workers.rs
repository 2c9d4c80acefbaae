//! Python workers of `divvy up`: `divvy-python-worker` as child processes of one slot each. They end with the grid however that
//! ends: each begins as this binary, which has the kernel tell it so, and then becomes the worker.

use std::env;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, anyhow, ensure};
use futures_util::future::select_all;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

use crate::failure::Failure;

const PROGRAM: &str = "divvy-python-worker";

/// First argument of a process that becomes a worker. The grid's process follows, and then the worker's arguments.
const BECOME: &str = "--become-python-worker";

/// This binary, also where its file has been replaced.
const THIS_BINARY: &str = "/proc/self/exe";

const STARTING: &str =
    "start divvy-python-worker, which `pip install './sdk/python[executor]'` in a checkout of divvy brings";

/// Becomes a worker if the process was started for that: then it returns only the exit code of a failure. Else it returns none.
pub(crate) fn become_one_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let is_asked = arguments.next().is_some_and(|word| word == BECOME);
    is_asked.then(|| Failure::from(become_one(arguments)).report())
}

/// Returns only with the error.
fn become_one(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Error {
    let grid = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return anyhow::Error::from(io::Error::from(error)).context("ask to be told of the grid's end");
    }
    // The process may have ended before that.
    if grid.is_none() || getppid() != grid {
        return anyhow!("the grid is gone");
    }
    anyhow::Error::from(std::process::Command::new(PROGRAM).args(arguments).exec()).context(STARTING)
}

/// Whether the command is on the path.
fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file())
}

/// Child processes that are killed when they are dropped.
#[derive(Debug, Default)]
pub(crate) struct PythonWorkers(Vec<Child>);

impl PythonWorkers {
    /// Checks that the command for Python workers exists if `count` demands any.
    ///
    /// # Errors
    /// The command is not on the path.
    pub(crate) fn demand_command(count: Option<NonZeroU32>) -> anyhow::Result<()> {
        ensure!(count.is_none() || is_installed(), "{STARTING}: there is none on the path");
        Ok(())
    }

    /// Starts so many workers that fetch from the coordinators at `internal_urls`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn start(count: Option<NonZeroU32>, internal_urls: &[String]) -> anyhow::Result<Self> {
        let (grid, coordinators) = (std::process::id().to_string(), internal_urls.join(","));
        // The kernel tells the children of the end of the thread that starts them: this one lasts as long as the process.
        let start = |number: u32| {
            Command::new(THIS_BINARY)
                .args([BECOME, &grid])
                .args(["--slots", "1", "--name", &format!("python-{number}"), "--coordinator", &coordinators])
                // The signals of a terminal reach this process alone, which stops the workers: a second one would end their calls.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .context("start a Python worker")
        };
        (1..=count.map_or(0, NonZeroU32::get)).map(start).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Resolves when one ends without having been told to.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.0.iter_mut().map(|child| Box::pin(child.wait()));
        match select_all(waits).await.0 {
            Ok(status) => anyhow::anyhow!("a Python worker ended by itself: {status}"),
            Err(error) => error.into(),
        }
    }

    /// Lets the workers finish or hand back their leases.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pids = self.0.iter().filter_map(|child| Pid::from_raw(i32::try_from(child.id()?).ok()?));
        for pid in pids {
            // The process may have ended since.
            let _ = kill_process(pid, Signal::TERM);
        }
        for child in &mut self.0 {
            child.wait().await.context("wait for a Python worker")?;
        }
        Ok(())
    }
}
