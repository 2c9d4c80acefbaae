//! The largest memory of prefix sums, measured as the peak of a process of its own.

use std::fs;
use std::sync::atomic::AtomicBool;

use primes::{Plan, Prefix, Quantity};

fn peak_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    peak.and_then(|kilobytes| kilobytes.trim().parse().ok()).expect("it tells the peak")
}

#[test]
fn tables_of_one_sum_are_gone_before_those_of_the_next_one_are_made() {
    let mut prefix = Prefix::new();
    let mut first_part = |x| {
        let plan = Plan::new(Quantity::Sum, x);
        prefix.parts(&plan, 0..1, &AtomicBool::new(false)).expect("nothing stops it");
        peak_kilobytes()
    };
    // As of a range between the two: some 40 MB each, and the process besides.
    let one = first_part(1_000_000_000_000_000_000);
    let both = first_part(900_000_000_000_000_000);
    assert!(both < one + one / 2, "{one} kB, then {both} kB");
}
