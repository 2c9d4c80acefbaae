//! Prefix sums and counts against all published values up to an exponent of ten:
//!
//! `cargo run --release -p primes --example published -- 18` takes some minutes.

use std::env;
use std::time::Instant;

const SUMS: &str = include_str!("../tests/data/prime-sums.csv");
const COUNTS: &str = include_str!("../tests/data/prime-counts.csv");

fn main() {
    let exponent = env::args().nth(1).and_then(|exponent| exponent.parse().ok()).unwrap_or(16);
    let last = 10u64.pow(exponent);
    for (name, table) in [("sum", SUMS), ("count", COUNTS)] {
        for line in table.lines().skip(1) {
            let (n, published) = line.split_once(',').expect("two columns");
            let n: u64 = n.parse().expect("a number");
            if n > last {
                continue;
            }
            let started_at = Instant::now();
            let value = if name == "sum" { primes::sum_up_to(n) } else { primes::count_up_to(n).into() };
            assert_eq!(value, published.parse().expect("a value"), "{name} up to {n}");
            println!("{name} up to {n}: {value}, as published, in {:.3} s", started_at.elapsed().as_secs_f64());
        }
    }
}
