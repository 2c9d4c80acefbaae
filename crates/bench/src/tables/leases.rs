//! Cost of a lease beside its computation: CPU time of the coordinator and its workers less the kernel's for the same
//! numbers, by chunk.
//!
//! A lease carries a millisecond of computing at least, so the chunks are made so small that the wanted number of them
//! takes that long here; the count of leases says what they came to.

use std::time::Instant;

use anyhow::ensure;
use model::{NumberRange, Split};

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::grid::{Grid, WORKERS};
use crate::kernel::{Division, Kernel};

/// The numbers of the leases start here: low, so that finding first multiples makes no lease longer.
const NUMBERS: u64 = 1_000_000_000;

const LEASE_TARGET_MS: &str = "1";

/// Tries at the chunk size that makes leases as long as wanted, and where they begin.
const TRIALS: usize = 3;
const FIRST_CHUNK_SIZE: u32 = 100_000;

/// Jobs in a round.
const JOBS: usize = 3;

/// Requests of one chunk in a round.
const REQUESTS: usize = 500;

/// Chunks that a lease should carry, and what one of them may cost, in µs.
const WORKS: [(f64, f64); 2] = [(400.0, 0.5), (40.0, 2.0)];

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let title = "Leases: CPU time of the coordinator and its workers beyond the kernel's for the same numbers";
    print_head(
        title,
        &["leases of", "µs a lease", "of these in the coordinator", "µs a chunk (min–max)", "goal", "met"],
    )?;
    let kernel = Kernel::start(WORKERS);
    for (chunks, goal) in WORKS {
        long_leases(setting, &kernel, chunks, goal)?;
    }
    single_chunks(setting)
}

fn long_leases(setting: &Setting, kernel: &Kernel, chunks: f64, goal: f64) -> anyhow::Result<()> {
    let range = NumberRange::new(1, NUMBERS)?;
    let (mut grid, chunk_size) = grid_with_leases_of(setting, range, chunks)?;
    let [mut by_chunk, mut by_lease, mut coordinating, mut sizes] = [(); 4].map(|()| Samples::default());
    for _ in 0..setting.rounds {
        let (mut ours, mut coordinator, mut kernels, mut tasks) = (0.0, 0.0, 0.0, 0.0);
        let leases = completed_leases(&mut grid)?;
        for _ in 0..JOBS {
            let before = grid.cpu()?;
            let (answer, _) = grid.sum(range)?;
            let used = grid.cpu()?.since(before);
            let computed = kernel.sum(range, Division::Parts)?;
            ensure!(answer.sum == computed.sum, "the grid answers {}, the kernel {}", answer.sum, computed.sum);
            (ours, coordinator) = (ours + used.total(), coordinator + used.coordinator);
            kernels += computed.cpu_seconds;
            #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
            let of_job = answer.tasks as f64;
            tasks += of_job;
        }
        let leases = completed_leases(&mut grid)? - leases;
        by_chunk.add((ours - kernels) / tasks * 1e6);
        by_lease.add((ours - kernels) / leases * 1e6);
        coordinating.add(coordinator / leases * 1e6);
        sizes.add(tasks / leases);
    }
    let name = format!("{chunks} chunks of {chunk_size} numbers ({:.0} as given out)", sizes.median());
    print_costs(&name, &by_lease, &coordinating, &by_chunk, goal)
}

/// A grid whose leases carry the wanted number of chunks in the mean, and its chunk size: found by trying, since the
/// last leases of a job are shorter.
fn grid_with_leases_of(setting: &Setting, range: NumberRange, chunks: f64) -> anyhow::Result<(Grid, String)> {
    let mut size = f64::from(FIRST_CHUNK_SIZE);
    for _ in 0..TRIALS {
        let mut grid = start(setting, &format!("{size:.0}"))?;
        let (answer, _) = grid.sum(range)?;
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
        let given_out = answer.tasks as f64 / completed_leases(&mut grid)?;
        size = (size * given_out / chunks).max(1.0);
    }
    let size = format!("{size:.0}");
    Ok((start(setting, &size)?, size))
}

fn start(setting: &Setting, chunk_size: &str) -> anyhow::Result<Grid> {
    let settings = [("DIVVY_CHUNK_SIZE", chunk_size), ("DIVVY_LEASE_TARGET_MS", LEASE_TARGET_MS)];
    Grid::start(&setting.binaries, &settings)
}

fn single_chunks(setting: &Setting) -> anyhow::Result<()> {
    let mut grid = Grid::start(&setting.binaries, &[("DIVVY_CHUNK_SIZE", "1")])?;
    let range = NumberRange::new(1_000_000_006, 1_000_000_007)?;
    ensure!(Split::new(range, std::num::NonZeroU64::MIN).tasks() == 1, "a request of one chunk");
    let (mut by_chunk, mut coordinating) = (Samples::default(), Samples::default());
    for _ in 0..setting.rounds {
        let before = grid.cpu()?;
        for _ in 0..REQUESTS {
            grid.sum(range)?;
        }
        let used = grid.cpu()?.since(before);
        let started_at = Instant::now();
        for _ in 0..REQUESTS {
            std::hint::black_box(primes::sum(range.into()));
        }
        let computing = started_at.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let each = 1e6 / REQUESTS as f64;
        by_chunk.add((used.total() - computing) * each);
        coordinating.add(used.coordinator * each);
    }
    print_costs("1 chunk, a request each", &by_chunk, &coordinating, &by_chunk, 60.0)
}

fn print_costs(
    name: &str,
    by_lease: &Samples,
    coordinating: &Samples,
    by_chunk: &Samples,
    goal: f64,
) -> anyhow::Result<()> {
    let [lease, coordinator] = [by_lease, coordinating].map(|samples| format!("{:.0}", samples.median()));
    let verdict = verdict(by_chunk.median(), Some(goal));
    Ok(print_row(&[name, &lease, &coordinator, &by_chunk.spread(2), &verdict])?)
}

fn completed_leases(grid: &mut Grid) -> anyhow::Result<f64> {
    grid.metric(r#"divvy_leases_total{outcome="completed"}"#)
}
