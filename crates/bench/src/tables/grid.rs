//! From request to answer: the grid against primesieve and against the kernel, all on two threads.

use anyhow::ensure;
use model::NumberRange;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::grid::{Grid, WORKERS};
use crate::kernel::{Division, Kernel};

struct Work {
    name: &'static str,
    a: u64,
    b: u64,
    /// The goal against primesieve's count.
    of_count: Option<f64>,
    /// The goal against the kernel.
    of_kernel: Option<f64>,
}

const fn work(name: &'static str, a: u64, b: u64, of_count: Option<f64>, of_kernel: Option<f64>) -> Work {
    Work { name, a, b, of_count, of_kernel }
}

const WORKS: [Work; 4] = [
    work("[1, 1e9]", 1, 1_000_000_000, None, None),
    work("[1, 1e10]", 1, 10_000_000_000, Some(0.7), Some(1.03)),
    work("[1e12, 1e12 + 1e10]", 1_000_000_000_000, 1_010_000_000_000, Some(0.8), None),
    work("[1e15, 1e15 + 4e9]", 1_000_000_000_000_000, 1_000_004_000_000_000, Some(1.0), None),
];

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let title = format!("Grid, {WORKERS} workers of one slot, all processes of their own, from request to answer");
    print_head(&title, &["sum", "ms", "against", "ms", "ratio (min–max)", "goal", "met"])?;
    let mut grid = Grid::start(&setting.binaries, &[])?;
    let kernel = Kernel::start(WORKERS);
    for Work { name, a, b, of_count, of_kernel } in WORKS {
        let range = NumberRange::new(a, b)?;
        let (mut ours, mut counting, mut computing) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..setting.rounds {
            let (answer, seconds) = grid.sum(range)?;
            ours.add(seconds);
            let computed = kernel.sum(range, Division::Balanced)?;
            ensure!(answer.sum == computed.sum, "the grid answers {}, the kernel {}", answer.sum, computed.sum);
            computing.add(computed.seconds);
            if let Some(primesieve) = &setting.primesieve {
                counting.add(primesieve.seconds(range, WORKERS)?);
            }
        }
        if setting.primesieve.is_some() {
            print_pair(name, &ours, &format!("primesieve's count, {WORKERS} threads"), &counting, of_count)?;
        }
        print_pair(name, &ours, &format!("kernel, {WORKERS} threads"), &computing, of_kernel)?;
    }
    Ok(())
}

fn print_pair(name: &str, ours: &Samples, other: &str, theirs: &Samples, goal: Option<f64>) -> anyhow::Result<()> {
    let [one, another] = [ours, theirs].map(|samples| format!("{:.1}", samples.median() * 1e3));
    let ratio = ours.ratio(theirs);
    let verdict = verdict(ratio.median(), goal);
    Ok(print_row(&[name, &one, other, &another, &ratio.spread(3), &verdict])?)
}
