//! Descriptors, threads and processes of the host after many hostile calls. A binary of its own with one test, because
//! other tests of a process would be counted.

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "native/helpers.rs"]
mod helpers;

use std::time::Duration;

use helpers::{Grid, call, grid, with_limits};
use sandbox::{LocalProgram, ProgramHash, Source};

/// The numbers of descriptors, threads and children of the process.
fn held() -> [usize; 3] {
    let count = |path: &str| std::fs::read_dir(path).expect("/proc").count();
    [count("/proc/self/fd"), count("/proc/self/task"), children()]
}

fn children() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.map(|list| list.split_whitespace().count()).sum()
}

fn hostile_round(grid: &Grid) {
    let short = |mode: &str| with_limits(&[mode, "1"], |limits| limits.wall_time = Duration::from_millis(100));
    let calls = [
        short("loop"),
        short("orphan in a session"),
        call(&["fork"]),
        call(&["memory", "1000000000"]),
        call(&["write", "1000000000"]),
        call(&["fill with nameless files", "12000000"]),
        call(&["recurse"]),
        call(&["exit", "1"]),
    ];
    for call in calls {
        grid.hostile(&call).expect_err("hostile");
    }
    let gone = LocalProgram::Wasm { sha256: ProgramHash::of(b"x"), source: Source::Bytes(b"y".to_vec().into()) };
    grid.run(&gone, &call(&[])).expect_err("another hash");
    #[cfg(feature = "wasm")]
    for wat in [
        r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#,
        r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#,
        "(module)",
    ] {
        let bytes = wat::parse_str(wat).expect("WAT");
        let program = LocalProgram::Wasm { sha256: ProgramHash::of(&bytes), source: Source::Bytes(bytes.into()) };
        grid.run(&program, &short("")).expect_err("hostile");
    }
}

#[test]
fn nothing_is_left_of_many_hostile_calls_and_of_the_sandbox_itself() {
    let first = held();
    let hosting = grid();
    hostile_round(&hosting);
    let warm = held();
    for _ in 0..5 {
        hostile_round(&hosting);
    }
    // The kernel lists a thread that was joined until it has let it go.
    let is_no_more = || held().iter().zip(&warm).all(|(now, warm)| now <= warm);
    helpers::wait_until("no more descriptors, threads and children than after a round", is_no_more);
    let directory = hosting.directory.clone();
    drop(hosting);
    // The thread of the epochs ends some seconds later.
    helpers::wait_until("the end of all that the sandbox had", || held() == first);
    assert!(!directory.exists());
}
