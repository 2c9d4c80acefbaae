//! Coordinators and workers as processes, and their state as they show it.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use test_postgres::own_ip;

use super::{Answer, InFlight, Process, eventually, get, send};

/// Tasks that take long enough for a worker to have one whenever a test looks.
pub(crate) const LONG_TASKS: (&str, &str) = ("DIVVY_CHUNK_SIZE", "1000000000");

/// No grid comes to it while a test runs, yet a task anywhere below it takes no longer than a second or so: each slot
/// walks a stripe of its own, and near the end of `u64` one long task would be all that a test sees of it.
const ENDLESS: u64 = 100_000_000_000_000;

/// Tasks of a request for all numbers up to [`ENDLESS`].
const ENDLESS_TASKS: f64 = ENDLESS as f64 / 2_500_001.0;

/// A `divvy-coordinator` that serves.
#[derive(Debug)]
pub(crate) struct Coordinator {
    process: Process,
    data_dir: Arc<TempDir>,
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
}

/// A `divvy-worker` that serves.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) id: String,
    pub(crate) boot_id: String,
}

impl Coordinator {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_on(Arc::new(TempDir::new().expect("a directory")), variables)
    }

    /// Starts a program, of another release by its absolute path.
    pub(crate) fn start_program(program: &str, variables: &[(&str, &str)]) -> Self {
        let data_dir = Arc::new(TempDir::new().expect("a directory"));
        let process = Process::start(program, &[&settings(&data_dir), variables].concat());
        Self::of(process, data_dir)
    }

    /// Starts a coordinator without waiting until it serves.
    pub(crate) fn launch_program(program: &str, variables: &[(&str, &str)]) -> Process {
        let own = [("DIVVY_PUBLIC_ADDR", "127.0.0.1:0"), ("DIVVY_INTERNAL_ADDR", "127.0.0.1:0")];
        Process::start(program, &[&own, variables].concat())
    }

    /// Starts on the data that another one left.
    pub(crate) fn start_on(data_dir: Arc<TempDir>, variables: &[(&str, &str)]) -> Self {
        let process = Process::start("divvy-coordinator", &[&settings(&data_dir), variables].concat());
        Self::of(process, data_dir)
    }

    /// Starts where `mount`, a line of shell, brings something to the data directory that only this process sees.
    pub(crate) fn start_with_mount(data_dir: Arc<TempDir>, mount: &str, variables: &[(&str, &str)]) -> Self {
        let variables = [&settings(&data_dir), variables].concat();
        Self::of(Process::start_with_mounts(mount, "divvy-coordinator", &variables), data_dir)
    }

    /// Starts on data that may be damaged; the error where the coordinator refuses to.
    pub(crate) fn try_start_on(data_dir: Arc<TempDir>) -> Result<Self, String> {
        let variables = [&settings(&data_dir)[..], &[("DIVVY_LOCK_TIMEOUT_MS", "0")]].concat();
        let mut process = Process::start("divvy-coordinator", &variables);
        let is_ready = |line: &String| {
            let line: Value = serde_json::from_str(line).ok()?;
            let is_ready = line["message"] == "serving" && get(address(&line["public"]), "/readyz").status == 200;
            is_ready.then_some(())
        };
        let ended = eventually("it serves, or it ends", || match process.ended() {
            Some(status) => Some(Some(status)),
            None => process.log().iter().find_map(is_ready).map(|()| None),
        });
        let Some(status) = ended else { return Ok(Self::of(process, data_dir)) };
        let log = eventually("it says why", || Some(process.log()).filter(|log| !log.is_empty()));
        assert_eq!((status.code(), log.len()), (Some(1), 1), "{log:?}");
        let error: Value = serde_json::from_str(&log[0]).expect("a line of JSON");
        assert_eq!(error["level"], "ERROR", "{log:?}");
        Err(error["message"].as_str().expect("a message").to_owned())
    }

    /// Starts on data that another one still has, and does not wait until it serves.
    pub(crate) fn launch_on(data_dir: Arc<TempDir>, variables: &[(&str, &str)]) -> Process {
        Process::start("divvy-coordinator", &[&settings(&data_dir), variables].concat())
    }

    /// The coordinator of a process, once it serves.
    pub(crate) fn of(process: Process, data_dir: Arc<TempDir>) -> Self {
        let serving = process.logged("serving");
        let (public, internal) = (address(&serving["public"]), address(&serving["internal"]));
        Self { process, data_dir, public, internal }
    }

    /// Starts where the same ports will be free again, for [`Self::start_again`].
    pub(crate) fn start_to_stay(variables: &[(&str, &str)]) -> Self {
        let address = own_address();
        let own = [("DIVVY_PUBLIC_ADDR", address.as_str()), ("DIVVY_INTERNAL_ADDR", &address)];
        Self::start(&[&own, variables].concat())
    }

    /// Starts on the same data and ports once the process has ended.
    pub(crate) fn start_again(&mut self, variables: &[(&str, &str)]) {
        let (public, internal) = (self.public.to_string(), self.internal.to_string());
        let own = [("DIVVY_PUBLIC_ADDR", public.as_str()), ("DIVVY_INTERNAL_ADDR", &internal)];
        *self = Self::start_on(Arc::clone(&self.data_dir), &[&own, variables].concat());
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The data directory, for use after the coordinator's end.
    pub(crate) fn shared_data_dir(&self) -> Arc<TempDir> {
        Arc::clone(&self.data_dir)
    }

    /// Asks for a sum by a sieve, which takes its time.
    pub(crate) fn ask_sum(&self, a: u64, b: u64) -> InFlight {
        send(self.public, "GET", &format!("/sum-of-primes?a={a}&b={b}&algorithm=sieve"), &[], "")
    }

    pub(crate) fn sum(&self, a: u64, b: u64) -> Answer {
        self.ask_sum(a, b).answer()
    }

    /// Sends a request that no grid finishes while a test runs.
    pub(crate) fn ask_endless(&self) -> InFlight {
        self.ask_sum(0, ENDLESS)
    }

    /// Sends so many requests that no grid finishes, and waits until all are admitted.
    pub(crate) fn fill_places(&self, places: usize) -> Vec<InFlight> {
        let fill = |place| {
            let endless = self.ask_endless();
            let tasks = (place as f64 + 0.5) * ENDLESS_TASKS;
            eventually("it has a place", || (self.metric("divvy_queue_depth_tasks") > tasks).then_some(()));
            endless
        };
        (0..places).map(fill).collect()
    }

    /// The answer of `GET /workers`.
    pub(crate) fn workers(&self) -> Vec<Value> {
        let answer = get(self.public, "/workers");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_array().expect("an array").clone()
    }

    /// The entry of `GET /workers` for the worker process `boot_id`.
    pub(crate) fn find(&self, boot_id: &str) -> Option<Value> {
        self.workers().into_iter().find(|worker| worker["boot_id"] == boot_id)
    }

    /// Leases that all workers hold.
    pub(crate) fn busy(&self) -> u64 {
        self.workers().iter().map(|worker| worker["busy"].as_u64().expect("a number")).sum()
    }

    /// Waits until every worker has a lease of [`LONG_TASKS`] at it. One that the coordinator counts may still be on its
    /// way, but not the one ahead of those that are completed.
    pub(crate) fn wait_until_all_compute(&self) {
        let is_at_work = |worker: &Value| worker["busy"] != 0 && worker["completed_tasks"].as_u64() >= Some(4);
        eventually("every worker computes", || self.workers().iter().all(is_at_work).then_some(()));
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        metric(self.internal, sample)
    }

    /// Waits for a count, which may follow the answer that it counts.
    pub(crate) fn wait_for_metric(&self, sample: &str, value: f64) {
        eventually(sample, || (self.metric(sample) == value).then_some(()));
    }

    /// Waits until all changes so far are on the disk. A start or an outcome that was recorded and not committed goes with the
    /// process: then the task is open for the next coordinator, whichever worker has it.
    pub(crate) fn wait_until_all_is_stored(&self) {
        self.wait_for_metric("divvy_store_backlog_changes", 0.0);
    }

    pub(crate) fn completed_leases(&self) -> f64 {
        self.metric(r#"divvy_leases_total{outcome="completed"}"#)
    }
}

impl Worker {
    /// Starts a worker of one slot and waits until `coordinator` lists it.
    pub(crate) fn join(coordinator: &Coordinator, variables: &[(&str, &str)]) -> Self {
        let worker = Self::start(coordinator.internal, variables);
        eventually("the worker is registered", || coordinator.find(&worker.boot_id));
        worker
    }

    /// Starts a worker of one slot, whether or not anyone is at `coordinator`.
    pub(crate) fn start(coordinator: SocketAddr, variables: &[(&str, &str)]) -> Self {
        Self::start_program("divvy-worker", coordinator, variables)
    }

    /// Starts a program, of another release by its absolute path.
    pub(crate) fn start_program(program: &str, coordinator: SocketAddr, variables: &[(&str, &str)]) -> Self {
        let coordinator = format!("http://{coordinator}");
        let own =
            [("DIVVY_LISTEN_ADDR", "127.0.0.1:0"), ("DIVVY_SLOTS", "1"), ("DIVVY_COORDINATOR", coordinator.as_str())];
        let process = Process::start(program, &[&own, variables].concat());
        let serving = process.logged("serving");
        let text = |field: &str| serving[field].as_str().expect("text").to_owned();
        Self { address: address(&serving["address"]), id: text("worker_id"), boot_id: text("boot_id"), process }
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        metric(self.address, sample)
    }

    /// Waits until it computes. A lease that the coordinator counts may still be on its way.
    pub(crate) fn wait_until_it_computes(&self) {
        eventually("it computes", || (self.metric("divvy_worker_running_slots") >= 1.0).then_some(()));
    }
}

impl Deref for Coordinator {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Coordinator {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Deref for Worker {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn settings(data_dir: &TempDir) -> [(&'static str, &str); 3] {
    let path = data_dir.path().to_str().expect("a readable path");
    [("DIVVY_PUBLIC_ADDR", "127.0.0.1:0"), ("DIVVY_INTERNAL_ADDR", "127.0.0.1:0"), ("DIVVY_DATA_DIR", path)]
}

/// An address that nobody else uses, so that a port of it cannot be taken while nobody listens on it.
pub(crate) fn own_address() -> String {
    format!("{}:0", own_ip())
}

fn address(field: &Value) -> SocketAddr {
    field.as_str().and_then(|address| address.parse().ok()).expect("an address")
}

/// A sample of `GET /metrics`, 0 while it is not there.
fn metric(address: SocketAddr, sample: &str) -> f64 {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut values = answer.body.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    values.next().map_or(0.0, |value| value.parse().expect("a number"))
}
