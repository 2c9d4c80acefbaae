//! Requests of one chunk from more and more clients that each ask again at once: the rate, and who uses the CPU.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::NumberRange;

use crate::Setting;
use crate::figures::{at_least, print_head, print_row, quantile, verdict};
use crate::grid::{Grid, GridCpu, target};
use crate::http::Connection;
use crate::process;

const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Time for which each number of clients sends requests.
const RUNNING: Duration = Duration::from_millis(1500);

const P99_LIMIT_SECONDS: f64 = 10e-3;

/// Requests a second that two cores should answer within that limit.
const GOAL_RATE: f64 = 25_000.0;

#[derive(Debug)]
struct Load {
    clients: usize,
    rate: f64,
    latencies: Vec<f64>,
    grid: GridCpu,
    own: f64,
}

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let columns = [
        "request for",
        "clients",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU µs a request: coordinator",
        "workers, serving",
        "workers, computing",
        "clients",
        "goal",
        "met",
    ];
    print_head(
        "Requests of one chunk, each client asking again at once; bold: the highest rate with p99 < 10 ms, which has the goal",
        &columns,
    )?;
    let grid = Grid::start(&setting.binaries, &[])?;
    for (name, numbers) in [("2.4e6 numbers", 2_400_000), ("10 numbers", 10)] {
        let request = target(NumberRange::new(10, 10 + numbers)?);
        let mut loads =
            CLIENTS.map(|clients| measure(&grid, &request, clients)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let tails: Vec<_> = loads.iter_mut().map(|load| quantile(&mut load.latencies, 0.99)).collect();
        let in_time = loads.iter().zip(&tails).filter(|(_, tail)| **tail < P99_LIMIT_SECONDS);
        let best = in_time.map(|(load, _)| load.rate).fold(0.0, f64::max);
        for (load, tail) in loads.iter_mut().zip(tails) {
            print_load(name, load, tail, best)?;
        }
    }
    Ok(())
}

fn measure(grid: &Grid, request: &str, clients: usize) -> anyhow::Result<Load> {
    let connections = (0..clients).map(|_| grid.connect()).collect::<Result<Vec<_>, _>>()?;
    let (before, own_before, started_at) = (grid.cpu()?, process::own_cpu()?, Instant::now());
    let latencies = thread::scope(|scope| {
        let asking: Vec<_> =
            connections.into_iter().map(|connection| scope.spawn(|| ask(connection, request, started_at))).collect();
        let mut latencies = Vec::new();
        let mut own = 0.0;
        for client in asking {
            let (of_client, cpu) = client.join().ok().context("a client panicked")??;
            latencies.extend(of_client);
            own += cpu;
        }
        anyhow::Ok((latencies, own))
    });
    let seconds = started_at.elapsed().as_secs_f64();
    let grid = grid.cpu()?.since(before);
    let (latencies, of_clients) = latencies?;
    // Threads that ended are in no account any more, so they told theirs.
    let own = of_clients + process::own_cpu()? - own_before;
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let rate = latencies.len() as f64 / seconds;
    Ok(Load { clients, rate, latencies, grid, own })
}

/// Seconds that each request took, and the CPU time of this client.
fn ask(mut connection: Connection, request: &str, started_at: Instant) -> anyhow::Result<(Vec<f64>, f64)> {
    let mut latencies = Vec::new();
    while started_at.elapsed() < RUNNING {
        let sent_at = Instant::now();
        connection.get(request)?;
        latencies.push(sent_at.elapsed().as_secs_f64());
    }
    Ok((latencies, process::own_thread_cpu()?))
}

fn print_load(name: &str, load: &mut Load, tail: f64, best: f64) -> anyhow::Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let requests = load.latencies.len() as f64;
    let each = |seconds: f64| format!("{:.0}", seconds / requests * 1e6);
    #[expect(clippy::float_cmp, reason = "one of the same numbers")]
    let is_best = load.rate == best;
    let rate = if is_best { format!("**{:.0}**", load.rate) } else { format!("{:.0}", load.rate) };
    let verdict = if is_best { at_least(load.rate, GOAL_RATE) } else { verdict(load.rate, None) };
    let [median, tail] = [quantile(&mut load.latencies, 0.5), tail].map(|seconds| format!("{:.2}", seconds * 1e3));
    let GridCpu { coordinator, workers } = load.grid;
    let [coordinator, serving, computing, own] = [coordinator, workers.serving, workers.computing, load.own].map(each);
    let clients = load.clients.to_string();
    Ok(print_row(&[name, &clients, &rate, &median, &tail, &coordinator, &serving, &computing, &own, &verdict])?)
}
