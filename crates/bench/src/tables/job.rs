//! A job of 50 million tasks: the memory that it takes and the time until it is there.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::ensure;
use model::{DEFAULT_CHUNK_SIZE, NumberRange};

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::grid::{Grid, target};

const TASKS: u32 = 50_000_000;
const FIRST: u64 = 1_000_000_000_000_000_000;

/// Tasks that are leased at most before the queue is measured.
const MOST_GIVEN_OUT: u32 = 100_000;

/// Running time of a job before its memory is measured.
const RUNNING: Duration = Duration::from_millis(500);

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    print_head("A job of 50 million tasks", &["of the coordinator", "median (min–max)", "goal", "met"])?;
    let mut grid = Grid::start(&setting.binaries, &[])?;
    let last = FIRST + (DEFAULT_CHUNK_SIZE.get() + 1) * u64::from(TASKS) - 1;
    let request = target(NumberRange::new(FIRST, last)?);
    let (mut submitting, mut memory) = (Samples::default(), Samples::default());
    for _ in 0..setting.rounds {
        let idle = grid.memory()?;
        let mut client = grid.connect()?;
        let started_at = Instant::now();
        client.send(&request)?;
        wait_for_queue(&mut grid, |waiting| waiting > f64::from(TASKS - MOST_GIVEN_OUT))?;
        submitting.add(started_at.elapsed().as_secs_f64() * 1e3);
        sleep(RUNNING);
        memory.add((grid.memory()? - idle) / 1e6);
        drop(client);
        wait_for_queue(&mut grid, |waiting| waiting == 0.0)?;
    }
    let row = |name: &str, samples: &Samples, goal| {
        print_row(&[name, &samples.spread(2), &verdict(samples.median(), Some(goal))])
    };
    row("memory above idle, MB", &memory, 1.0)?;
    Ok(row("from the request until its metrics show the tasks, ms", &submitting, 1.0)?)
}

fn wait_for_queue(grid: &mut Grid, is_as_wanted: impl Fn(f64) -> bool) -> anyhow::Result<()> {
    let started_at = Instant::now();
    while !is_as_wanted(grid.metric("divvy_queue_depth_tasks")?) {
        ensure!(started_at.elapsed() < PATIENCE, "the queue does not show the job");
    }
    Ok(())
}
