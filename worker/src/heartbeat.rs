//! Tells the coordinators every second that this worker lives and which leases it holds, from a thread of its own so that no work
//! delays it, and with a task for each coordinator so that none delays another.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use api::{Heartbeat, HeldLease, ProgramAbilities};
use model::{BootId, JobKind, Labels, WorkerId};
use reqwest::header::HOST;
use reqwest::{Client, Method, RequestBuilder};
use service::Credential;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, warn};
use url::Url;

use crate::contact::{Contact, TIMEOUT};
use crate::coordinators::{Directory, Endpoint, look_up_all};
use crate::courier::Courier;
use crate::epoch::EpochFence;
use crate::executor::Executor;
use crate::held::{HeldLeases, Returned};
use crate::metrics::WorkerMetrics;
use crate::presence::Presence;
use crate::vitals::{Sampler, Vitals};

/// Interval between heartbeats.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// How long the farewell may take: a little longer than a release.
const STOP_TIMEOUT: Duration = TIMEOUT.saturating_add(Duration::from_millis(500));

/// Bound of the channel of lookup results.
const MAX_FOUND: usize = 16;

/// The worker as it announces itself, and the state that the answers of coordinators change.
#[derive(Debug)]
pub(crate) struct Announcer {
    pub(crate) worker_id: WorkerId,
    pub(crate) boot_id: BootId,
    pub(crate) port: u16,
    pub(crate) slots: u32,
    pub(crate) labels: Labels,
    pub(crate) kinds: Vec<JobKind>,
    pub(crate) programs: ProgramAbilities,
    pub(crate) courier: Arc<Courier>,
    pub(crate) abilities: Labels,
    pub(crate) coordinators: Vec<Url>,
    pub(crate) credential: Credential,
    pub(crate) orphan_timeout: Duration,
    pub(crate) executor: Arc<Executor>,
    pub(crate) held: Arc<HeldLeases>,
    pub(crate) epoch: Arc<EpochFence>,
    pub(crate) presence: Arc<Presence>,
    /// Makes the announcer send heartbeats now.
    pub(crate) asked: watch::Sender<()>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) sampler: Sampler,
    pub(crate) client: Client,
}

/// A running announcer.
#[derive(Debug)]
pub(crate) struct Announcements {
    phase: watch::Sender<Phase>,
    /// Closed when every coordinator has been told that the worker leaves, or when the thread is gone.
    leaving: mpsc::Receiver<Infallible>,
    /// Closed when the thread is gone.
    ended: oneshot::Receiver<Infallible>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    Draining,
    /// The worker exits and gives these leases back.
    Over(Arc<[Returned]>),
}

impl Announcements {
    /// Resolves when the heartbeats end although nothing has stopped them.
    pub(crate) async fn failed(&mut self) {
        let _ = self.leaving.recv().await;
    }

    /// Tells the coordinators that the worker takes nothing new. Takes a second at most, also when no coordinator is reachable;
    /// heartbeats go on.
    pub(crate) async fn leave(&mut self) {
        self.phase.send_replace(Phase::Draining);
        let _ = self.leaving.recv().await;
    }

    /// Gives leases back and ends the heartbeats.
    pub(crate) async fn stop(self, returned: Vec<Returned>) {
        self.phase.send_replace(Phase::Over(returned.into()));
        let _ = timeout(STOP_TIMEOUT, self.ended).await;
    }
}

#[cfg(test)]
impl Announcements {
    /// Announcements whose thread is gone.
    pub(crate) fn gone() -> Self {
        let (phase, _) = watch::channel(Phase::Serving);
        let (_, leaving) = mpsc::channel(1);
        let (_, ended) = oneshot::channel();
        Self { phase, leaving, ended }
    }
}

impl Announcer {
    /// A client for heartbeats and reports.
    pub(crate) fn client() -> anyhow::Result<Client> {
        api::client::http_client(TIMEOUT).context("build the HTTP client")
    }

