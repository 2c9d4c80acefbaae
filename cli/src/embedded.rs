//! A whole grid in one process: the same coordinator and workers as on a cluster, on loopback ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::Context;
use coordinator::config::StoreUrl;
use coordinator::job_watch::JobWatch;
use coordinator::startup::Coordinator;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;
use worker::startup::Worker;

/// Addresses of the first coordinator; further coordinators use the ports that follow.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Public address for clients; port 0 picks a free port.
    pub public: SocketAddr,
    /// The port on 127.0.0.1 for workers and metrics; 0 picks a free one.
    pub internal: u16,
}

impl Ports {
    /// Free ports on 127.0.0.1.
    #[must_use]
    pub fn any() -> Self {
        Self { public: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), internal: 0 }
    }
}

/// The parts of a grid: coordinators, workers and their store.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Coordinators, which share the database of `store_url` where they are several.
    pub coordinators: NonZeroU32,
    /// Workers of one slot each.
    pub workers: u32,
    /// Directory of the SQLite file; without it the jobs end with the grid.
    pub data_dir: Option<PathBuf>,
    /// URL of a database instead of SQLite.
    pub store_url: Option<StoreUrl>,
}

impl Shape {
    /// One coordinator with `workers` workers; its jobs end with the grid.
    #[must_use]
    pub fn of_workers(workers: u32) -> Self {
        Self { coordinators: NonZeroU32::MIN, workers, data_dir: None, store_url: None }
    }
}

/// A grid that runs until it is stopped.
#[derive(Debug)]
pub struct EmbeddedGrid {
    scheme: &'static str,
    internal_scheme: &'static str,
    addresses: Vec<Addresses>,
    jobs: JobWatch,
    stop_workers: watch::Sender<bool>,
    stop_coordinators: watch::Sender<bool>,
    workers: JoinSet<anyhow::Result<()>>,
    coordinators: JoinSet<anyhow::Result<()>>,
    /// Last field: the directory is deleted after its users are dropped.
    own_data: Option<TempDir>,
}

/// The parts of one coordinator.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    public: SocketAddr,
    internal: SocketAddr,
}

impl EmbeddedGrid {
    /// Starts the coordinators at `ports` and the ports behind them, and workers of one slot each, as the variables
    /// `DIVVY_*` say otherwise.
    ///
    /// # Errors
    /// A variable is out of its range, an address cannot be bound, or the data cannot be used.
    pub fn start(ports: Ports, shape: Shape) -> anyhow::Result<Self> {
        let Shape { coordinators, workers, data_dir, store_url } = shape;
        let mut config = coordinator::config::Config::from_env()?;
        config.store_url = store_url.or(config.store_url);
        anyhow::ensure!(
            coordinators.get() == 1 || config.store_url.is_some(),
            "several coordinators need a database that they share: --store-url postgres://…"
        );
        let own_data = own_data(data_dir, &mut config)?;
        config.doors.is_one_process = true;
        let scheme = |has_tls| if has_tls { "https" } else { "http" };
        let (scheme, internal_scheme) = (scheme(config.doors.has_tls()), scheme(config.doors.has_internal_tls()));
        let (stop_coordinators, stop_workers) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut grid = Self {
            scheme,
            internal_scheme,
            addresses: Vec::new(),
            jobs: JobWatch::default(),
            stop_workers,
            stop_coordinators,
            workers: JoinSet::new(),
            coordinators: JoinSet::new(),
            own_data,
        };
        // Nothing runs before all parts are built: a part that cannot be built leaves none behind.
        let (mut built, mut built_workers) = (Vec::new(), Vec::new());
        for number in 0..coordinators.get() {
            built.push(grid.build_coordinator(ports, number, config.clone())?);
        }
        for number in 1..=workers {
            built_workers.push(grid.build_worker(number)?);
        }
        for coordinator in built {
            grid.coordinators.spawn(coordinator.run(told(&grid.stop_coordinators)));
        }
        for worker in built_workers {
            grid.workers.spawn(worker.run(told(&grid.stop_workers)));
        }
        Ok(grid)
    }

