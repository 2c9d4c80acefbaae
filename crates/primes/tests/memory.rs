//! The largest memory of a sieve, measured as the peak of a process of its own.

use std::fs;
use std::sync::atomic::AtomicBool;

use primes::Sieve;

/// The bound of a slot: 256 MiB.
const MOST_KILOBYTES: u64 = 256 << 10;

#[test]
fn long_range_before_the_last_number_takes_less_than_256_mebibytes() {
    const FIRST: u64 = 18_446_744_072_709_551_615;
    let count = Sieve::new().count(FIRST..=FIRST + 999_999_999, &AtomicBool::new(false));
    assert_eq!(count, Ok(22_537_866), "as primesieve counts");
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    let peak: u64 = peak.and_then(|kilobytes| kilobytes.trim().parse().ok()).expect("it tells the peak");
    assert!(peak < MOST_KILOBYTES, "{peak} kB");
}
