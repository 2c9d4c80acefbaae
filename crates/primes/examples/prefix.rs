//! A prefix sum or count on so many threads, or part by part on one thread with what each part takes:
//!
//! `cargo run --release -p primes --example prefix -- sum 1000000000000 2`, or `parts` in place of the 2.

use std::env;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use primes::{Plan, Prefix, Quantity};

static NEVER: AtomicBool = AtomicBool::new(false);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [quantity, x, threads] = &arguments[..] else {
        return println!("sum or count, x, and threads or parts");
    };
    let quantity = if quantity == "sum" { Quantity::Sum } else { Quantity::Count };
    let x = x.parse().expect("a number below 2^64");
    let started_at = Instant::now();
    let value = match threads.parse() {
        Ok(threads) => primes::up_to(quantity, x, threads, &NEVER).expect("nothing stops it"),
        Err(_) => part_by_part(&Plan::new(quantity, x)),
    };
    println!("{value} in {:.3} s", started_at.elapsed().as_secs_f64());
}

fn part_by_part(plan: &Plan) -> u128 {
    let mut prefix = Prefix::new();
    let mut value = 0u128;
    for part in 0..plan.parts() {
        let before = cpu_milliseconds();
        value = value.wrapping_add(prefix.parts(plan, part..part + 1, &NEVER).expect("nothing stops it"));
        let (taken, expected) = (cpu_milliseconds() - before, plan.cost(part..part + 1) / 1e6);
        println!("{taken:10.3} ms, expected {expected:10.3} for {}", plan.describe(part));
    }
    value
}

/// The CPU time of this thread, by the scheduler's account.
fn cpu_milliseconds() -> f64 {
    // Otherwise the account is as old as the last tick.
    std::thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps an account of threads");
    let time = account.split_whitespace().next().expect("three numbers");
    time.parse::<u64>().expect("the time on the CPU in nanoseconds") as f64 / 1e6
}
