//! Python workers of `divvy up`: `divvy-python-worker` as child processes of one slot each.

use std::num::NonZeroU32;

use anyhow::Context;
use futures_util::future::select_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Child processes that are killed when they are dropped.
#[derive(Debug)]
pub(crate) struct PythonWorkers(Vec<Child>);

impl PythonWorkers {
    /// Starts so many workers that fetch from the coordinators at `internal_urls`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn start(count: Option<NonZeroU32>, internal_urls: &[String]) -> anyhow::Result<Self> {
        let coordinators = internal_urls.join(",");
        let start = |number: u32| {
            Command::new("divvy-python-worker")
                .args(["--slots", "1", "--name", &format!("python-{number}"), "--coordinator", &coordinators])
                // The signals of a terminal reach this process alone, which stops the workers: a second one would end their calls.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .context("start divvy-python-worker, which `pip install './sdk/python[executor]'` in a checkout of divvy brings")
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

    /// Lets them finish or hand back what they hold.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pids = self.0.iter().filter_map(|child| Pid::from_raw(i32::try_from(child.id()?).ok()?));
        for pid in pids {
            // It may have ended since.
            let _ = kill_process(pid, Signal::TERM);
        }
        for child in &mut self.0 {
            child.wait().await.context("wait for a Python worker")?;
        }
        Ok(())
    }
}
