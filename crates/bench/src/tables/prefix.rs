//! Sums and counts of all primes up to x on two threads, against primesum and primecount on as many.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::ensure;
use primes::Quantity;

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, verdict};
use crate::grid::Grid;
use crate::reference::Reference;

static NEVER: AtomicBool = AtomicBool::new(false);

const THREADS: u32 = 2;

/// The exponent of ten up to which is summed, and what the ratio to primesum should be at most.
const SUMS: [(u32, f64); 4] = [(12, 1.0), (14, 0.9), (16, 0.9), (18, 0.9)];

/// Exponents and goals of counts against primecount.
const COUNTS: [(u32, f64); 4] = [(12, 2.0), (14, 2.0), (16, 2.0), (18, 2.0)];

/// The exponent at which the grid is compared with the kernel, and the goal of the ratio.
const GRID_EXPONENT: u32 = 16;
const GRID_GOAL: f64 = 1.05;

/// From here on each run takes a minute or more, so that one round says enough.
const LONG: u32 = 18;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let title = format!("Prefix sums and counts, {THREADS} threads");
    print_head(&title, &["all primes", "ms", "against", "ms", "ratio (min–max)", "goal", "met"])?;
    for (exponent, goal) in SUMS {
        measure(setting, Quantity::Sum, exponent, ("primesum", setting.primesum.as_ref()), goal)?;
    }
    let mut grid = Grid::start(&setting.binaries, &[])?;
    for (exponent, goal) in SUMS {
        measure_grid(setting, &mut grid, exponent, goal)?;
    }
    for (exponent, goal) in COUNTS {
        measure(setting, Quantity::Count, exponent, ("primecount", setting.primecount.as_ref()), goal)?;
    }
    Ok(())
}

/// The grid of two workers against primesum and against the kernel on as many threads.
fn measure_grid(setting: &Setting, grid: &mut Grid, exponent: u32, goal: f64) -> anyhow::Result<()> {
    let x = 10u64.pow(exponent);
    let [mut ours, mut kernel, mut theirs] = [(); 3].map(|()| Samples::default());
    let rounds = if exponent >= LONG { 1 } else { setting.rounds };
    for _ in 0..rounds {
        let (answer, seconds) = grid.sum_up_to(x)?;
        ours.add(seconds);
        let started_at = Instant::now();
        let sum = primes::up_to(Quantity::Sum, x, THREADS as usize, &NEVER)?;
        kernel.add(started_at.elapsed().as_secs_f64());
        ensure!(answer.sum == sum, "the grid answers {}, the kernel {sum}", answer.sum);
        if let Some(primesum) = &setting.primesum {
            theirs.add(primesum.seconds_up_to(x, THREADS)?);
        }
    }
    let name = format!("sum, up to 1e{exponent}, grid");
    let ms = |samples: &Samples| format!("{:.1}", samples.median() * 1e3);
    let row = |other: &str, samples: &Samples, goal| {
        let ratio = ours.ratio(samples);
        let verdict = verdict(ratio.median(), goal);
        print_row(&[&name, &ms(&ours), other, &ms(samples), &ratio.spread(3), &verdict])
    };
    row("kernel", &kernel, (exponent == GRID_EXPONENT).then_some(GRID_GOAL))?;
    if setting.primesum.is_some() {
        row("primesum", &theirs, Some(goal))?;
    }
    Ok(())
}

fn measure(
    setting: &Setting,
    quantity: Quantity,
    exponent: u32,
    (program, reference): (&str, Option<&Reference>),
    goal: f64,
) -> anyhow::Result<()> {
    let x = 10u64.pow(exponent);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let rounds = if exponent >= LONG { 1 } else { setting.rounds };
    for _ in 0..rounds {
        let started_at = Instant::now();
        black_box(primes::up_to(quantity, x, THREADS as usize, &NEVER)?);
        ours.add(started_at.elapsed().as_secs_f64());
        if let Some(reference) = reference {
            theirs.add(reference.seconds_up_to(x, THREADS)?);
        }
    }
    let name = format!("{}, up to 1e{exponent}", if quantity == Quantity::Sum { "sum" } else { "count" });
    let ms = |samples: &Samples| format!("{:.1}", samples.median() * 1e3);
    if reference.is_none() {
        return Ok(print_row(&[&name, &ms(&ours), "–", "–", "–", "–", "–"])?);
    }
    let ratio = ours.ratio(&theirs);
    let verdict = verdict(ratio.median(), Some(goal));
    Ok(print_row(&[&name, &ms(&ours), program, &ms(&theirs), &ratio.spread(3), &verdict])?)
}
