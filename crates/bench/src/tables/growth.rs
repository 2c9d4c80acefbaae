//! Cost of many workers, waiting clients and event streams to the coordinator and to other requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::Job;
use model::NumberRange;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Setting;
use crate::figures::{print_head, print_row, quantile, verdict};
use crate::grid::{Grid, target};
use crate::http::Connection;

const WORKERS: usize = 5_000;
/// Clients that wait, where so many files may be open.
const WAITING: usize = 10_000;
/// A service has two descriptors for each connection.
const FILES_PER_CLIENT: u64 = 2;
/// Files that are open beside the clients' connections.
const OTHER_FILES: u64 = 1_000;
const STREAMS: usize = 2_000;

/// Jobs that clients wait for and streams follow. They wait for workers that are not there.
const QUIET_JOBS: usize = 1_000;

/// Time for which each figure is measured.
const RUNNING: Duration = Duration::from_secs(10);

/// Pause before an idle coordinator is measured: it may still be at work on the jobs of the row before.
const SETTLING: Duration = Duration::from_secs(12);

/// The heartbeats of a second are sent in so many parts.
const PARTS: usize = 100;

/// Between two requests of the client beside the heartbeats.
const PAUSE: Duration = Duration::from_millis(5);

/// Clients that submit, each a share of the jobs of a second.
const SUBMITTERS: u32 = 50;
const SUBMISSIONS_PER_SECOND: u32 = 1_000;

const QUIET_JOB: &str = r#"{"kind":"tasks","params":{"list":[0]}}"#;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let waiting = allow_many_connections()?;
    print_head(
        "Many workers, waiting clients and event streams on one coordinator",
        &["beside", "figure", "value", "without", "goal", "met"],
    )?;
    heartbeats(&Grid::start(&setting.binaries, &[])?)?;
    let mut grid = Grid::start(&setting.binaries, &[])?;
    let jobs = quiet_jobs(&grid)?;
    waiting_clients(&mut grid, &jobs, waiting)?;
    event_streams(&grid, &jobs)
}

/// Each worker sends a heartbeat a second over a connection of its own.
fn heartbeats(grid: &Grid) -> anyhow::Result<()> {
    let idle = cpu_share(grid)?;
    let mut alone = requests(grid)?;
    let mut connections = (0..WORKERS).map(|_| grid.connect_internal()).collect::<anyhow::Result<Vec<_>>>()?;
    let is_over = AtomicBool::new(false);
    let (busy, mut beside, late) = thread::scope(|scope| {
        let beating = scope.spawn(|| beat(&mut connections, &is_over));
        // The first second registers them.
        sleep(Duration::from_secs(2));
        let measured = cpu_share(grid).and_then(|busy| Ok((busy, requests(grid)?)));
        is_over.store(true, Ordering::Relaxed);
        let late = beating.join().ok().context("the workers panicked")??;
        measured.map(|(busy, beside)| (busy, beside, late.as_secs_f64() * 1e3))
    })?;
    let name = format!("{WORKERS} workers, a heartbeat each second");
    let row =
        |figure: &str, value: String, without: String, goal: &str| print_row(&[&name, figure, &value, &without, goal]);
    row("coordinator's CPU, % of a core", format!("{busy:.1}"), format!("{idle:.1}"), &verdict(busy, Some(15.0)))?;
    row("a heartbeat sent late, at most ms", format!("{late:.0}"), "0".to_owned(), &verdict(late, Some(1000.0)))?;
    for (figure, share) in [("request of one chunk, p50 ms", 0.5), ("request of one chunk, p99 ms", 0.99)] {
        let [value, without] = [&mut beside, &mut alone].map(|latencies| quantile(latencies, share) * 1e3);
        row(figure, format!("{value:.2}"), format!("{without:.2}"), "unchanged | –")?;
    }
    let evicted = evictions(grid)?;
    row("evictions", format!("{evicted}"), "0".to_owned(), &verdict(evicted, Some(0.0)))?;
    Ok(())
}

/// Sends heartbeats until that is over, and tells how late the latest was: each waits for the answer to the one before, so a
/// coordinator that falls behind is sent fewer.
fn beat(connections: &mut [Connection], is_over: &AtomicBool) -> anyhow::Result<Duration> {
    let bodies: Vec<_> = (0..connections.len()).map(heartbeat).collect();
    let (mut rounds, mut latest, started_at) = (0_u32, Duration::ZERO, Instant::now());
    while !is_over.load(Ordering::Relaxed) {
        let size = connections.len().div_ceil(PARTS);
        for (part, (connections, bodies)) in connections.chunks_mut(size).zip(bodies.chunks(size)).enumerate() {
            let part = u32::try_from(part)?;
            let due = Duration::from_secs(1) * rounds + Duration::from_secs(1) * part / u32::try_from(PARTS)?;
            sleep(due.saturating_sub(started_at.elapsed()));
            // Workers that register take longer, and are not measured.
            if rounds > 1 {
                latest = latest.max(started_at.elapsed().saturating_sub(due));
            }
            for (connection, (path, body)) in connections.iter_mut().zip(bodies) {
                if rounds > 0 {
                    let (status, answer) = connection.receive_any()?;
                    ensure!(status < 300, "{status}: {}", String::from_utf8_lossy(&answer));
                }
                connection.send_with_body("PUT", path, body)?;
            }
        }
        rounds += 1;
    }
    Ok(latest)
}