    fn build_coordinator(
        &mut self,
        ports: Ports,
        number: u32,
        mut config: coordinator::config::Config,
    ) -> anyhow::Result<Coordinator> {
        config.public_addr = SocketAddr::new(ports.public.ip(), port_behind(ports.public.port(), number)?);
        config.internal_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port_behind(ports.internal, number)?));
        config.coordinator_id = Some(format!("coordinator-{}", number + 1));
        let coordinator = Coordinator::build(config)?;
        self.addresses.push(Addresses { public: coordinator.public_addr(), internal: coordinator.internal_addr() });
        self.jobs.add(&coordinator.job_watch());
        Ok(coordinator)
    }

    fn build_worker(&self, number: u32) -> anyhow::Result<Worker> {
        let mut config = worker::config::Config::from_env()?;
        (config.listen_addr, config.slots) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1);
        config.doors.is_one_process = true;
        let urls: Vec<_> = self
            .addresses
            .iter()
            .map(|addresses| format!("{}://{}", self.internal_scheme, addresses.internal))
            .collect();
        config.coordinator = urls.join(",").try_into()?;
        config.worker_id = Some(format!("worker-{number}").parse().context("a worker's name")?);
        // Without a data directory of the user's the compiled programs end with the grid, too.
        if let (None, Some(own)) = (&config.program_dir, &self.own_data) {
            config.program_dir = Some(own.path().join("workers"));
        }
        Worker::build(config)
    }

    /// The public URLs of all coordinators, the first coordinator's first.
    ///
    /// # Errors
    /// None in practice: every bound address makes a URL.
    pub fn urls(&self) -> anyhow::Result<Vec<Url>> {
        let url = |addresses: &Addresses| Url::parse(&format!("{}://{}", self.scheme, addresses.public));
        self.addresses.iter().map(|addresses| url(addresses).context("the grid's URL")).collect()
    }

    /// The first coordinator's public URL.
    ///
    /// # Errors
    /// None in practice: every bound address makes a URL.
    pub fn url(&self) -> anyhow::Result<Url> {
        self.urls()?.into_iter().next().context("a grid has a coordinator")
    }

    /// The internal URL of each coordinator, for workers that pull and for metrics.
    #[must_use]
    pub fn internal_urls(&self) -> Vec<String> {
        self.addresses.iter().map(|addresses| format!("{}://{}", self.internal_scheme, addresses.internal)).collect()
    }

    /// A view of the grid's jobs.
    #[must_use]
    pub fn jobs(&self) -> &JobWatch {
        &self.jobs
    }

    /// Stops the grid: leases of stored jobs are finished or handed back, and open requests are answered, as long as the drain
    /// timeout allows.
    ///
    /// # Errors
    /// A part of the grid had failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        // Workers deregister, and finish or hand back the leases of stored jobs, while the coordinator still listens: it takes
        // no outcome afterwards. Clients that wait for a computation need the workers until the coordinator has answered.
        if !self.jobs.has_waiting_clients() {
            self.stop_workers.send_replace(true);
            stopped = join(&mut self.workers).await;
        }
        self.stop_coordinators.send_replace(true);
        stopped = stopped.and(join(&mut self.coordinators).await);
        self.stop_workers.send_replace(true);
        stopped.and(join(&mut self.workers).await)
    }

    /// Resolves when a part of the grid ends without a stop.
    pub async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.coordinators.join_next() => ended,
            Some(ended) = self.workers.join_next() => ended,
            else => return anyhow::anyhow!("the grid has no parts"),
        };
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("a part of the grid stopped by itself"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        }
    }
}

/// A temporary directory that ends with the grid, where none is given.
fn own_data(data_dir: Option<PathBuf>, config: &mut coordinator::config::Config) -> anyhow::Result<Option<TempDir>> {
    if let Some(data_dir) = data_dir {
        config.data_dir = data_dir;
        return Ok(None);
    }
    if config.store_url.is_some() {
        return Ok(None);
    }
    let own = tempfile::Builder::new().prefix("divvy-").tempdir().context("make a directory for data")?;
    own.path().clone_into(&mut config.data_dir);
    Ok(Some(own))
}

/// The port `number` after `port`; port 0 stays 0.
fn port_behind(port: u16, number: u32) -> anyhow::Result<u16> {
    if port == 0 {
        return Ok(0);
    }
    u16::try_from(u32::from(port) + number).ok().context("there are not enough ports behind the given one")
}

/// Waits for all parts, also where one has failed, and returns the first error.
async fn join(parts: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut joined = Ok(());
    while let Some(ended) = parts.join_next().await {
        joined = joined.and(match ended {
            Ok(ended) => ended,
            Err(error) => Err(error).context("join a part of the grid"),
        });
    }
    joined
}

fn told(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut told = stop.subscribe();
    async move {
        // An error means that the grid was dropped, which stops it as well.
        let _ = told.wait_for(|stop| *stop).await;
    }
}
