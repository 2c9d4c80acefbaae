//! A host without address space or memory for a module. A binary of its own with one test, because the limits are those of the
//! whole process.
#![cfg(feature = "wasm")]

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "wasi/helpers.rs"]
mod helpers;

use helpers::{NOTHING, call, grid, module, reason};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox::Blame;

/// Takes 40 MiB, and traps when it does not get them.
const GROWS: &str = r#"(module (memory (export "memory") 1)
    (func (export "_start") (if (i32.eq (memory.grow (i32.const 640)) (i32.const -1)) (then (unreachable)))))"#;
/// Room for all that the host itself does meanwhile.
const ROOM_BYTES: u64 = 16 << 20;

#[test]
fn a_host_without_memory_for_a_module_is_to_blame_and_runs_the_module_later() {
    let grid = grid();
    // An instance reserves gigabytes of address space at its start; its memory counts as data when it gets it.
    let cases = [(Resource::As, "VmSize:", module(NOTHING)), (Resource::Data, "VmData:", module(GROWS))];
    for (resource, used, program) in cases {
        grid.run(&program, &call(&[])).expect("there is memory");
        let before = getrlimit(resource);
        let current = Some(bytes_of(used) + ROOM_BYTES);
        setrlimit(resource, Rlimit { current, maximum: before.maximum }).expect("lower");
        let outcome = grid.run(&program, &call(&[]));
        setrlimit(resource, before).expect("as before");
        let reason = reason(outcome);
        assert_eq!(reason.blame(), Blame::Worker, "{reason}");
        let told = reason.to_string();
        assert!(told.contains("get memory from this machine") && told.contains("Cannot allocate memory"), "{told}");
        grid.run(&program, &call(&[])).expect("there is memory again");
    }
}

/// A line of `/proc/self/status` in bytes.
fn bytes_of(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("its line");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}
