//! Tells the coordinator every second that this worker lives, from a thread of its own so that no work delays it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use protocol::{BootId, Deregistration, Heartbeat, WorkerId};
use reqwest::Client;
use service::WorkerToken;
use sysinfo::System;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, trace, warn};
use url::Url;

use crate::executor::Executor;

/// From one heartbeat to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the coordinator may take to answer one.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after the first failure in a row; it doubles up to [`INTERVAL`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Who announces itself, and to whom.
pub(crate) struct Announcer {
    pub(crate) worker_id: WorkerId,
    pub(crate) boot_id: BootId,
    pub(crate) port: u16,
    pub(crate) slots: u32,
    pub(crate) coordinator: Url,
    pub(crate) token: WorkerToken,
    pub(crate) executor: Arc<Executor>,
}

/// A running announcer; it deregisters the worker when it is told to stop.
pub(crate) struct Announcements {
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl Announcements {
    /// Deregisters the worker. Takes a second or two at most, also when the coordinator is not there.
    pub(crate) async fn stop(self) {
        // The thread may have ended by a panic; then there is nothing to wait for.
        let _ = self.stop.send(());
        let _ = self.stopped.await;
    }
}

impl Announcer {
    /// Starts the thread; the first heartbeat leaves at once.
    pub(crate) fn start(self) -> anyhow::Result<Announcements> {
        let client = service::http_client().context("build the HTTP client")?;
        let url = self.coordinator.join(&format!("/worker/register/{}", self.worker_id)).context("build the URL")?;
        let mut system = System::new().context("read the system's load")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let (stop, mut stopping) = oneshot::channel();
        let (done, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = self.announce_for_ever(&client, &url, &mut system) => (),
                    _ = &mut stopping => (),
                }
                self.deregister(&client, &url).await;
            });
            let _ = done.send(());
        };
        thread::Builder::new().name("heartbeat".to_owned()).spawn(run).context("start the heartbeat thread")?;
        Ok(Announcements { stop, stopped })
    }

    async fn announce_for_ever(&self, client: &Client, url: &Url, system: &mut System) {
        let mut failures = 0;
        let mut is_registered = false;
        loop {
            let next = Instant::now() + INTERVAL;
            match self.announce(client, url, system).await {
                Ok(()) => {
                    if !is_registered {
                        info!(worker_id = %self.worker_id, coordinator = %self.coordinator, "registered");
                    }
                    (is_registered, failures) = (true, 0);
                    trace!("heartbeat");
                    sleep_until(next).await;
                }
                Err(error) => {
                    if failures == 0 {
                        warn!(coordinator = %self.coordinator, error = %format!("{error:#}"), "the coordinator does not take heartbeats");
                    }
                    (is_registered, failures) = (false, failures + 1);
                    sleep(pause_after(failures)).await;
                }
            }
        }
    }

    async fn announce(&self, client: &Client, url: &Url, system: &mut System) -> anyhow::Result<()> {
        system.refresh_cpu_usage();
        system.refresh_memory();
        let heartbeat = Heartbeat {
            port: self.port,
            boot_id: self.boot_id,
            slots: self.slots,
            running: self.executor.running(),
            cpu_load: system.global_cpu_usage() / 100.0,
            free_memory_bytes: free_memory_bytes(system),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let request = self.token.sign(client.put(url.clone())).timeout(TIMEOUT).json(&heartbeat);
        check(request.send().await?).await
    }

    async fn deregister(&self, client: &Client, url: &Url) {
        let query = Deregistration { boot_id: self.boot_id };
        let request = self.token.sign(client.delete(url.clone())).timeout(TIMEOUT).query(&query);
        match request.send().await {
            Ok(_) => info!(worker_id = %self.worker_id, "deregistered"),
            Err(error) => info!(%error, "could not deregister; the coordinator will notice the silence"),
        }
    }
}

async fn check(response: reqwest::Response) -> anyhow::Result<()> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let problem: protocol::Problem = service::read_bounded_json(response, MAX_PROBLEM_BYTES).await?;
    ensure!(status.is_success(), "it answered {status}: {}", problem.detail);
    Ok(())
}

/// The longest problem that is read.
const MAX_PROBLEM_BYTES: usize = 4096;

fn free_memory_bytes(system: &System) -> u64 {
    let of_host = system.available_memory();
    system.cgroup_limits().map_or(of_host, |cgroup| cgroup.free_memory.min(of_host))
}

/// A doubling pause up to a second, less a random half so that workers do not come back in step.
fn pause_after(failures: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10)).min(INTERVAL);
    pause.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_differ() {
        for (failures, most_ms) in [(1, 100), (2, 200), (4, 800), (5, 1000), (1_000_000, 1000)] {
            let most = Duration::from_millis(most_ms);
            let pauses: Vec<_> = (0..50).map(|_| pause_after(failures)).collect();
            assert!(pauses.iter().all(|pause| *pause <= most && *pause >= most / 2), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
        }
    }
}
