//! The time of a walk in steps against that of its whole range in one call, as CPU time of the one thread.
//!
//! `cargo bench -p primes --bench walk` prints a table of ratios: medians over interleaved rounds (`ROUNDS`, 7 if not
//! set), each with a sieve that has its base primes already. Linux only, for the scheduler's account of the thread.

use std::env;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

use primes::{Level, Sieve};

static NEVER: AtomicBool = AtomicBool::new(false);

/// The numbers of a chunk, and the chunks of a walk.
const CHUNK: u64 = 2_500_001;
const CHUNKS: u64 = 400;

const STARTS: [u64; 4] = [1_000_000_000, 100_000_000_000, 1_000_000_000_000, 1_000_000_000_000_000];
const PIECES: [u64; 6] = [1, 4, 16, 40, 100, 400];

fn main() {
    let is_benchmark = env::args().any(|argument| argument == "--bench");
    if !is_benchmark {
        return println!("nothing is measured outside cargo bench");
    }
    let rounds = env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
    println!("level {:?}, {rounds} rounds, ratios to the whole for pieces of so many chunks", Level::best());
    print!("{:>8} {:>9}", "start", "whole ms");
    PIECES.iter().for_each(|chunks| print!(" {chunks:>7}"));
    println!("   alone, 16");
    for start in STARTS {
        measure(start, rounds);
    }
}

fn measure(start: u64, rounds: usize) {
    let whole = start..=start + CHUNK * CHUNKS - 1;
    let mut sieve = Sieve::new();
    let expected = sieve.sum(whole.clone(), &NEVER).expect("nothing stops it");
    let mut wholes = Vec::new();
    let mut ratios = vec![Vec::new(); PIECES.len() + 1];
    for _ in 0..rounds {
        let mut ratio_to_whole = |work: &mut dyn FnMut(&mut Sieve) -> u128| {
            let time = milliseconds(|| assert_eq!(work(&mut sieve), expected));
            let whole = milliseconds(|| assert_eq!(sieve.sum(whole.clone(), &NEVER), Ok(expected)));
            wholes.push(whole);
            time / whole
        };
        for (ratios, chunks) in ratios.iter_mut().zip(PIECES) {
            let end = *whole.end();
            ratios.push(ratio_to_whole(&mut |sieve| {
                pieces(&whole, chunks)
                    .map(|piece| sieve.sum_towards(piece, end, &NEVER).expect("nothing stops it"))
                    .sum()
            }));
        }
        ratios[PIECES.len()].push(ratio_to_whole(&mut |sieve| {
            pieces(&whole, 16).map(|piece| sieve.sum(piece, &NEVER).expect("nothing stops it")).sum()
        }));
    }
    print!("{start:>8.0e} {:>9.1}", median(&mut wholes));
    ratios.iter_mut().for_each(|ratios| print!(" {:>7.4}", median(ratios)));
    println!();
}

fn pieces(whole: &RangeInclusive<u64>, chunks: u64) -> impl Iterator<Item = RangeInclusive<u64>> {
    let len = chunks * CHUNK;
    whole.clone().step_by(len as usize).map(move |first| first..=first + len - 1)
}

/// The CPU time of this thread for one call.
fn milliseconds(work: impl FnOnce()) -> f64 {
    let before = cpu_nanoseconds();
    work();
    (cpu_nanoseconds() - before) as f64 / 1e6
}

fn cpu_nanoseconds() -> u64 {
    // Otherwise the account is as old as the last tick.
    std::thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps an account of threads");
    let time = account.split_whitespace().next().expect("three numbers");
    time.parse().expect("the time on the CPU in nanoseconds")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
