//! From the end of the coordinator that leads to the first lease that the next one has had computed, over PostgreSQL; and
//! from the moment at which PostgreSQL answers again to the next lease.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use test_postgres::Server;

use crate::Setting;
use crate::figures::{print_head, print_row, quantile, verdict};
use crate::http::Connection;
use crate::process::{Binaries, Process};

/// Leaders that are killed, and that are told to stop.
const KILLS: usize = 50;
const STOPS: usize = 20;

/// Ends of the database, and how long it is away: longer than a leader may go on without it.
const OUTAGES: usize = 20;
const OUTAGE: Duration = Duration::from_secs(3);

/// Time after its start at which a coordinator knows every worker, and waits for no more when it takes over.
const WARM: Duration = Duration::from_millis(3_500);

/// Longest wait for a takeover.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Tasks of a millisecond, as many as a job may have: more than a run takes.
const ENDLESS: &str = r#"{"kind":"sleep","params":{"seconds":0.001,"tasks":10000000,"tasks_per_lease":1}}"#;

const COMPLETED: &str = r#"divvy_leases_total{outcome="completed"}"#;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    print_head(
        "From the leader's end, or the database's return, to a lease that was computed, two coordinators over PostgreSQL",
        &["end", "figure", "ms", "goal", "met"],
    )?;
    if !Path::new("/usr/lib/postgresql").exists() {
        print_row(&["PostgreSQL is not installed (Debian: postgresql)", "", "", "", ""])?;
        return Ok(());
    }
    let mut pair = Pair::start(&setting.binaries)?;
    for (name, signal, count, goal) in
        [("SIGKILL", Signal::KILL, KILLS, 2_000.0), ("SIGTERM", Signal::TERM, STOPS, 300.0)]
    {
        let times = (0..count).map(|_| pair.takeover(signal)).collect::<anyhow::Result<Vec<_>>>()?;
        print_times(&format!("{name}, {count} times"), times, goal)?;
    }
    let times = (0..OUTAGES).map(|_| pair.outage()).collect::<anyhow::Result<Vec<_>>>()?;
    print_times(&format!("PostgreSQL back after {} s, {OUTAGES} times", OUTAGE.as_secs()), times, 2_000.0)
}

fn print_times(name: &str, mut times: Vec<f64>, goal: f64) -> anyhow::Result<()> {
    for (figure, share) in [("p50", 0.5), ("p99", 0.99)] {
        let time = quantile(&mut times, share);
        print_row(&[name, figure, &format!("{time:.0}"), &verdict(time, Some(goal))])?;
    }
    Ok(())
}

/// Two coordinators and a worker.
struct Pair<'a> {
    binaries: &'a Binaries,
    coordinators: Vec<Coordinator>,
    _worker: Process,
    database: String,
    results: TempDir,
    server: Server,
}

struct Coordinator {
    process: Process,
    started_at: Instant,
    internal: SocketAddr,
}

impl<'a> Pair<'a> {
    fn start(binaries: &'a Binaries) -> anyhow::Result<Self> {
        let server = Server::start(&[]);
        let database = server.url(&server.create_database());
        let results = TempDir::new().context("make a directory for results")?;
        let mut coordinators = Vec::new();
        for number in 0..2 {
            coordinators.push(start_coordinator(binaries, number, &database, &results)?);
        }
        let urls: Vec<_> = coordinators.iter().map(|coordinator| format!("http://{}", coordinator.internal)).collect();
        let urls = urls.join(",");
        let own = [("DIVVY_LISTEN_ADDR", "127.0.0.1:0"), ("DIVVY_SLOTS", "1"), ("DIVVY_COORDINATOR", urls.as_str())];
        let worker = Process::start(binaries, "divvy-worker", &own)?;
        let public: SocketAddr = coordinators[0].process.serving("public")?.parse().context("an address")?;
        let (status, answer) = Connection::open(public)?.post("/v1/jobs", ENDLESS)?;
        ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&answer));
        Ok(Self { binaries, coordinators, _worker: worker, database, results, server })
    }

    /// Ends the leader. Milliseconds until the other one has had a lease computed.
    fn takeover(&mut self, signal: Signal) -> anyhow::Result<f64> {
        let leader = self.leader()?;
        let next = 1 - leader;
        sleep(WARM.saturating_sub(self.coordinators[next].started_at.elapsed()));
        let before = self.coordinators[next].metric(COMPLETED)?;
        let ended_at = Instant::now();
        self.coordinators[leader].process.signal(signal)?;
        while self.coordinators[next].metric(COMPLETED)? <= before {
            ensure!(ended_at.elapsed() < PATIENCE, "no takeover within {PATIENCE:?}");
            sleep(PAUSE);
        }
        let taken = ended_at.elapsed();
        self.coordinators[leader].process.wait()?;
        self.coordinators[leader] = start_coordinator(self.binaries, leader, &self.database, &self.results)?;
        Ok(taken.as_secs_f64() * 1e3)
    }

    /// Kills the database for a while. Milliseconds from its first answer until some coordinator has had a lease computed.
    fn outage(&self) -> anyhow::Result<f64> {
        self.leader()?;
        self.server.kill();
        sleep(OUTAGE);
        self.server.start_again();
        let (back_at, before) = (Instant::now(), self.completed()?);
        while self.completed()? <= before {
            ensure!(back_at.elapsed() < PATIENCE, "nothing goes on within {PATIENCE:?}");
            sleep(PAUSE);
        }
        Ok(back_at.elapsed().as_secs_f64() * 1e3)
    }

    /// Leases that the coordinators have had computed.
    fn completed(&self) -> anyhow::Result<f64> {
        self.coordinators.iter().map(|coordinator| coordinator.metric(COMPLETED)).sum()
    }

    /// The coordinator that leads, once leases of it are computed.
    fn leader(&self) -> anyhow::Result<usize> {
        let since = Instant::now();
        loop {
            for (number, coordinator) in self.coordinators.iter().enumerate() {
                if coordinator.metric("divvy_leader")? == 1.0 && coordinator.metric(COMPLETED)? > 0.0 {
                    return Ok(number);
                }
            }
            ensure!(since.elapsed() < PATIENCE, "no coordinator leads");
            sleep(PAUSE);
        }
    }
}

impl Coordinator {
    fn metric(&self, sample: &str) -> anyhow::Result<f64> {
        let body = Connection::open(self.internal)?.get("/metrics")?;
        let text = String::from_utf8(body).context("read metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        Ok(value.map_or(Ok(0.0), str::parse)?)
    }
}

/// Each time at the same ports: workers know them.
fn start_coordinator(
    binaries: &Binaries,
    number: usize,
    database: &str,
    results: &TempDir,
) -> anyhow::Result<Coordinator> {
    let [.., y, z] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 100 + u8::try_from(number)?, y, z);
    let (public, internal) = (format!("{ip}:8080"), format!("{ip}:8081"));
    let results = format!("file://{}", results.path().display());
    let process = Process::start(
        binaries,
        "divvy-coordinator",
        &[
            ("DIVVY_PUBLIC_ADDR", public.as_str()),
            ("DIVVY_INTERNAL_ADDR", &internal),
            ("DIVVY_STORE_URL", database),
            ("DIVVY_RESULTS_URL", &results),
        ],
    )?;
    Ok(Coordinator { process, started_at: Instant::now(), internal: internal.parse().context("an address")? })
}
