//! CPU time of all processes of the grid, against the kernel's in one part per thread and against the best of some
//! lease targets chosen by hand.

use anyhow::ensure;
use model::NumberRange;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::grid::{Grid, WORKERS};
use crate::kernel::{Division, Kernel};

/// The values of `DIVVY_LEASE_TARGET_MS` that are measured.
const LEASE_TARGETS_MS: [&str; 3] = ["30", "300", "1000"];

const GOAL: f64 = 1.03;

/// Name, first number and size of each range, which takes a second of CPU time at least.
const WORKS: [(&str, u64, u64); 4] = [
    ("[1e9, +2e10]", 1_000_000_000, 20_000_000_000),
    ("[1e11, +2e10]", 100_000_000_000, 20_000_000_000),
    ("[1e12, +1.5e10]", 1_000_000_000_000, 15_000_000_000),
    ("[1e15, +6e9]", 1_000_000_000_000_000, 6_000_000_000),
];

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let title = "CPU time, user and system, of the coordinator and its workers together";
    print_head(title, &["sum", "CPU ms", "against", "CPU ms", "ratio (min–max)", "goal", "met"])?;
    let kernel = Kernel::start(WORKERS);
    let mut default = Grid::start(&setting.binaries, &[])?;
    let mut chosen = Vec::new();
    for target in LEASE_TARGETS_MS {
        chosen.push((target, Grid::start(&setting.binaries, &[("DIVVY_LEASE_TARGET_MS", target)])?));
    }
    for (name, first, numbers) in WORKS {
        let range = NumberRange::new(first, first + numbers)?;
        let (mut ours, mut computing) = (Samples::default(), Samples::default());
        let mut by_target = LEASE_TARGETS_MS.map(|_| Samples::default());
        for _ in 0..setting.rounds {
            let computed = kernel.sum(range, Division::Parts)?;
            computing.add(computed.cpu_seconds);
            ours.add(cpu_seconds(&mut default, range, computed.sum)?);
            for ((_, grid), samples) in chosen.iter_mut().zip(&mut by_target) {
                samples.add(cpu_seconds(grid, range, computed.sum)?);
            }
        }
        print_pair(name, &ours, "kernel, half each", &computing)?;
        let best =
            LEASE_TARGETS_MS.iter().zip(&by_target).min_by(|one, other| one.1.median().total_cmp(&other.1.median()));
        if let Some((target, samples)) = best {
            print_pair(
                name,
                &ours,
                &format!("leases of {target} ms, the best of {}", LEASE_TARGETS_MS.join(", ")),
                samples,
            )?;
        }
    }
    Ok(())
}

fn cpu_seconds(grid: &mut Grid, range: NumberRange, expected: u128) -> anyhow::Result<f64> {
    let before = grid.cpu()?;
    let (answer, _) = grid.sum(range)?;
    ensure!(answer.sum == expected, "the grid answers {}, the kernel {expected}", answer.sum);
    Ok(grid.cpu()?.since(before).total())
}

fn print_pair(name: &str, ours: &Samples, other: &str, theirs: &Samples) -> anyhow::Result<()> {
    let [one, another] = [ours, theirs].map(|samples| format!("{:.0}", samples.median() * 1e3));
    let ratio = ours.ratio(theirs);
    Ok(print_row(&[name, &one, other, &another, &ratio.spread(3), &verdict(ratio.median(), Some(GOAL))])?)
}
