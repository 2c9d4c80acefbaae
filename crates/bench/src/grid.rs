//! A grid as an operator starts it: a coordinator and two workers of one slot each, as processes on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::{SumOfPrimes, WorkerSummary};
use model::NumberRange;
use tempfile::TempDir;

use crate::http::Connection;
use crate::process::{Binaries, Cpu, Process};

/// Workers of a grid, one slot each, and threads of its references.
pub(crate) const WORKERS: u32 = 2;

/// Longest wait for the workers to register.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Grid {
    coordinator: Process,
    workers: Vec<Process>,
    public: Connection,
    internal: Connection,
    public_addr: SocketAddr,
    internal_addr: SocketAddr,
    /// Last field: the directory is deleted after the coordinator has ended.
    _data_dir: TempDir,
}

/// CPU time of a grid's parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GridCpu {
    pub(crate) coordinator: f64,
    pub(crate) workers: Cpu,
}

impl Grid {
    /// Starts a grid with these settings of its coordinator and waits until every worker has computed.
    pub(crate) fn start(binaries: &Binaries, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let data_dir = TempDir::new_in(binaries.cache()).context("make a directory for data")?;
        let own = [
            ("DIVVY_PUBLIC_ADDR", "127.0.0.1:0"),
            ("DIVVY_INTERNAL_ADDR", "127.0.0.1:0"),
            ("DIVVY_DATA_DIR", data_dir.path().to_str().context("a path that is text")?),
        ];
        let coordinator = Process::start(binaries, "divvy-coordinator", &[&own, settings].concat())?;
        let internal = coordinator.serving("internal")?;
        let url = format!("http://{internal}");
        let own = [("DIVVY_LISTEN_ADDR", "127.0.0.1:0"), ("DIVVY_SLOTS", "1"), ("DIVVY_COORDINATOR", url.as_str())];
        let workers = (0..WORKERS).map(|_| Process::start(binaries, "divvy-worker", &own)).collect::<Result<_, _>>()?;
        let public_addr: SocketAddr = coordinator.serving("public")?.parse().context("the public address")?;
        let internal_addr = internal.parse().context("the internal address")?;
        let (public, internal) = (Connection::open(public_addr)?, Connection::open(internal_addr)?);
        let data = data_dir;
        let mut grid = Self { coordinator, workers, public, internal, public_addr, internal_addr, _data_dir: data };
        grid.warm_up()?;
        Ok(grid)
    }

    /// The sum and the seconds from request to answer.
    pub(crate) fn sum(&mut self, range: NumberRange) -> anyhow::Result<(SumOfPrimes, f64)> {
        let started_at = Instant::now();
        let answer = self.public.get(&target(range))?;
        let seconds = started_at.elapsed().as_secs_f64();
        Ok((serde_json::from_slice(&answer).context("read the answer")?, seconds))
    }

    /// A further client's connection.
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.public_addr)
    }

    /// A connection to a worker, which answers alone.
    pub(crate) fn connect_worker(&self) -> anyhow::Result<Connection> {
        let worker = self.workers.first().context("a grid with workers")?;
        Connection::open(worker.serving("address")?.parse().context("a worker's address")?)
    }

    /// The sum of all primes up to a number as the grid itself would compute it, and the seconds from request to answer.
    pub(crate) fn sum_up_to(&mut self, x: u64) -> anyhow::Result<(SumOfPrimes, f64)> {
        let started_at = Instant::now();
        let answer = self.public.get(&format!("/sum-of-primes?a=1&b={x}"))?;
        let seconds = started_at.elapsed().as_secs_f64();
        Ok((serde_json::from_slice(&answer).context("read the answer")?, seconds))
    }

    /// A connection of a worker that fetches its tasks.
    pub(crate) fn connect_internal(&self) -> anyhow::Result<Connection> {
        Connection::open(self.internal_addr)
    }

    /// A sample of the coordinator's metrics, 0 while it is not there.
    pub(crate) fn metric(&mut self, sample: &str) -> anyhow::Result<f64> {
        let text = String::from_utf8(self.internal.get("/metrics")?).context("read the metrics")?;
        let mut values = text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        values.next().map_or(Ok(0.0), |value| value.parse().with_context(|| format!("read {sample}")))
    }

    /// Processor time of the grid's processes so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<GridCpu> {
        let coordinator = self.coordinator.cpu()?.total();
        let workers = self.workers.iter().try_fold(Cpu::default(), |sum, worker| Ok(sum.plus(worker.cpu()?)));
        workers.map(|workers| GridCpu { coordinator, workers })
    }

    /// Seconds of the coordinator: see [`Process::cpu_with_ended_threads`].
    pub(crate) fn coordinator_cpu(&self) -> anyhow::Result<f64> {
        self.coordinator.cpu_with_ended_threads()
    }

    /// Bytes of memory of the coordinator.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        self.coordinator.memory()
    }

    fn warm_up(&mut self) -> anyhow::Result<()> {
        let started_at = Instant::now();
        loop {
            ensure!(started_at.elapsed() < PATIENCE, "the workers do not register");
            let workers: Vec<WorkerSummary> =
                serde_json::from_slice(&self.public.get("/workers")?).context("read the workers")?;
            let at_work = workers.iter().filter(|worker| worker.completed_tasks > 0).count();
            if at_work == WORKERS as usize {
                return Ok(());
            }
            if workers.len() == WORKERS as usize {
                self.sum(NumberRange::new(1, 100_000)?)?;
            }
        }
    }
}

impl GridCpu {
    pub(crate) fn total(self) -> f64 {
        self.coordinator + self.workers.total()
    }

    /// Processor time since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { coordinator: self.coordinator - earlier.coordinator, workers: self.workers.minus(earlier.workers) }
    }
}

/// The request for a sum by a sieve, which every service can be asked for.
pub(crate) fn target(range: NumberRange) -> String {
    format!("/sum-of-primes?a={}&b={}&algorithm=sieve", range.a(), range.b())
}
