use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandbox::{Blame, Reason};

use crate::helpers::{
    SLACK, call, component, grid, in_time, limits, module, program, reason, text, with_limits, writer,
};

const SHORT: Duration = Duration::from_millis(300);
const ENDLESS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;
const ASLEEP: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    ;; One subscription: the monotonic clock, in 10^15 ns.
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 1000000000000000))
    (drop (call $poll (i32.const 0) (i32.const 200) (i32.const 1) (i32.const 300)))))"#;

#[test]
fn an_endless_loop_ends_at_its_time_limit() {
    let grid = grid();
    let call = with_limits(|limits| limits.wall_time = SHORT);
    for endless in [ENDLESS, ASLEEP] {
        let bytes = wat::parse_str(endless).expect("WAT");
        for program in [program(component(&bytes)), program(bytes)] {
            let failure = grid.hostile(&program, &call).expect_err("endless");
            assert_eq!(failure.reason, Reason::TimeLimit { limit: SHORT });
            assert_eq!(failure.reason.blame(), Blame::Program);
            assert!(failure.usage.wall_time >= SHORT);
        }
    }
}

#[test]
fn a_function_that_runs_before_the_entry_has_the_same_bounds() {
    let grid = grid();
    let starts = |body: &str| {
        let wat = r#"(module (memory (export "memory") 1) (start $first) (func $first BODY) (func (export "_start")))"#;
        module(&wat.replace("BODY", body))
    };
    let short = with_limits(|limits| limits.wall_time = SHORT);
    let failure = grid.hostile(&starts("(loop $again (br $again))"), &short).expect_err("endless");
    assert_eq!(failure.reason, Reason::TimeLimit { limit: SHORT });
    let Reason::Trap { message } = reason(grid.hostile(&starts("unreachable"), &call(&[]))) else { panic!("no trap") };
    assert!(message.contains("unreachable"), "{message}");
}

#[test]
fn a_stopped_program_ends_whether_it_computes_or_sleeps() {
    let grid = grid();
    for endless in [ENDLESS, ASLEEP] {
        let program = module(endless);
        grid.sandbox.prepare(&program, &AtomicBool::new(false)).expect("compiled");
        let outcome = in_time(SLACK, || {
            let stop = AtomicBool::new(false);
            std::thread::scope(|threads| {
                let running = threads.spawn(|| grid.sandbox.run(&program, &call(&[]), &stop, &mut |_| {}));
                let stopped_at = Instant::now();
                stop.store(true, Ordering::Relaxed);
                (running.join().expect("no panic"), stopped_at.elapsed())
            })
        });
        assert_eq!(reason(outcome), Reason::Canceled);
    }
}

#[test]
fn a_program_is_stopped_in_the_middle_of_a_long_write() {
    let grid = grid();
    let writes = writer(
        "(func (export \"_start\")
          (drop (call $write (i32.const 2) (i32.const 1)))
          (drop (call $write (i32.const 1) (i32.const 1900000))))",
    );
    let (call, stop) = (with_limits(|limits| limits.output_bytes = 4 << 20), AtomicBool::new(false));
    // The host takes stderr when the guest waits: once it has written a part.
    let mut on_stderr = |_: &[u8]| stop.store(true, Ordering::Relaxed);
    assert_eq!(reason(grid.sandbox.run(&module(&writes), &call, &stop, &mut on_stderr)), Reason::Canceled);
}

#[test]
fn memory_has_a_bound_at_the_start_and_later() {
    let grid = grid();
    let limit = Reason::MemoryLimit { limit: limits().memory_bytes };
    let grows = r#"(module (memory (export "memory") 1)
        (func (export "_start") (loop $again (drop (memory.grow (i32.const 16))) (br $again))))"#;
    let starts_large = r#"(module (memory (export "memory") 2000) (func (export "_start")))"#;
    let table = r#"(module (memory (export "memory") 1) (table 10 funcref)
        (func (export "_start") (loop $again (drop (table.grow (ref.null func) (i32.const 65536))) (br $again))))"#;
    // The engine tells of a failure that it has not asked about: the sum is more than 64 bits hold.
    let fails_between = r#"(module (memory (export "memory") 1) (table i64 1 funcref)
        (func (export "_start") (loop $again
          (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
          (drop (table.grow (ref.null func) (i64.const -1)))
          (br $again))))"#;
    let several = r#"(module (memory (export "memory") 600) (memory 600) (func (export "_start")))"#;
    let wide = r#"(module (memory (export "memory") i64 1)
        (func (export "_start") (loop $again (drop (memory.grow (i64.const 16))) (br $again))))"#;
    for hostile in [grows, starts_large, table, fails_between, several, wide] {
        let failure = grid.hostile(&module(hostile), &call(&[])).expect_err("too much");
        assert_eq!(failure.reason, limit);
        assert!(failure.usage.peak_memory_bytes <= limits().memory_bytes);
    }
    let fits = r#"(module (memory (export "memory") 1)
        (func (export "_start") (if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then (unreachable)))))"#;
    assert_eq!(grid.hostile(&module(fits), &call(&[])).expect("fits").usage.peak_memory_bytes, 1001 << 16);
}

