//! Some hundred seeds without a violation, and the same run for the same seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use simulation::{Run, run, run_shared};

const SEEDS: u64 = 300;

#[test]
fn every_invariant_holds_for_the_first_seeds() {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < SEEDS
                {
                    if let Some(failure) = run(seed, u64::MAX, false).failure {
                        eprintln!("seed {seed}: {}\n{}", failure.what, failure.trace.join("\n"));
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, u64::MAX, "replay: cargo run --release -p simulation -- --seed {failed} --trace");
}

#[test]
fn every_invariant_holds_for_the_first_seeds_of_several_coordinators() {
    for seed in 0..SEEDS {
        if let Some(failure) = run_shared(seed, false).failure {
            let trace = failure.trace.join("\n");
            panic!("seed {seed}: {}\n{trace}\nreplay: simulation --shared --seed {seed} --trace", failure.what);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [2, 43, 131] {
        let shown = |Run { steps, hash, .. }| (steps, hash);
        assert_eq!(shown(run(seed, u64::MAX, false)), shown(run(seed, u64::MAX, false)), "seed {seed}");
        assert_eq!(shown(run_shared(seed, false)), shown(run_shared(seed, false)), "shared seed {seed}");
    }
}
