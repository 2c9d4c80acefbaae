//! Requests of one chunk, one after the other: their time beyond the computation.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use model::NumberRange;
use primes::{Sieve, Stopped};

use crate::Setting;
use crate::figures::{Samples, print_head, print_row, quantile, verdict};
use crate::grid::Grid;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Requests in a round.
const REQUESTS: usize = 200;

const NUMBERS: u64 = 2_400_000;

pub(crate) fn print(setting: &Setting) -> anyhow::Result<()> {
    let columns = ["request for", "computation µs", "figure", "µs beyond it (min–max)", "goal", "met"];
    print_head("A request of one chunk on an idle grid", &columns)?;
    let mut grid = Grid::start(&setting.binaries, &[])?;
    let mut sieve = Sieve::new();
    for (name, first) in [("2.4e6 numbers at 1", 1), ("2.4e6 numbers at 1e9", 1_000_000_000)] {
        let range = NumberRange::new(first, first + NUMBERS)?;
        let [mut computing, mut medians, mut tails] = [(); 3].map(|()| Samples::default());
        for _ in 0..setting.rounds {
            let computed = (0..REQUESTS).map(|_| seconds_to_compute(&mut sieve, range));
            let computation = quantile(&mut computed.collect::<Result<Vec<_>, _>>()?, 0.5);
            let requests = (0..REQUESTS).map(|_| Ok((grid.sum(range)?.1 - computation) * 1e6));
            let mut beyond = requests.collect::<anyhow::Result<Vec<_>>>()?;
            computing.add(computation * 1e6);
            medians.add(quantile(&mut beyond, 0.5));
            tails.add(quantile(&mut beyond, 0.99));
        }
        let computation = format!("{:.0}", computing.median());
        for (figure, samples, goal) in [("p50", medians, 300.0), ("p99", tails, 1000.0)] {
            let verdict = verdict(samples.median(), Some(goal));
            print_row(&[name, &computation, figure, &samples.spread(0), &verdict])?;
        }
    }
    Ok(())
}

/// Computes without a handover to another thread, which is part of a request's time beyond its computation.
fn seconds_to_compute(sieve: &mut Sieve, range: NumberRange) -> Result<f64, Stopped> {
    let started_at = Instant::now();
    black_box(sieve.sum(range.into(), &NEVER)?);
    Ok(started_at.elapsed().as_secs_f64())
}
