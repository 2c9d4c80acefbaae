//! `cargo run --release -p bench`: what the grid adds to the computation.
//!
//! Every figure is a ratio or a difference of two things measured in turn in one run (A B A B …), as medians: speed
//! drifts on a shared machine, and the two sides of a pair drift together.

mod grid;
mod kernel;
mod pairs;

use std::num::NonZeroUsize;

use clap::Parser;
use protocol::NumberRange;

use crate::grid::Grid;
use crate::kernel::Kernel;
use crate::pairs::Pairs;

/// Workers of the measured grid, one slot each, and threads of the kernel that it is compared with.
const WORKERS: u32 = 2;

/// Single-chunk requests per round.
const REQUESTS: usize = 200;

/// Measures what the grid adds to the computation and prints a table.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds per row, the first of which only warms up
    #[arg(long, default_value = "8")]
    rounds: NonZeroUsize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rounds = Arguments::parse().rounds.get();
    let grid = Grid::start(WORKERS).await?;
    let kernel = Kernel::start(WORKERS);
    println!("{}\n", machine()?);
    println!("| work | grid ms | kernel ms | ratio (min to max) |\n|---|---|---|---|");
    for (name, a, b) in [
        ("[1, 1e9]", 1, 1_000_000_000),
        ("[1, 1e10]", 1, 10_000_000_000),
        ("[1e12, +1e10]", 1_000_000_000_000, 1_010_000_000_000),
        ("[1e15, +1e9]", 1_000_000_000_000_000, 1_000_001_000_000_000),
    ] {
        let range = NumberRange::new(a, b)?;
        let mut pairs = Pairs::new();
        for _ in 0..rounds {
            let (answer, of_grid) = grid.sum(range).await?;
            let (expected, of_kernel) = kernel.sum(range);
            anyhow::ensure!(answer == expected, "the grid answers {answer}, the kernel {expected}");
            pairs.add(of_grid, of_kernel);
        }
        println!("| sum over {name}, {WORKERS} workers, against {WORKERS} threads | {} |", pairs.ratio_cells());
    }
    println!("\n| single-chunk request on an idle grid | p50 µs | p99 µs |\n|---|---|---|");
    for (name, a) in [("at 1", 1), ("at 1e9", 1_000_000_000)] {
        let range = NumberRange::new(a, a + 2_400_000)?;
        let mut beyond = Vec::new();
        for _ in 0..rounds {
            beyond.extend(grid.time_beyond_computation(&kernel, range, REQUESTS).await?);
        }
        println!("| {name}, beyond its computation | {} |", pairs::percentile_cells(&mut beyond));
    }
    grid.stop().await
}

fn machine() -> anyhow::Result<String> {
    let mut system = sysinfo::System::new()?;
    system.refresh_cpu_all();
    let brand = system.cpus().first().map_or("unknown processor", |cpu| cpu.brand()).to_owned();
    Ok(format!("{brand}, {} cores; divvy {}", system.cpus().len(), env!("CARGO_PKG_VERSION")))
}
