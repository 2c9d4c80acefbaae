//! A whole grid in one process: the same coordinator and workers as on a cluster, on loopback ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use coordinator::startup::{Coordinator, JobWatch};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;
use worker::startup::Worker;

/// Where a grid listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Where clients ask; port 0 picks a free one.
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

/// A grid that runs until it is stopped.
#[derive(Debug)]
pub struct EmbeddedGrid {
    scheme: &'static str,
    public_addr: SocketAddr,
    internal_addr: SocketAddr,
    jobs: JobWatch,
    stop_workers: watch::Sender<bool>,
    stop_coordinator: watch::Sender<bool>,
    workers: JoinSet<anyhow::Result<()>>,
    coordinator: JoinSet<anyhow::Result<()>>,
    /// Last: it goes when nothing uses it any more.
    _own_data: Option<TempDir>,
}

impl EmbeddedGrid {
    /// Starts a coordinator at `ports` and `workers` workers of one slot each, as the variables `DIVVY_*` say
    /// otherwise. Without a `data_dir` its jobs end with it.
    ///
    /// # Errors
    /// A variable is out of its range, an address cannot be bound, or the directory cannot be used.
    pub fn start(ports: Ports, workers: u32, data_dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = coordinator::config::Config::from_env()?;
        config.public_addr = ports.public;
        config.internal_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.internal));
        let own_data = match data_dir {
            Some(data_dir) => {
                config.data_dir = data_dir;
                None
            }
            None => {
                let own = tempfile::Builder::new().prefix("divvy-").tempdir().context("make a directory for data")?;
                own.path().clone_into(&mut config.data_dir);
                Some(own)
            }
        };
        let scheme = if config.doors.has_tls() { "https" } else { "http" };
        let coordinator = Coordinator::build(config)?;
        let (public_addr, internal_addr) = (coordinator.public_addr(), coordinator.internal_addr());
        let jobs = coordinator.job_watch();

        let mut config = worker::config::Config::from_env()?;
        (config.listen_addr, config.slots) = (free_port, 1);
        config.coordinator = format!("{scheme}://{internal_addr}").try_into()?;
        let (stop_coordinator, stop_workers) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut grid = Self {
            scheme,
            public_addr,
            internal_addr,
            jobs,
            stop_workers,
            stop_coordinator,
            workers: JoinSet::new(),
            coordinator: JoinSet::new(),
            _own_data: own_data,
        };
        grid.coordinator.spawn(coordinator.run(told(&grid.stop_coordinator)));
        for number in 1..=workers {
            config.worker_id = Some(format!("worker-{number}").parse().context("a worker's name")?);
            let worker = Worker::build(config.clone())?;
            grid.workers.spawn(worker.run(told(&grid.stop_workers)));
        }
        Ok(grid)
    }

    /// Where to ask it.
    ///
    /// # Errors
    /// None in practice: every bound address makes a URL.
    pub fn url(&self) -> anyhow::Result<Url> {
        Url::parse(&format!("{}://{}", self.scheme, self.public_addr)).context("the grid's URL")
    }

    /// Where workers fetch tasks and metrics are read.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("{}://{}", self.scheme, self.internal_addr)
    }

    /// A view of its jobs.
    #[must_use]
    pub fn jobs(&self) -> &JobWatch {
        &self.jobs
    }

    /// Stops it: what is in flight is answered as long as the drain timeout allows.
    ///
    /// # Errors
    /// A part of it had failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // Workers without a job say goodbye while there is somebody to hear it.
        if self.jobs.progress().is_empty() {
            self.stop_workers.send_replace(true);
            join(&mut self.workers).await?;
        }
        self.stop_coordinator.send_replace(true);
        join(&mut self.coordinator).await?;
        self.stop_workers.send_replace(true);
        join(&mut self.workers).await
    }

    /// Resolves when a part of it ends without having been told to.
    pub async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.coordinator.join_next() => ended,
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

async fn join(parts: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = parts.join_next().await {
        ended.context("join a part of the grid")??;
    }
    Ok(())
}

fn told(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut told = stop.subscribe();
    async move {
        // An error means that the grid was dropped, which stops it as well.
        let _ = told.wait_for(|stop| *stop).await;
    }
}
