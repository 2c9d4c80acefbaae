//! Jobs that clients submit one by one over HTTP: each is on the disk before its answer.

use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use tempfile::TempDir;
use test_postgres::Server;

use crate::Setting;
use crate::figures::{at_least, print_head, print_row, quantile, verdict};
use crate::http::Connection;
use crate::process::{Binaries, Process};

/// Clients at a time, each with a connection, and the jobs of each.
const CLIENTS: [(usize, usize); 3] = [(1, 200), (64, 200), (256, 100)];

/// Submissions a second that PostgreSQL is to take of many clients.
const GOAL: f64 = 5_000.0;

/// No worker runs it.
const JOB: &str = r#"{"kind":"sum-of-primes","params":{"a":10,"b":9999999},"tags":{"user":"somebody"}}"#;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let columns =
        ["coordinator", "clients", "a second", "p50 ms", "p99 ms", "CPU of the coordinator, µs each", "goal", "met"];
    print_head("Jobs submitted one by one over HTTP", &columns)?;
    // The directory for temporary files may be in memory.
    let data = TempDir::new_in(setting.binaries.cache()).context("make a directory")?;
    let sqlite = [("DIVVY_DATA_DIR", data.path().to_str().context("a path")?)];
    measure("SQLite", &start(&setting.binaries, &sqlite)?)?;
    if !Path::new("/usr/lib/postgresql").exists() {
        print_row(&["PostgreSQL is not installed (Debian: postgresql)", "", "", "", "", "", "", ""])?;
        return Ok(());
    }
    let server = Server::start(&["fsync=on", "full_page_writes=on", "max_wal_size=2GB", "shared_buffers=256MB"]);
    let (database, results) = (server.url(&server.create_database()), format!("file://{}", data.path().display()));
    let postgres = [("DIVVY_STORE_URL", database.as_str()), ("DIVVY_RESULTS_URL", &results)];
    let leader = start(&setting.binaries, &postgres)?;
    measure("PostgreSQL, the leader", &leader)?;
    measure("PostgreSQL, a standby", &start(&setting.binaries, &postgres)?)
}

fn start(binaries: &Binaries, store: &[(&str, &str)]) -> anyhow::Result<Process> {
    let own = [("DIVVY_PUBLIC_ADDR", "127.0.0.1:0"), ("DIVVY_INTERNAL_ADDR", "127.0.0.1:0")];
    Process::start(binaries, "divvy-coordinator", &[&own, store].concat())
}

fn measure(name: &str, coordinator: &Process) -> anyhow::Result<()> {
    for (clients, each) in CLIENTS {
        // Connections and statements are made first.
        submit(coordinator, clients, 1)?;
        let (since, before) = (Instant::now(), coordinator.cpu()?);
        let mut times = submit(coordinator, clients, each)?;
        let (elapsed, cpu) = (since.elapsed().as_secs_f64(), coordinator.cpu()?.minus(before).total());
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
        let jobs = times.len() as f64;
        let rate = jobs / elapsed;
        let is_goal = name.starts_with("PostgreSQL") && clients > 1;
        let met = if is_goal { at_least(rate, GOAL) } else { verdict(rate, None) };
        let [p50, p99] = [0.5, 0.99].map(|share| format!("{:.1}", quantile(&mut times, share) * 1e3));
        let cpu = format!("{:.0}", cpu / jobs * 1e6);
        print_row(&[name, &clients.to_string(), &format!("{rate:.0}"), &p50, &p99, &cpu, &met])?;
    }
    Ok(())
}

/// Submits jobs by so many clients at a time; how long each took, in seconds.
fn submit(coordinator: &Process, clients: usize, each: usize) -> anyhow::Result<Vec<f64>> {
    let address = coordinator.serving("public")?.parse().context("an address")?;
    let submit = move || {
        let mut connection = Connection::open(address)?;
        let times = (0..each).map(|_| {
            let since = Instant::now();
            let (status, answer) = connection.post("/v1/jobs", JOB)?;
            ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&answer));
            Ok(since.elapsed().as_secs_f64())
        });
        times.collect::<anyhow::Result<Vec<_>>>()
    };
    let clients: Vec<_> = (0..clients).map(|_| thread::spawn(submit)).collect();
    let times = clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
    Ok(times.collect::<anyhow::Result<Vec<_>>>()?.concat())
}
