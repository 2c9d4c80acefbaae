//! The sum over a range on one thread, with its CPU time: `cargo run --release -p primes --example range -- 1 1000000000`.
//!
//! A third argument is the level of instructions: 0, 1 or 2.

use std::env;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use primes::{Level, Sieve};

static NEVER: AtomicBool = AtomicBool::new(false);

fn main() {
    let arguments: Vec<u64> = env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (Some(&first), Some(&last)) = (arguments.first(), arguments.get(1)) else {
        return println!("first and last number");
    };
    let level = arguments.get(2).map_or(Level::best(), |&level| Level::ALL[level as usize]);
    let started_at = Instant::now();
    let mut sieve = Sieve::with_level(level);
    let sum = sieve.sum(first..=last, &NEVER).expect("nothing stops it");
    println!("{sum} in {:.1} ms", started_at.elapsed().as_secs_f64() * 1e3);
    let count = sieve.count(first..=last, &NEVER).expect("nothing stops it");
    println!("{count} primes");
}