/// Path and body of a worker's heartbeat. No job is there for its kinds, so nobody connects to its port.
fn heartbeat(number: usize) -> (String, String) {
    let body = format!(
        r#"{{"port":9,"boot_id":"00000000-0000-4000-8000-{number:012}","slots":1,"running":0,"cpu_load":0.5,"free_memory_bytes":1000000000,"kinds":["count-primes","sleep"],"version":"bench"}}"#
    );
    (format!("/worker/register/bench-{number}"), body)
}

fn evictions(grid: &Grid) -> anyhow::Result<f64> {
    let metrics = String::from_utf8(grid.connect_internal()?.get("/metrics")?).context("read the metrics")?;
    let samples = metrics.lines().filter(|line| line.starts_with("divvy_evictions_total"));
    samples.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
}

/// Seconds that each request of one client took.
fn requests(grid: &Grid) -> anyhow::Result<Vec<f64>> {
    let (mut connection, request) = (grid.connect()?, target(NumberRange::new(10, 2_400_010)?));
    let (mut latencies, started_at) = (Vec::new(), Instant::now());
    while started_at.elapsed() < RUNNING {
        let sent_at = Instant::now();
        connection.get(&request)?;
        latencies.push(sent_at.elapsed().as_secs_f64());
        sleep(PAUSE);
    }
    Ok(latencies)
}

fn quiet_jobs(grid: &Grid) -> anyhow::Result<Vec<String>> {
    let mut client = grid.connect()?;
    (0..QUIET_JOBS).map(|_| submit(&mut client)).collect()
}

/// The id of a job that waits.
fn submit(client: &mut Connection) -> anyhow::Result<String> {
    let (status, answer) = client.post("/v1/jobs", QUIET_JOB)?;
    ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&answer));
    let job: Job = serde_json::from_slice(&answer).context("read the job")?;
    Ok(job.id.to_string())
}

/// Clients wait for jobs while others submit some.
fn waiting_clients(grid: &mut Grid, jobs: &[String], clients: usize) -> anyhow::Result<()> {
    let mut alone = submissions(grid)?;
    let memory_before = grid.memory()?;
    let waiting = open(grid, clients, |number| format!("/v1/jobs/{}/result?wait=60s", jobs[number % jobs.len()]))?;
    let memory = (grid.memory()? - memory_before) / 1e6;
    let mut beside = submissions(grid)?;
    drop(waiting);
    let name = format!("{clients} clients that wait for jobs, {SUBMISSIONS_PER_SECOND} submissions a second");
    for (figure, share, goal) in [("submission, p50 ms", 0.5, None), ("submission, p99 ms", 0.99, Some(10.0))] {
        let [value, without] = [&mut beside, &mut alone].map(|latencies| quantile(latencies, share) * 1e3);
        let (value, without, verdict) = (format!("{value:.2}"), format!("{without:.2}"), verdict(value, goal));
        print_row(&[&name, figure, &value, &without, &verdict])?;
    }
    print_row(&[&name, "memory of the clients, MB", &format!("{memory:.0}"), "0", "– | –"])?;
    Ok(())
}

/// Seconds from the moment at which each job was to be sent to its answer.
fn submissions(grid: &Grid) -> anyhow::Result<Vec<f64>> {
    let every = Duration::from_secs(1) * SUBMITTERS / SUBMISSIONS_PER_SECOND;
    let started_at = Instant::now();
    let submit_all = |first: Duration| {
        let (mut client, mut latencies, mut due) = (grid.connect()?, Vec::new(), first);
        while due < RUNNING {
            sleep(due.saturating_sub(started_at.elapsed()));
            submit(&mut client)?;
            latencies.push((started_at.elapsed() - due).as_secs_f64());
            due += every;
        }
        anyhow::Ok(latencies)
    };
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..SUBMITTERS).map(|number| scope.spawn(move || submit_all(every * number / SUBMITTERS))).collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().ok().context("a client panicked")??);
        }
        Ok(all)
    })
}

/// Streams of events of jobs to which nothing happens.
fn event_streams(grid: &Grid, jobs: &[String]) -> anyhow::Result<()> {
    sleep(SETTLING);
    let idle = cpu_share(grid)?;
    let streams = open(grid, STREAMS, |number| format!("/v1/jobs/{}/events", jobs[number % jobs.len()]))?;
    let busy = cpu_share(grid)?;
    drop(streams);
    let name = format!("{STREAMS} event streams on quiet jobs");
    let (value, without) = (format!("{busy:.1}"), format!("{idle:.1}"));
    print_row(&[&name, "coordinator's CPU, % of a core", &value, &without, &verdict(busy - idle, Some(1.0))])?;
    Ok(())
}

/// Connections that have each sent a request, once the coordinator has read them.
fn open(grid: &Grid, count: usize, request: impl Fn(usize) -> String) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let mut connection = grid.connect()?;
        connection.send(&request(number))?;
        connections.push(connection);
    }
    sleep(Duration::from_secs(3));
    Ok(connections)
}

/// The coordinator's use of one core, in percent.
fn cpu_share(grid: &Grid) -> anyhow::Result<f64> {
    let (before, started_at) = (grid.coordinator_cpu()?, Instant::now());
    sleep(RUNNING);
    Ok((grid.coordinator_cpu()? - before) / started_at.elapsed().as_secs_f64() * 100.0)
}

/// The largest number of waiting clients: the services inherit the limit of open files.
fn allow_many_connections() -> anyhow::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit of open files")?;
    let clients = maximum.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES) / FILES_PER_CLIENT;
    let clients = usize::try_from(clients).unwrap_or(usize::MAX).min(WAITING);
    ensure!(clients > WORKERS, "too few open files are allowed: {maximum:?}");
    Ok(clients)
}