    /// Starts the thread; the first heartbeats leave at once.
    pub(crate) fn start(self) -> anyhow::Result<Announcements> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (until_left, leaving) = mpsc::channel(1);
        let (until_ended, ended) = oneshot::channel();
        let run = move || {
            if let Err(error) = runtime.block_on(run(Arc::new(self), phases, until_left)) {
                error!(%error, "the heartbeats have failed");
            }
            drop(until_ended);
            // A name server that does not answer must not keep the thread.
            runtime.shutdown_background();
        };
        thread::Builder::new().name("heartbeat".to_owned()).spawn(run).context("start the heartbeat thread")?;
        Ok(Announcements { phase, leaving, ended })
    }

    pub(crate) fn heartbeat(&self, is_draining: bool) -> Heartbeat {
        let Vitals { cpu_load, free_memory_bytes, resources } = self.sampler.vitals();
        Heartbeat {
            port: self.port,
            boot_id: self.boot_id,
            slots: self.slots,
            running: self.executor.running(),
            cpu_load,
            free_memory_bytes,
            labels: self.labels.clone(),
            resources,
            kinds: self.kinds.clone(),
            abilities: self.abilities.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_draining,
            programs: self.programs.clone(),
            // Read before the list, so that the list gets no more leases of a lower epoch.
            epoch: self.epoch.highest(),
            held: self.listed(),
        }
    }

    /// The held leases. The age of a lease excludes its fetches and uploads: its tasks do not compute meanwhile, and must not
    /// reach their time limit at a coordinator that takes the lease over.
    fn listed(&self) -> Vec<HeldLease> {
        let mut held = self.held.list();
        for lease in &mut held {
            let waited = u64::try_from(self.courier.waited(lease.attempt).as_millis()).unwrap_or(u64::MAX);
            // The age is 0 only where the lease waits for its slot.
            let least = lease.elapsed_ms.min(1);
            lease.elapsed_ms = lease.elapsed_ms.saturating_sub(waited).max(least);
        }
        held
    }

    /// A signed request to a path of a coordinator.
    pub(crate) fn request(&self, method: Method, endpoint: &Endpoint, path: &[&str]) -> RequestBuilder {
        self.credential.sign(self.client.request(method, endpoint.join(path)).header(HOST, endpoint.host().clone()))
    }
}

/// Runs the tasks of all coordinators until the worker ends.
async fn run(
    announcer: Arc<Announcer>,
    phase: watch::Receiver<Phase>,
    until_left: mpsc::Sender<Infallible>,
) -> Result<(), JoinError> {
    let (found_sender, mut found) = mpsc::channel(MAX_FOUND);
    let (mut directory, mut contacts, mut services) = (Directory::default(), JoinSet::new(), JoinSet::new());
    look_up_all(&announcer.coordinators, &found_sender, &mut services);
    services.spawn(give_orphans_up(Arc::clone(&announcer)));
    let mut until_left = Some(until_left);
    let (mut draining, mut over) = (phase.clone(), phase.clone());
    loop {
        tokio::select! {
            Some(found) = found.recv() => directory.update(found, |endpoint, listed| {
                let contact = Contact::new(Arc::clone(&announcer), endpoint, listed);
                contacts.spawn(contact.run(phase.clone(), until_left.clone()))
            }),
            Some(ended) = contacts.join_next() => ended?,
            Some(ended) = services.join_next() => ended?,
            _ = draining.wait_for(|phase| *phase != Phase::Serving), if until_left.is_some() => until_left = None,
            _ = over.wait_for(|phase| matches!(phase, Phase::Over(_))) => break,
        }
    }
    drop(until_left);
    while let Some(ended) = contacts.join_next().await {
        ended?;
    }
    Ok(())
}

/// Forgets the held leases when no coordinator has accepted a heartbeat for the orphan timeout: no coordinator is left to ask
/// for them.
async fn give_orphans_up(announcer: Arc<Announcer>) {
    let orphan_timeout = announcer.orphan_timeout;
    loop {
        let silence = announcer.presence.silence();
        if let Some(left) = orphan_timeout.checked_sub(silence).filter(|left| !left.is_zero()) {
            sleep(left).await;
            continue;
        }
        let leases = announcer.held.forget_older_than(orphan_timeout);
        if leases > 0 {
            announcer.metrics.orphaned(leases);
            let silent_ms = silence.as_millis();
            warn!(leases, silent_ms, "no coordinator takes heartbeats: gave up the leases of stored jobs");
        }
        // A lease that arrived after the last heartbeat has its own timeout.
        sleep(orphan_timeout.min(INTERVAL)).await;
    }
}
