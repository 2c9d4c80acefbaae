//! Runs simulations: `simulation --seeds 0..1000`, or `simulation --seed 7 --trace`.

mod watchdog;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, ensure};
use clap::Parser;
use simulation::{Run, Violation, run, run_shared};

use crate::watchdog::Watchdog;

/// Runs the engine in a simulated world and checks its invariants.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds from FROM to before TO [default: 0..1000]
    #[arg(long, value_name = "FROM..TO", value_parser = parse_range, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// One seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: Option<u64>,
    /// Several coordinators over one store instead of one coordinator
    #[arg(long)]
    shared: bool,
    /// Prints the trace
    #[arg(long)]
    trace: bool,
    /// Stops a seed after this many steps [default: at its end]
    #[arg(long, value_name = "N", conflicts_with = "shared")]
    until_step: Option<u64>,
    /// Prints the steps of each seed
    #[arg(long)]
    steps: bool,
    /// Seeds that run at the same time
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    jobs: NonZeroUsize,
    /// Goes on after this many failing seeds
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_going: u64,
}

fn parse_range(text: &str) -> anyhow::Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("write FROM..TO, such as 0..1000")?;
    let seeds = from.parse().context("FROM is no whole number")?..to.parse().context("TO is no whole number")?;
    ensure!(!seeds.is_empty(), "FROM must be below TO");
    Ok(seeds)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seeds = args.seed.map_or_else(|| args.seeds.clone().unwrap_or(0..1_000), |seed| seed..seed + 1);
    // A panic is reported with its seed and trace.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let is_shared = args.shared;
    let watchdog = Watchdog::start(move |seed| {
        println!("seed {seed} does not come to its end\n{}", replay(seed, is_shared));
        std::process::exit(1);
    });
    let (next, failed, steps) = (AtomicU64::new(seeds.start), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..args.jobs.get() {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) <= args.keep_going {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = watchdog.watch(seed, || match args.shared {
                        true => run_shared(seed, args.trace),
                        false => run(seed, args.until_step.unwrap_or(u64::MAX), args.trace),
                    });
                    steps.fetch_add(run.steps, Ordering::Relaxed);
                    if args.steps {
                        println!("seed {seed}: {} steps, trace {:016x}", run.steps, run.hash);
                    }
                    failed.fetch_add(u64::from(report(&run, &args)), Ordering::Relaxed);
                }
            });
        }
    });
    let (failed, steps) = (failed.into_inner(), steps.into_inner());
    let count = next.into_inner().min(seeds.end) - seeds.start;
    println!("{count} seeds, {steps} steps, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a failure. Tells whether there was one.
fn report(run: &Run, args: &Args) -> bool {
    let Run { seed, steps, failure, .. } = run;
    let Some(Violation { what, trace }) = failure else { return false };
    let mut text = format!("seed {seed} fails at step {steps}: {what}\n");
    if !args.trace {
        for line in trace.iter().rev().take(60).rev() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    println!("{text}{}\n", replay(*seed, args.shared));
    true
}

fn replay(seed: u64, is_shared: bool) -> String {
    let shared = if is_shared { " --shared" } else { "" };
    format!("replay: cargo run --release -p simulation --{shared} --seed {seed} --trace")
}
