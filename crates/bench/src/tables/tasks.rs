//! Individual tasks without work: what the coordinator takes for each, with every outcome stored.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::{Claimed, Job};

use crate::Setting;
use crate::figures::{Samples, print_head, print_row};
use crate::grid::Grid;

/// A way to fetch tasks.
struct Way {
    name: &'static str,
    /// Tasks that are queued.
    tasks: u64,
    /// The tasks that are done while time is taken.
    measured: u64,
    /// Tasks of one request.
    batch: u64,
    /// Workers that fetch, each on a connection of its own.
    workers: u64,
    /// Tasks a second, at least.
    goal: f64,
}

const WAYS: [Way; 2] = [
    Way {
        name: "1000 tasks a request",
        tasks: 1_000_000,
        measured: 1_000_000,
        batch: 1_000,
        workers: 2,
        goal: 250_000.0,
    },
    Way { name: "one task a request", tasks: 100_000, measured: 100_000, batch: 1, workers: 16, goal: 30_000.0 },
];

/// Short tasks with few and with many tasks queued behind them.
const SHORT: Way =
    Way { name: "of 10,000 queued", tasks: 10_000, measured: 10_000, batch: 1, workers: 16, goal: f64::NAN };
const LONG: Way =
    Way { name: "of 10 million queued", tasks: 10_000_000, measured: 10_000, batch: 1, workers: 16, goal: f64::NAN };

/// Between a job's acceptance and its first task.
const SETTLING: Duration = Duration::from_millis(1500);

/// CPU time of the coordinator for one task.
const CPU_GOAL_US: f64 = 10.0;

/// The goal for the share of the throughput that remains with 10 million tasks queued.
const LONG_GOAL: f64 = 0.97;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let columns =
        ["tasks without work, stored", "tasks/s (min–max)", "goal", "met", "coordinator CPU µs/task", "goal", "met"];
    print_head("Individual tasks through one coordinator", &columns)?;
    let grid = Grid::start(&setting.binaries, &[])?;
    for way in &WAYS {
        let (mut rates, mut cpu) = (Samples::default(), Samples::default());
        for _ in 0..setting.rounds {
            let (rate, cpu_us) = measure(&grid, way)?;
            rates.add(rate);
            cpu.add(cpu_us);
        }
        let (rate, cpu_us) = (rates.median(), cpu.median());
        let met = |is_met| if is_met { "yes" } else { "**no**" };
        let goal = format!("≥ {}", way.goal);
        let cells = [
            way.name,
            &rates.spread(0),
            &goal,
            met(rate >= way.goal),
            &cpu.spread(2),
            "≤ 10",
            met(cpu_us <= CPU_GOAL_US),
        ];
        print_row(&cells)?;
    }
    println!();
    print_head("A long queue against a short one", &["rate", "ratio (min–max)", "goal", "met"])?;
    let (mut long, mut short) = (Samples::default(), Samples::default());
    for _ in 0..setting.rounds {
        short.add(measure(&grid, &SHORT)?.0);
        long.add(measure(&grid, &LONG)?.0);
    }
    let ratio = long.ratio(&short);
    let is_met = if ratio.median() >= LONG_GOAL { "yes" } else { "**no**" };
    print_row(&[&format!("{} ÷ {}", LONG.name, SHORT.name), &ratio.spread(3), "≥ 0.97", is_met])?;
    Ok(())
}

/// Tasks a second and µs of the coordinator's CPU for each.
fn measure(grid: &Grid, way: &Way) -> anyhow::Result<(f64, f64)> {
    let mut client = grid.connect()?;
    let payloads = vec!["0"; usize::try_from(way.tasks).context("fewer tasks than memory")?].join(",");
    let body = format!(r#"{{"kind":"tasks","params":{{"list":[{payloads}]}}}}"#);
    let (status, job) = client.post("/v1/jobs", &body)?;
    ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&job));
    let job: Job = serde_json::from_slice(&job).context("read the job")?;
    // The rate leaves out the aftermath of storing the job: the log is copied back when the writer is idle.
    thread::sleep(SETTLING);
    let (cpu_before, started_at) = (grid.cpu()?.coordinator, Instant::now());
    let share = way.measured / way.workers;
    thread::scope(|scope| {
        let work = |number| scope.spawn(move || work(grid, number, way.batch, share));
        let workers: Vec<_> = (0..way.workers).map(work).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let seconds = started_at.elapsed().as_secs_f64();
    let cpu = grid.cpu()?.coordinator - cpu_before;
    let (status, _) = client.post(&format!("/v1/jobs/{}/cancel", job.id), "")?;
    // A job whose tasks are all done is over by itself.
    ensure!(status == 200 || status == 409, "the job cannot be canceled: {status}");
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    let tasks = (share * way.workers) as f64;
    Ok((tasks / seconds, cpu * 1e6 / tasks))
}

/// Fetches and completes `share` tasks, each completion with the next claim.
fn work(grid: &Grid, number: u64, batch: u64, share: u64) -> anyhow::Result<()> {
    let mut connection = grid.connect_internal()?;
    let claim = |tasks: u64| format!(r#"{{"worker_id":"bench-{number}","kinds":["tasks"],"max_tasks":{tasks}}}"#);
    let mut left = share;
    let (mut status, mut answer) = connection.post("/v1/worker/claim", &claim(batch.min(left)))?;
    while left > 0 {
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
        let claimed: Claimed = serde_json::from_slice(&answer).context("read a claim")?;
        left -= (claimed.tasks.len() as u64).min(left);
        let next = if left > 0 { format!(r#"{{"claim":{}}}"#, claim(batch.min(left))) } else { "{}".to_owned() };
        let target = format!("/v1/worker/tasks/{}/complete", claimed.attempt);
        (status, answer) = connection.post(&target, &next)?;
    }
    ensure!(status == 204, "{status}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
