//! The kernel on a few ranges.
use std::time::Instant;
fn main() {
    for a in [
        (1u64, 1_000_000_000u64),
        (1_000_000_000_000, 1_000_000_000),
        (1_000_000_000_000_000, 2_500_000),
        (1_000_000_000_000_000_000, 2_500_000),
    ] {
        for _ in 0..3 {
            let t = Instant::now();
            let s = primes::sum(a.0..=a.0 + a.1);
            println!("{a:?} {s} {:?}", t.elapsed());
        }
    }
}
