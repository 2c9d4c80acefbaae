use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox::{Blame, Call, Input, Reason};

use crate::helpers::{call, grid, hostile_program, limits, reason, text, with_limits};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_program_returns_what_it_wrote_with_what_it_took() {
    let grid = grid();
    let finished = grid.hostile(&call(&["write", "100000"])).expect("finished");
    assert_eq!(finished.stdout, vec![b'x'; 100_000]);
    assert!(finished.usage.wall_time > Duration::ZERO);
}

#[test]
fn an_endless_loop_ends_at_its_time_limit_and_its_cpu_time_is_told() {
    let grid = grid();
    let failure = grid.hostile(&with_limits(&["loop"], |limits| limits.wall_time = SHORT)).expect_err("endless");
    assert_eq!(failure.reason, Reason::TimeLimit { limit: SHORT });
    assert_eq!(failure.reason.blame(), Blame::Program);
    assert!(failure.usage.cpu_time > Duration::ZERO, "{:?}", failure.usage);
    assert!(failure.usage.cpu_time <= 2 * failure.usage.wall_time, "{:?}", failure.usage);
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_its_grace() {
    let grid = grid();
    let call = with_limits(&["ignore SIGTERM"], |limits| limits.wall_time = SHORT);
    let failure = grid.hostile(&call).expect_err("endless");
    assert_eq!(failure.reason, Reason::TimeLimit { limit: SHORT });
    assert!(failure.usage.wall_time >= SHORT + limits().grace, "{:?}", failure.usage);
}

#[test]
fn a_program_may_use_its_grace_and_its_last_words_are_kept() {
    let grid = grid();
    // It has to be ready by then, also on a busy machine.
    let limit = Duration::from_secs(3);
    let call = with_limits(&["end at SIGTERM"], |limits| {
        limits.wall_time = limit;
        limits.grace = Duration::from_secs(20);
    });
    let failure = grid.run(&crate::helpers::hostile_program(), &call).expect_err("too late");
    assert_eq!(failure.reason, Reason::TimeLimit { limit });
    assert_eq!(text(&failure.stderr_tail), "ready\nended cleanly\n");
    assert!(failure.usage.wall_time < call.limits.grace, "it was not waited for longer than it took");
}

#[test]
fn memory_of_one_process_has_a_bound() {
    let grid = grid();
    let failure = grid.hostile(&call(&["memory", "100000000000"])).expect_err("too much");
    assert_eq!(failure.reason, Reason::MemoryLimit { limit: limits().memory_bytes });
    assert!(failure.usage.peak_memory_bytes > limits().memory_bytes);
}

#[test]
fn memory_within_the_limit_is_granted() {
    let grid = grid();
    grid.hostile(&call(&["memory", "40000000"])).expect("finished");
}

#[test]
fn memory_of_several_processes_is_added_up() {
    let grid = grid();
    let call = call(&["memory of many", "20000000"]);
    assert_eq!(reason(grid.hostile(&call)), Reason::MemoryLimit { limit: limits().memory_bytes });
}

#[test]
fn memory_that_processes_share_after_a_fork_is_counted_once() {
    let grid = grid();
    grid.hostile(&call(&["memory shared by many", "40000000"])).expect("finished");
}

#[test]
fn memory_that_a_process_shares_with_its_child_of_vfork_is_counted_once() {
    let grid = grid();
    grid.hostile(&call(&["memory shared with a child of vfork", "40000000"])).expect("finished");
    let separate = call(&["memory of a child that is waited for", "40000000"]);
    assert_eq!(reason(grid.hostile(&separate)), Reason::MemoryLimit { limit: limits().memory_bytes });
}

#[test]
fn memory_that_mappings_locks_and_watches_take_in_the_kernel_is_counted() {
    let grid = grid();
    for (mode, number) in
        [("memory in mappings", "60000"), ("memory in locks", "20000"), ("memory in watches", "20000")]
    {
        let call = with_limits(&[mode, number], |limits| limits.memory_bytes = 32 << 20);
        assert_eq!(reason(grid.hostile(&call)), Reason::MemoryLimit { limit: 32 << 20 }, "{mode}");
    }
}

#[test]
fn memory_is_seen_when_the_first_thread_has_ended() {
    let grid = grid();
    let call = call(&["memory without a first thread", "100000000"]);
    assert_eq!(reason(grid.hostile(&call)), Reason::MemoryLimit { limit: limits().memory_bytes });
}

#[test]
fn memory_in_the_buffers_of_sockets_is_counted() {
    let grid = grid();
    let call = with_limits(&["memory in sockets"], |limits| limits.memory_bytes = 32 << 20);
    assert_eq!(reason(grid.hostile(&call)), Reason::MemoryLimit { limit: 32 << 20 });
}

#[test]
fn output_of_exactly_the_limit_is_a_result_and_a_byte_more_is_not() {
    let grid = grid();
    for limit in [0, 1, 4096, 65_536, 65_537, 300_000] {
        let written = |bytes: i64| with_limits(&["write", &bytes.to_string()], |limits| limits.output_bytes = limit);
        let bytes = i64::try_from(limit).expect("small");
        assert_eq!(grid.hostile(&written(bytes)).expect("fits").stdout.len() as u64, limit);
        assert_eq!(reason(grid.hostile(&written(bytes + 1))), Reason::OutputLimit { limit });
        if bytes > 0 {
            assert_eq!(grid.hostile(&written(bytes - 1)).expect("fits").stdout.len() as u64, limit - 1);
        }
    }
}

#[test]
fn a_flood_of_output_is_cut_off() {
    let grid = grid();
    let call = call(&["write", "1000000000000"]);
    assert_eq!(reason(grid.hostile(&call)), Reason::OutputLimit { limit: limits().output_bytes });
}

#[test]
fn a_flood_of_stderr_takes_no_memory_and_ends_with_the_time() {
    let grid = grid();
    let call = with_limits(&["write to stderr", "1000000000000"], |limits| limits.wall_time = SHORT);
    assert_eq!(reason(grid.hostile(&call)), Reason::TimeLimit { limit: SHORT });
    // A busy machine may not let a program write much within the limit: the next one is stopped once it has written enough.
    let (stop, mut seen) = (AtomicBool::new(false), 0);
    let call = crate::helpers::call(&["write to stderr", "1000000000000"]);
    let outcome = grid.sandbox.run(&crate::helpers::hostile_program(), &call, &stop, &mut |chunk| {
        seen += chunk.len();
        stop.store(seen >= sandbox::STDERR_TAIL_BYTES, Ordering::Relaxed);
    });
    let failure = outcome.expect_err("endless");
    assert_eq!(failure.reason, Reason::Canceled);
    assert_eq!(failure.stderr_tail, vec![b'x'; sandbox::STDERR_TAIL_BYTES]);
}

#[test]
fn recursion_without_end_is_a_signal() {
    let grid = grid();
    assert_eq!(reason(grid.hostile(&call(&["recurse"]))), Reason::Signal { signal: 11 });
}

#[test]
fn an_exit_code_comes_with_the_end_of_stderr() {
    let grid = grid();
    let failure = grid.hostile(&call(&["exit", "7"])).expect_err("failed");
    assert_eq!(failure.reason, Reason::Exit { code: 7 });
    assert_eq!(failure.to_string(), "it exited with code 7; the end of its stderr: leaving");
    assert_eq!(reason(grid.hostile(&call(&["abort"]))), Reason::Signal { signal: 6 });
}

#[test]
fn a_fork_bomb_meets_the_limit_on_processes() {
    let grid = grid();
    assert_eq!(reason(grid.hostile(&call(&["fork"]))), Reason::ProcessLimit { limit: limits().processes });
}

#[test]
fn a_slot_rests_after_a_fork_bomb_so_that_a_job_of_many_leaves_the_processors_to_others() {
    let grid = grid();
    let started_at = Instant::now();
    let failure = grid.run(&hostile_program(), &call(&["fork"])).expect_err("too many");
    let rested = started_at.elapsed().saturating_sub(failure.usage.wall_time);
    let cost = failure.usage.cpu_time;
    assert!(rested >= (20 * cost).min(Duration::from_millis(800)), "{rested:?} after {cost:?}");
}

#[test]
fn threads_count_as_processes() {
    let grid = grid();
    assert_eq!(reason(grid.hostile(&call(&["threads"]))), Reason::ProcessLimit { limit: limits().processes });
}

#[test]
fn space_on_disk_has_a_bound_however_it_is_taken() {
    let grid = grid();
    let limit = Reason::ScratchLimit { limit: limits().scratch_bytes };
    let modes = [
        ("fill", "9000000"),
        ("fill at once", "12000000"),
        ("fill a closed directory", "12000000"),
        ("fill an unsearchable directory", "12000000"),
        ("fill with nameless files", "12000000"),
        ("fill below a long path", "12000000"),
        ("fill with mapped files", "12000000"),
        ("fill with empty files", "3000"),
        ("nest", "1000"),
    ];
    for (mode, number) in modes {
        assert_eq!(reason(grid.hostile(&call(&[mode, number]))), limit, "{mode}");
    }
    grid.hostile(&call(&["fill at once", "6000000"])).expect("within the limit");
}

#[test]
fn input_arrives_whole_from_memory_and_from_a_file() {
    let grid = grid();
    let text: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let file = grid.directory.join("input");
    std::fs::write(&file, &text).expect("written");
    for stdin in [Input::Bytes(Bytes::from(text.clone())), Input::File(file)] {
        let copy = Call { stdin, ..call(&["copy"]) };
        assert!(grid.hostile(&copy).expect("copied").stdout == text);
    }
    assert_eq!(grid.hostile(&call(&["copy"])).expect("copied").stdout, b"");
    let unread = Call { stdin: Input::Bytes(Bytes::from(text)), ..call(&["close stdin"]) };
    assert_eq!(text_of(grid.hostile(&unread)), "closed\n");
    let missing = Call { stdin: Input::File("/nowhere".into()), ..call(&["copy"]) };
    assert!(matches!(reason(grid.hostile(&missing)), Reason::BadCall { .. }));
}

fn text_of(outcome: crate::helpers::RunResult) -> String {
    text(&outcome.expect("finished").stdout).to_owned()
}

#[test]
fn arguments_that_no_process_can_have_are_refused() {
    let grid = grid();
    let long = "x".repeat(2 << 20);
    for wrong in [call(&["a\0b"]), call(&[&long])] {
        assert!(matches!(reason(grid.run(&crate::helpers::hostile_program(), &wrong)), Reason::BadCall { .. }));
    }
    // Longer than the kernel takes in one argument, though not all together.
    let one = "x".repeat(200_000);
    assert!(matches!(reason(grid.hostile(&call(&["nothing", &one]))), Reason::BadCall { .. }));
}
