//! The memory of a slot, as the system accounts it to a process of its own.

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::{env, fs};

use model::JobKind;
use serde_json::value::RawValue;
use workloads::Executors;

/// A range so far out and so long that a sieve of it takes some 190 MB.
const FAR: &str = r#"{"a":1000000000000000000,"b":1000000000999999999,"horizon":1000000000999999999}"#;

/// A part of a count that takes a few megabytes.
const PART: &str = r#"{"x":100000000,"first":0,"beyond":1,"plan":1}"#;

const NAP: &str = r#"{"seconds":0.0,"fail_rate":0.0}"#;

/// Much less than that sieve takes, and much more than the process takes besides.
const LARGE_KILOBYTES: u64 = 80 << 10;

/// More than one such sieve takes with the holes that it leaves, and less than two take.
const MOST_KILOBYTES: u64 = 320 << 10;

/// From this size on glibc gives a block back to the system as soon as it is free. By itself glibc raises the size with each such
/// block, up to 32 MiB, and keeps most of a sieve's memory for the next computation of the thread.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

fn run(slot: &mut Executors, kind: JobKind, work: &str) -> Option<u128> {
    let work = RawValue::from_string(work.to_owned()).expect("JSON");
    slot.run(kind, &work, &(0..1), &AtomicBool::new(false)).expect("computed").value
}

/// A figure of the process in kilobytes.
fn kilobytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let figure = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
    figure.and_then(|kilobytes| kilobytes.trim().parse().ok()).expect("it tells the memory")
}

#[test]
fn slot_gives_the_memory_of_a_far_sieve_back_before_parts_and_before_another_large_kind() {
    let (name, value) = MMAP_THRESHOLD;
    if env::var_os(name).is_none() {
        let this = env::current_exe().expect("the path of this test");
        let output = Command::new(this).env(name, value).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let mut slot = Executors::default();
    assert_eq!(run(&mut slot, JobKind::COUNT_PRIMES, FAR), Some(24_127_085), "as primesieve counts");
    // A kind that takes little memory leaves the sieve as it is: a new start costs a tenth of a second.
    run(&mut slot, JobKind::SLEEP, NAP);
    let full = kilobytes("VmRSS:");
    run(&mut slot, JobKind::COUNT_PRIMES, PART);
    let left = kilobytes("VmRSS:");
    assert!(full > LARGE_KILOBYTES && left < LARGE_KILOBYTES, "{left} kB of {full} kB");
    run(&mut slot, JobKind::COUNT_PRIMES, FAR);
    run(&mut slot, JobKind::SUM_OF_PRIMES, FAR);
    let peak = kilobytes("VmHWM:");
    assert!(peak < MOST_KILOBYTES, "{peak} kB");
}
