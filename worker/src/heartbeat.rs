//! Tells the coordinator every second that this worker lives, from a thread of its own so that no work delays it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use api::client::read_bounded_json;
use api::{Deregistration, Heartbeat, Problem};
use model::{BootId, Labels, Resources, WorkerId};
use reqwest::{Client, Response};
use service::WorkerToken;
use sysinfo::System;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};
use url::Url;

use crate::compute::KINDS;
use crate::executor::Executor;

/// From one heartbeat to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the coordinator may take to answer one.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The longest problem that is read.
const MAX_PROBLEM_BYTES: usize = 4096;

/// Pause after the first failure in a row; it doubles up to [`INTERVAL`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Who announces itself, and to whom.
pub(crate) struct Announcer {
    pub(crate) worker_id: WorkerId,
    pub(crate) boot_id: BootId,
    pub(crate) port: u16,
    pub(crate) slots: u32,
    pub(crate) labels: Labels,
    pub(crate) coordinator: Url,
    pub(crate) token: WorkerToken,
    pub(crate) executor: Arc<Executor>,
}

/// A running announcer.
#[derive(Debug)]
pub(crate) struct Announcements {
    phase: watch::Sender<Phase>,
    /// Sent when the coordinator has been told that the worker leaves; closed when the thread is gone.
    left: oneshot::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Over,
}

/// What the last heartbeat came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Contact {
    None,
    Registered,
    Failing(String),
}

impl Announcements {
    /// Resolves when the heartbeats have ended without having been told to.
    pub(crate) async fn failed(&mut self) {
        let _ = (&mut self.left).await;
    }

    /// Tells the coordinator that the worker takes nothing new. Takes a second at most, also when it is not there;
    /// heartbeats go on.
    pub(crate) async fn leave(&mut self) {
        self.phase.send_replace(Phase::Draining);
        let _ = (&mut self.left).await;
    }

    /// Ends the heartbeats.
    pub(crate) fn stop(self) {
        self.phase.send_replace(Phase::Over);
    }
}

impl Announcer {
    /// Starts the thread; the first heartbeat leaves at once.
    pub(crate) fn start(self) -> anyhow::Result<Announcements> {
        let client = api::client::http_client(TIMEOUT).context("build the HTTP client")?;
        let url = self.coordinator.join(&format!("/worker/register/{}", self.worker_id)).context("build the URL")?;
        let mut system = System::new().context("read the system's load")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let (sender, mut phase) = watch::channel(Phase::Serving);
        let (tell_left, left) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = self.announce_for_ever(&client, &url, &mut system, false) => (),
                    _ = phase.wait_for(|phase| *phase != Phase::Serving) => (),
                }
                self.deregister(&client, &url).await;
                // Nobody waits for it where the worker is not stopped but dropped.
                let _ = tell_left.send(());
                tokio::select! {
                    () = self.announce_for_ever(&client, &url, &mut system, true) => (),
                    _ = phase.wait_for(|phase| *phase == Phase::Over) => (),
                }
            });
        };
        thread::Builder::new().name("heartbeat".to_owned()).spawn(run).context("start the heartbeat thread")?;
        Ok(Announcements { phase: sender, left })
    }

    async fn announce_for_ever(&self, client: &Client, url: &Url, system: &mut System, is_draining: bool) {
        let (mut contact, mut failures) = (Contact::None, 0);
        loop {
            let next = Instant::now() + INTERVAL;
            let shown = match self.announce(client, url, system, is_draining).await {
                Ok(()) => {
                    failures = 0;
                    Contact::Registered
                }
                Err(error) => {
                    failures += 1;
                    // A single one is no news: a grid that stops ends its coordinator first.
                    if failures == 1 { contact.clone() } else { Contact::Failing(format!("{error:#}")) }
                }
            };
            if shown != contact {
                self.log(&shown);
            }
            contact = shown;
            if failures == 0 {
                sleep_until(next).await;
            } else {
                sleep(pause_after(failures)).await;
            }
        }
    }

    fn log(&self, contact: &Contact) {
        let (worker_id, coordinator) = (&self.worker_id, &self.coordinator);
        match contact {
            Contact::None => (),
            Contact::Registered => info!(%worker_id, %coordinator, "the coordinator takes heartbeats"),
            Contact::Failing(error) => warn!(%worker_id, %coordinator, %error, "the coordinator takes no heartbeat"),
        }
    }

    async fn announce(&self, client: &Client, url: &Url, system: &mut System, is_draining: bool) -> anyhow::Result<()> {
        system.refresh_cpu_usage();
        system.refresh_memory();
        let heartbeat = Heartbeat {
            port: self.port,
            boot_id: self.boot_id,
            slots: self.slots,
            running: self.executor.running(),
            cpu_load: (system.global_cpu_usage() / 100.0).clamp(0.0, 1.0),
            free_memory_bytes: free_memory_bytes(system),
            labels: self.labels.clone(),
            resources: resources(system),
            kinds: KINDS.to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_draining,
            held: Vec::new(),
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

async fn check(response: Response) -> anyhow::Result<()> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let problem = read_bounded_json::<Problem>(response, MAX_PROBLEM_BYTES).await;
    let detail = problem.map_or_else(|_| String::new(), |problem| format!(": {}", problem.detail));
    bail!("it answered {status}{detail}")
}

fn free_memory_bytes(system: &System) -> u64 {
    let of_host = system.available_memory();
    system.cgroup_limits().map_or(of_host, |cgroup| cgroup.free_memory.min(of_host))
}

fn resources(system: &System) -> Resources {
    let cpus = thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let of_host = system.total_memory();
    let memory_bytes = system.cgroup_limits().map_or(of_host, |cgroup| cgroup.total_memory.min(of_host));
    Resources { cpus, memory_bytes }
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