#[test]
fn waiting_for_many_things_takes_no_memory_of_the_host_beyond_the_limit() {
    let grid = grid();
    // Each subscription is 48 zeros, which is a timer that is due.
    let waits = |subscriptions: u32| {
        module(&format!(
            r#"(module
              (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
              (memory (export "memory") 8)
              (func (export "_start")
                (if (call $poll (i32.const 0) (i32.const 200000) (i32.const {subscriptions}) (i32.const 300000))
                  (then (unreachable)))))"#
        ))
    };
    grid.hostile(&waits(100), &call(&[])).expect("some are allowed");
    let Reason::Trap { message } = reason(grid.hostile(&waits(2000), &call(&[]))) else { panic!("no trap") };
    assert!(!message.contains("unreachable"), "{message}");
}

#[test]
fn a_modules_own_bound_on_its_memory_is_no_limit_of_the_sandbox() {
    let grid = grid();
    let asks = r#"(module (memory (export "memory") 1 2)
        (func (export "_start") (if (i32.ne (memory.grow (i32.const 5)) (i32.const -1)) (then (unreachable)))))"#;
    grid.hostile(&module(asks), &call(&[])).expect("it was told no");
}

#[test]
fn output_of_exactly_the_limit_is_a_result_and_a_byte_more_is_not() {
    let grid = grid();
    for limit in [0, 1, 4095, 4096, 4097, 300_000] {
        let call = with_limits(|limits| limits.output_bytes = limit);
        // It ignores what the write says, as careless programs do.
        let writes = |bytes: u64| {
            module(&writer(&format!(
                "(func (export \"_start\") (drop (call $write (i32.const 1) (i32.const {bytes}))))"
            )))
        };
        assert_eq!(grid.hostile(&writes(limit), &call).expect("fits").stdout.len() as u64, limit);
        assert_eq!(reason(grid.hostile(&writes(limit + 1), &call)), Reason::OutputLimit { limit });
        if limit > 0 {
            assert_eq!(grid.hostile(&writes(limit - 1), &call).expect("fits").stdout.len() as u64, limit - 1);
        }
    }
}

#[test]
fn a_guest_that_ignores_failed_writes_does_not_succeed_truncated() {
    let grid = grid();
    let flood = "(func (export \"_start\") (local $n i32)
        (loop $again
          (drop (call $write (i32.const 1) (i32.const 65536)))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $n) (i32.const 1000)))))";
    let bytes = wat::parse_str(writer(flood)).expect("WAT");
    for program in [program(component(&bytes)), program(bytes)] {
        assert_eq!(reason(grid.hostile(&program, &call(&[]))), Reason::OutputLimit { limit: limits().output_bytes });
    }
}

#[test]
fn a_flood_of_stderr_takes_no_memory_and_its_end_is_kept() {
    let grid = grid();
    let flood = writer(
        "(data (i32.const 65530) \"abcdef\")
         (func (export \"_start\") (local $n i32)
          (loop $again
            (drop (call $write (i32.const 2) (i32.const 65536)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $n) (i32.const 100)))))",
    );
    let (mut seen, mut largest) = (0, 0);
    let stop = AtomicBool::new(false);
    let finished = grid.sandbox.run(&module(&flood), &call(&[]), &stop, &mut |chunk| {
        seen += chunk.len();
        largest = largest.max(chunk.len());
    });
    let tail = finished.expect("finished").stderr_tail;
    assert_eq!((seen, tail.len()), (100 << 16, sandbox::STDERR_TAIL_BYTES));
    assert!(tail.ends_with(b"abcdef") && largest <= 64 << 10, "{largest}");
}

#[test]
fn recursion_without_end_is_a_trap_that_names_its_function() {
    let grid = grid();
    let recursive = r#"(module (memory (export "memory") 1)
        (func $deeper (param i32) (result i32) (i32.add (i32.const 1) (call $deeper (local.get 0))))
        (func (export "_start") (drop (call $deeper (i32.const 0)))))"#;
    let Reason::Trap { message } = reason(grid.hostile(&module(recursive), &call(&[]))) else { panic!("no trap") };
    assert!(message.contains("stack") && message.contains("deeper"), "{message}");
}

#[test]
fn a_trap_tells_what_it_was() {
    let grid = grid();
    let traps = [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
    ];
    for (code, said) in traps {
        let wat = format!("(module (memory (export \"memory\") 1) (func $main (export \"_start\") {code}))");
        let Reason::Trap { message } = reason(grid.hostile(&module(&wat), &call(&[]))) else { panic!("no trap") };
        assert!(message.contains(said) && message.contains("main"), "{message}");
    }
}

#[test]
fn an_exit_code_comes_with_the_end_of_stderr() {
    let grid = grid();
    let leaves = writer(
        "(data (i32.const 0) \"leaving\")
         (func (export \"_start\") (drop (call $write (i32.const 2) (i32.const 7))) (call $exit (i32.const 7)))",
    );
    let failure = grid.hostile(&module(&leaves), &call(&[])).expect_err("failed");
    assert_eq!(failure.reason, Reason::Exit { code: 7 });
    assert_eq!(failure.to_string(), "it exited with code 7; the end of its stderr: leaving");
    let exits = |code: i32| module(&writer(&format!("(func (export \"_start\") (call $exit (i32.const {code})))")));
    for code in [1, 125] {
        assert_eq!(reason(grid.hostile(&exits(code), &call(&[]))), Reason::Exit { code });
    }
    for unknown_to_wasi in [126, 255, 256, -1] {
        assert_eq!(reason(grid.hostile(&exits(unknown_to_wasi), &call(&[]))), Reason::ExitUnknown);
    }
    let leaves_well = writer("(func (export \"_start\") (call $exit (i32.const 0)))");
    assert_eq!(text(&grid.hostile(&module(&leaves_well), &call(&[])).expect("finished").stdout), "");
}
